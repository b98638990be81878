//! The committed PTX, and the choice of the version for a device.

use std::io::Read as _;

use flate2::read::GzDecoder;

use crate::KernelError;

/// A compute capability with committed PTX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PtxVersion {
    /// Turing. No bf16 and no `mma` of the shapes that the kernels use: plain paths.
    Sm75,
    /// Ampere: tensor cores for f16, bf16 and int8.
    Sm80,
    /// Ada and newer.
    Sm89,
}

impl PtxVersion {
    pub(crate) const ALL: [Self; 3] = [Self::Sm75, Self::Sm80, Self::Sm89];

    /// The highest version that runs on a device of this compute capability.
    ///
    /// # Errors
    /// [`KernelError::OldDevice`] below 7.5.
    pub(crate) fn for_device(major: i32, minor: i32) -> Result<Self, KernelError> {
        let best = Self::ALL.into_iter().rev().find(|version| version.capability() <= (major, minor));
        best.ok_or(KernelError::OldDevice { major, minor })
    }

    fn capability(self) -> (i32, i32) {
        match self {
            Self::Sm75 => (7, 5),
            Self::Sm80 => (8, 0),
            Self::Sm89 => (8, 9),
        }
    }

    /// True if the PTX has the entry points for tensor cores.
    pub(crate) fn has_tensor_cores(self) -> bool {
        self >= Self::Sm80
    }
}

/// A kernel's PTX, compressed by gzip: one file for each version whose code differs from that of the next lower one, the
/// lowest version first. The higher versions run it, too.
pub(super) struct PtxSource(&'static [(PtxVersion, &'static [u8])]);

impl PtxSource {
    /// The PTX for devices that run `version`. Ends in a 0, as the driver wants it.
    pub(super) fn of(&self, version: PtxVersion) -> Vec<u8> {
        let (_, compressed) = file_for(self.0, version);
        let mut text = Vec::new();
        GzDecoder::new(*compressed).read_to_end(&mut text).expect("a test decompresses every embedded file");
        text.push(0);
        text
    }
}

/// The file of the highest version up to `version`. `files` begin with the lowest version there is and ascend.
fn file_for<T>(files: &[(PtxVersion, T)], version: PtxVersion) -> &(PtxVersion, T) {
    files.iter().rfind(|(file, _)| *file <= version).expect("each kernel has a file for the lowest version")
}

macro_rules! source {
    ($kernel:literal: $($version:ident = $capability:literal),+) => {
        PtxSource(&[$((
            PtxVersion::$version,
            include_bytes!(concat!("../", $kernel, "/ptx/", $kernel, ".sm_", $capability, ".ptx.gz")),
        )),+])
    };
}

// `tools/cuda/make-ptx` prints which files a kernel has.
pub(super) const ATTENTION: PtxSource = source!("attention": Sm75 = 75, Sm80 = 80);
pub(super) const BIAS_GELU: PtxSource = source!("bias_gelu": Sm75 = 75, Sm80 = 80);
pub(super) const EMBEDDING: PtxSource = source!("embedding": Sm75 = 75, Sm80 = 80);
pub(super) const LINEAR: PtxSource = source!("linear": Sm75 = 75, Sm80 = 80);
pub(super) const POOLING: PtxSource = source!("pooling": Sm75 = 75);
pub(super) const QUANTIZE: PtxSource = source!("quantize": Sm75 = 75);
pub(super) const RESIDUAL_NORM: PtxSource = source!("residual_norm": Sm75 = 75, Sm80 = 80);

/// Every kernel, with the name of its folder.
#[cfg(test)]
const ALL: [(&str, PtxSource); 7] = [
    ("attention", ATTENTION),
    ("bias_gelu", BIAS_GELU),
    ("embedding", EMBEDDING),
    ("linear", LINEAR),
    ("pooling", POOLING),
    ("quantize", QUANTIZE),
    ("residual_norm", RESIDUAL_NORM),
];

#[cfg(test)]
impl PtxVersion {
    /// The versions that some kernel has a file for: the others run the same code as the next lower one.
    pub(super) fn with_code_of_its_own() -> impl Iterator<Item = Self> {
        let has = |version: &Self| ALL.iter().any(|(_, source)| source.0.iter().any(|(file, _)| file == version));
        Self::ALL.into_iter().filter(has)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_device_gets_the_highest_that_it_can_run() {
        let version = |major, minor| PtxVersion::for_device(major, minor);
        assert_eq!(version(7, 5), Ok(PtxVersion::Sm75));
        assert_eq!(version(8, 0), Ok(PtxVersion::Sm80));
        assert_eq!(version(8, 6), Ok(PtxVersion::Sm80));
        assert_eq!(version(8, 9), Ok(PtxVersion::Sm89));
        assert_eq!(version(9, 0), Ok(PtxVersion::Sm89));
        assert_eq!(version(12, 0), Ok(PtxVersion::Sm89));
        assert_eq!(version(7, 0), Err(KernelError::OldDevice { major: 7, minor: 0 }));
    }

    #[test]
    fn a_version_without_a_file_runs_that_of_the_next_lower_one() {
        use PtxVersion::{Sm75, Sm80, Sm89};
        for (files, expected) in [
            (&[Sm75, Sm80, Sm89][..], [Sm75, Sm80, Sm89]),
            (&[Sm75, Sm80], [Sm75, Sm80, Sm80]),
            (&[Sm75, Sm89], [Sm75, Sm75, Sm89]),
            (&[Sm75], [Sm75, Sm75, Sm75]),
        ] {
            let files: Vec<_> = files.iter().map(|version| (*version, ())).collect();
            let got = PtxVersion::ALL.map(|version| file_for(&files, version).0);
            assert_eq!(got, expected, "with files for {files:?}");
        }
    }

    #[test]
    fn every_embedded_file_is_whole_and_for_the_capability_in_its_name() {
        for (kernel, source) in ALL {
            assert!(source.0.is_sorted_by_key(|(version, _)| *version), "{kernel}");
            assert_eq!(source.0[0].0, PtxVersion::ALL[0], "{kernel}");
            for (version, _) in source.0 {
                let text = String::from_utf8(source.of(*version)).unwrap();
                let (major, minor) = version.capability();
                assert!(text.starts_with("//\n// Generated by NVIDIA NVVM Compiler\n"), "{kernel} for {version:?}");
                assert!(text.contains(&format!("\n.target sm_{major}{minor}\n")), "{kernel} for {version:?}");
                assert!(text.ends_with("}\n\n\0"), "{kernel} for {version:?}");
            }
        }
    }

    #[test]
    fn every_committed_file_is_embedded() {
        for (kernel, source) in ALL {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(kernel).join("ptx");
            let names = folder.read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
            let embedded = source.0.iter().map(|(version, _)| {
                let (major, minor) = version.capability();
                format!("{kernel}.sm_{major}{minor}.ptx.gz")
            });
            assert_eq!(names.collect::<BTreeSet<_>>(), embedded.collect::<BTreeSet<_>>());
        }
    }
}
