//! SHA-256 of files, computed while they are copied.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};

/// Copies all of `from` and returns the SHA-256 of what was copied, in hexadecimal.
pub(super) fn copy(from: &mut impl Read, to: &mut impl Write, progress: &ProgressBar) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(cause),
        };
        hash.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        progress.inc(read as u64);
    }
    let mut hexadecimal = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(hexadecimal, "{byte:02x}");
    }
    Ok(hexadecimal)
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn of_file(path: &Path) -> io::Result<String> {
    copy(&mut File::open(path)?, &mut io::sink(), &ProgressBar::hidden())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_standard() {
        let mut copied = Vec::new();
        let digest = copy(&mut b"abc".as_slice(), &mut copied, &ProgressBar::hidden()).unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(copied, b"abc");
    }
}
