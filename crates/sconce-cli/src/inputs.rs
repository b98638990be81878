//! Reads inputs on a thread of its own: lines, or whole files. Never more in memory than [`MAX_WAITING_BYTES`] and
//! the one being read.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::Error;

/// A longer line answers an error. Room for a large image as JSON; text models take less than that.
const MAX_LINE_BYTES: usize = 16 << 20;
/// A larger file answers an error.
const MAX_FILE_BYTES: usize = 64 << 20;
/// Bytes that are read and not yet answered.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Inputs between the reading thread and the loop that hands them to the model.
const MAX_READ_AHEAD: usize = 64;

/// How a source is cut into inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Each line is one input.
    Line,
    /// Each file is one input.
    File,
}

/// One input as it was read, before a model looks at it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) content: Result<Vec<u8>, ReadError>,
    /// Bytes of the source that it took, line end included.
    pub(crate) consumed: u64,
    /// Its part of [`MAX_WAITING_BYTES`], given back when it is dropped.
    _room: OwnedSemaphorePermit,
}

/// Where an input comes from, as far as its reader needs to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Named where inputs are files, or come from several.
    pub(crate) file: Option<Arc<str>>,
    /// From 1; none where inputs are files.
    pub(crate) line: Option<u64>,
}

/// An input that could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the {unit} is longer than {max} bytes")]
    TooLarge { unit: &'static str, max: usize },
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
}

/// Inputs that are being read.
pub(crate) struct Inputs {
    pub(crate) records: mpsc::Receiver<Record>,
    /// Bytes of all sources, if they are regular files.
    pub(crate) total_bytes: Option<u64>,
}

impl Inputs {
    /// Starts to read `files` one after the other; none at all, or `-`, is standard input.
    ///
    /// Sources of lines must be there when it starts; a file that is an input itself may fail alone.
    pub(crate) fn open(files: &[PathBuf], unit: Unit) -> Result<Self, Error> {
        let files = if files.is_empty() { vec![PathBuf::from("-")] } else { files.to_vec() };
        let sizes: Vec<Option<u64>> = files.iter().map(|path| regular_size(path)).collect();
        if unit == Unit::Line {
            for path in files.iter().filter(|path| !is_stdin(path)) {
                check_readable(path).map_err(|source| Error::Input { path: path.clone(), source })?;
            }
        }
        let (sender, records) = mpsc::channel(MAX_READ_AHEAD);
        let outlet = Outlet { sender, room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)), handle: Handle::current() };
        let name_files = unit == Unit::File || files.len() > 1;
        // Not `spawn_blocking`: the runtime would wait for a standard input that nobody closes.
        std::thread::spawn(move || {
            for path in &files {
                let file = name_files.then(|| path.to_string_lossy().into());
                let sent = match unit {
                    Unit::Line => send_lines(path, file.as_ref(), &outlet),
                    Unit::File => send_file(path, file, &outlet),
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        Ok(Self { records, total_bytes: sizes.into_iter().sum() })
    }
}

/// Where the reading thread puts what it has read.
struct Outlet {
    sender: mpsc::Sender<Record>,
    room: Arc<Semaphore>,
    handle: Handle,
}

/// Nobody takes records any more.
struct Closed;

impl Outlet {
    fn send(&self, place: Place, content: Result<Vec<u8>, ReadError>, consumed: u64) -> Result<(), Closed> {
        let bytes = content.as_ref().map_or(0, Vec::len).min(MAX_WAITING_BYTES);
        let permits = u32::try_from(bytes).expect("MAX_WAITING_BYTES fits 32 bits");
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        let room = self.handle.block_on(room).expect("the semaphore is never closed");
        self.sender.blocking_send(Record { place, content, consumed, _room: room }).map_err(|_| Closed)
    }
}

fn send_lines(path: &Path, file: Option<&Arc<str>>, outlet: &Outlet) -> Result<(), Closed> {
    let place = |line| Place { file: file.cloned(), line: Some(line) };
    let mut reader = match source(path) {
        Ok(source) => BufReader::with_capacity(1 << 16, source),
        Err(cause) => return outlet.send(place(1), Err(cause.into()), 0),
    };
    for number in 1.. {
        match read_line(&mut reader, MAX_LINE_BYTES) {
            Ok(Some(line)) => outlet.send(place(number), line.content, line.consumed)?,
            Ok(None) => break,
            Err(cause) => return outlet.send(place(number), Err(cause.into()), 0),
        }
    }
    Ok(())
}

fn send_file(path: &Path, file: Option<Arc<str>>, outlet: &Outlet) -> Result<(), Closed> {
    let content = read_file(path, MAX_FILE_BYTES);
    let consumed = regular_size(path).unwrap_or(0);
    outlet.send(Place { file, line: None }, content, consumed)
}

fn read_file(path: &Path, max: usize) -> Result<Vec<u8>, ReadError> {
    let mut content = Vec::new();
    // One byte more than allowed tells a file that fits from one that is cut.
    source(path)?.take(max as u64 + 1).read_to_end(&mut content)?;
    if content.len() > max {
        return Err(ReadError::TooLarge { unit: "file", max });
    }
    Ok(content)
}

struct Line {
    content: Result<Vec<u8>, ReadError>,
    consumed: u64,
}

/// The next line without its end; none at the end of the source. The rest of a line beyond `max` is passed over.
fn read_line(reader: &mut impl BufRead, max: usize) -> io::Result<Option<Line>> {
    let mut content = Vec::new();
    let mut consumed = 0;
    let mut too_large = false;
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(cause) => return Err(cause),
        };
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        too_large |= content.len() + part.len() > max;
        if !too_large {
            content.extend_from_slice(part);
        }
        let at_end = end.is_some() || chunk.is_empty();
        let used = part.len() + usize::from(end.is_some());
        consumed += used as u64;
        reader.consume(used);
        if at_end {
            break;
        }
    }
    if consumed == 0 {
        return Ok(None);
    }
    if content.last() == Some(&b'\r') {
        content.pop();
    }
    let content = if too_large { Err(ReadError::TooLarge { unit: "line", max }) } else { Ok(content) };
    Ok(Some(Line { content, consumed }))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn source(path: &Path) -> io::Result<Box<dyn Read>> {
    if is_stdin(path) { Ok(Box::new(io::stdin())) } else { Ok(Box::new(File::open(path)?)) }
}

fn regular_size(path: &Path) -> Option<u64> {
    let metadata = fs::metadata(path).ok().filter(|metadata| metadata.is_file() && !is_stdin(path));
    metadata.map(|metadata| metadata.len())
}

fn check_readable(path: &Path) -> io::Result<()> {
    if File::open(path)?.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: &[u8], buffer: usize, max: usize) -> Vec<Option<Vec<u8>>> {
        let mut reader = BufReader::with_capacity(buffer, source);
        let mut lines = Vec::new();
        let mut consumed = 0;
        while let Some(line) = read_line(&mut reader, max).unwrap() {
            consumed += line.consumed;
            lines.push(line.content.ok());
        }
        assert_eq!(consumed, source.len() as u64, "each byte belongs to one line");
        lines
    }

    #[test]
    fn lines_do_not_depend_on_the_buffer_or_on_the_way_they_end() {
        let table: [(&[u8], &[&[u8]]); 6] = [
            (b"", &[]),
            (b"\n", &[b""]),
            (b"one\ntwo", &[b"one", b"two"]),
            (b"one\r\n\r\ntwo\r\n", &[b"one", b"", b"two"]),
            (b"\n\none\n", &[b"", b"", b"one"]),
            (b"a\rb\n", &[b"a\rb"]),
        ];
        for (source, expected) in table {
            for buffer in [1, 2, 3, 64] {
                let expected: Vec<_> = expected.iter().map(|line| Some(line.to_vec())).collect();
                assert_eq!(lines(source, buffer, 100), expected, "{source:?} in a buffer of {buffer}");
            }
        }
    }

    #[test]
    fn a_line_beyond_the_bound_fails_alone() {
        for buffer in [1, 3, 64] {
            let expected = vec![Some(b"1234".to_vec()), None, Some(b"ok".to_vec()), None];
            assert_eq!(lines(b"1234\n12345\nok\n123456789", buffer, 4), expected);
        }
    }
}
