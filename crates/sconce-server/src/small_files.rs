//! Reading of small files that somebody else may replace at any time.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Bytes of such a file at most.
pub(crate) const MAX_FILE_BYTES: u64 = 16 << 20;

/// Reads a file whole, if it is a regular one of at most [`MAX_FILE_BYTES`]: a pipe would hold its reader up for ever.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 16 MiB"));
    }
    Ok(bytes)
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;

    // Opening a pipe waits for its other end, unless it is opened so.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_a_directory_and_a_file_without_an_end_are_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        for path in [&pipe, directory.path(), Path::new("/dev/zero")] {
            assert_eq!(read(path).unwrap_err().to_string(), "it is not a regular file", "{}", path.display());
        }
        let large = directory.path().join("large");
        File::create(&large).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(read(&large).unwrap_err().to_string(), "it has more than 16 MiB");
        std::fs::write(&large, "small").unwrap();
        assert_eq!(read(&large).unwrap(), b"small");
    }
}
