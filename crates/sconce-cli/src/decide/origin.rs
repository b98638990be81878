//! The origin of figures: digests of files, the machine, the program.

use std::fs::File;
use std::io;
use std::path::Path;

use sconce::DeviceName;
use sconce::decide::{Hardware, MeasuringBinary};
use sconce::models::{Backends, Isa};

use super::error::DecideError;
use crate::bench::cpu_name;

/// BLAKE3 of a file, in hexadecimal. A pipe can be read once alone, so it is refused.
pub(crate) fn digest_of(path: &Path) -> Result<String, DecideError> {
    let hash = || -> io::Result<String> {
        if !path.metadata()?.is_file() {
            return Err(io::Error::other("it is no file, and its digest goes on the record: write it to a file first"));
        }
        Ok(blake3::Hasher::new().update_reader(File::open(path)?)?.finalize().to_hex().to_string())
    };
    hash().map_err(|source| DecideError::Unreadable { path: path.to_owned(), source })
}

/// The running program. Its digest is empty where the system does not tell its file.
pub(crate) fn binary() -> MeasuringBinary {
    let digest = std::env::current_exe().ok().and_then(|path| digest_of(&path).ok()).unwrap_or_default();
    MeasuringBinary { version: env!("CARGO_PKG_VERSION").to_owned(), digest }
}

/// The machine, with those of its devices that candidates run on.
pub(crate) fn hardware(cpu_threads: usize, devices: &[DeviceName]) -> Hardware {
    let listed = Backends::default().iter().flat_map(|backend| backend.listing().devices).collect::<Vec<_>>();
    let others = listed.iter().filter(|it| it.device != DeviceName::CPU && devices.contains(&it.device));
    Hardware {
        processor: cpu_name().unwrap_or_else(|| "unknown".to_owned()),
        cpu_threads: cpu_threads as u64,
        instructions: vec![Isa::best().name().to_owned()],
        devices: others.map(|it| format!("{} {}", it.device, it.name)).collect(),
    }
}
