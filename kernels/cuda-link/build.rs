//! Turns each list in `symbols/` into lazy functions, and puts an empty archive in the way of each `-l` flag that
//! candle's dependencies pass to the linker: the symbols themselves come from this crate.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs, io};

/// Name after `-l`, and the static of `src/library.rs` that opens the library.
const LIBRARIES: [(&str, &str); 6] = [
    ("cuda", "DRIVER"),
    ("cublas", "CUBLAS"),
    ("cublasLt", "CUBLAS_LT"),
    ("curand", "CURAND"),
    ("nvrtc", "NVRTC"),
    ("cudart", "RUNTIME"),
];

/// An archive without members.
const EMPTY_ARCHIVE: &str = "!<arch>\n";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=symbols");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it for build scripts"));
    let mut functions = String::new();
    for (library, how) in LIBRARIES {
        let symbols = fs::read_to_string(format!("symbols/{library}.txt"))?;
        for symbol in symbols.lines() {
            writeln!(functions, "lazy_function!({how}, {symbol});").expect("a string takes everything");
        }
        fs::write(out.join(format!("lib{library}.a")), EMPTY_ARCHIVE)?;
    }
    fs::write(out.join("functions.rs"), functions)?;
    println!("cargo::rustc-link-search=native={}", out.display());
    Ok(())
}
