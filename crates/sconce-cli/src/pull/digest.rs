//! SHA-256 of files, computed while they are copied.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use indicatif::ProgressBar;
use sha2::{Digest as _, Sha256};

/// Files of weights, relative to the model's directory, each with its SHA-256.
pub(super) type WeightDigests = BTreeMap<String, String>;

/// One digest of all files: that of the file if there is one, else the SHA-256 of their list as `sha256sum` prints it.
pub(super) fn of_all(files: &WeightDigests) -> String {
    if let (1, Some(digest)) = (files.len(), files.values().next()) {
        return digest.clone();
    }
    let mut hash = Sha256::new();
    for (file, digest) in files {
        hash.update(format!("{digest}  {file}\n"));
    }
    hexadecimal(hash)
}

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
    Ok(hexadecimal(hash))
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn of_file(path: &Path) -> io::Result<String> {
    copy(&mut File::open(path)?, &mut io::sink(), &ProgressBar::hidden())
}

fn hexadecimal(hash: Sha256) -> String {
    let mut hexadecimal = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(hexadecimal, "{byte:02x}");
    }
    hexadecimal
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

    #[test]
    fn the_digest_of_several_files_depends_on_each_name_and_each_content() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let files = |files: &[(&str, &str)]| {
            of_all(&files.iter().map(|(file, digest)| ((*file).to_owned(), (*digest).to_owned())).collect())
        };
        assert_eq!(files(&[("model.safetensors", abc)]), abc);
        let two = files(&[("a", abc), ("b", abc)]);
        // printf '%s  a\n%s  b\n' $abc $abc | sha256sum
        assert_eq!(two, "6e0534855d1d183250459e82c311fb77578cf75019787625a10154399462260d");
        assert!(two != files(&[("a", abc), ("c", abc)]) && two != files(&[("a", abc), ("b", &two)]));
    }
}
