//! Reads inputs on a thread of its own: lines, whole files, or a column of a table. Holds at most [`MAX_WAITING_BYTES`]
//! in memory, and the input that is being read.

mod csv;
mod json_lines;
mod lines;
mod parquet;
mod quotes;
mod table;
mod whole;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::error::Error;

pub(crate) use table::{CellKind, Format, TableColumn};
pub(crate) use whole::{DataRow, DataTable, DataValue, TableError};

/// Bytes of a line at most; a longer one is an error. Room for a large image as JSON; text models take less.
const MAX_LINE_BYTES: usize = 16 << 20;
/// Bytes at most of a file that is one input; a larger one is an error.
const MAX_FILE_BYTES: usize = 64 << 20;
/// Bytes of inputs that are read and not yet answered.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Inputs in the channel between the reading thread and the loop that hands them to the model.
const MAX_READ_AHEAD: usize = 64;

/// The piece of a source that is one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Each line is one input.
    Line,
    /// Each file is one input.
    File,
    /// Each row of a table is one input.
    Row(TableColumn),
}

/// One input as it was read, before a model checks it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) location: InputLocation,
    pub(crate) content: Result<Vec<u8>, ReadError>,
    /// Bytes that the input took in its source, line end included.
    pub(crate) consumed: u64,
    /// The record's share of [`MAX_WAITING_BYTES`], given back when the record is dropped.
    _room: OwnedSemaphorePermit,
}

/// The location of an input, as far as the user needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputLocation {
    /// Set if each file is one input, or if there are several files.
    pub(crate) file: Option<Arc<str>>,
    /// Line, or row of a table without lines, from 1; `None` if each file is one input.
    pub(crate) line: Option<u64>,
}

/// Formats the location as compilers do: `file:line`.
impl fmt::Display for InputLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}"),
            (Some(file), None) => f.write_str(file),
            (None, Some(line)) => write!(f, "line {line}"),
            (None, None) => f.write_str("standard input"),
        }
    }
}

/// An input that could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the {unit} is longer than {max} bytes")]
    TooLarge { unit: &'static str, max: usize },
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    #[error("the line is blank; give one JSON string or object per line")]
    Blank,
    #[error("not JSON: {message}: {line}; give one JSON string or object per line")]
    NotJson { message: String, line: String },
    #[error("there is no field '{column}'; there are: {}; --column names another", or_none(known))]
    NoField { column: String, known: Vec<String> },
    #[error("the header names '{column}' twice, in columns {first} and {second}; rename one of them")]
    ColumnTwice { column: String, first: usize, second: usize },
    #[error("field '{column}' holds {got}; it must be {allowed}")]
    WrongField { column: String, got: String, allowed: CellKind },
    #[error(
        "the line is {got}; give {allowed}, or an object with that in its field '{column}' (--column names another)"
    )]
    WrongLine { column: String, got: String, allowed: CellKind },
    #[error("a quote that begins here is never closed; close it, or double each quote within a quoted field")]
    UnclosedQuote,
    #[error("the table is not valid: {0}")]
    Table(String),
}

impl ReadError {
    /// The error of a column that has two places, which count from 0.
    fn column_twice(column: &str, first: usize, second: usize) -> Self {
        Self::ColumnTwice { column: column.to_owned(), first: first + 1, second: second + 1 }
    }
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "(none)".to_owned() } else { names.join(", ") }
}

/// Inputs that are being read.
pub(crate) struct Inputs {
    pub(crate) records: mpsc::Receiver<Record>,
    /// Bytes of all sources; `None` unless all are regular files.
    pub(crate) total_bytes: Option<u64>,
}

impl Inputs {
    /// Checks that `files` can be read, as far as that can be known without reading them: of tables their headers.
    pub(crate) fn check(files: &[PathBuf], unit: &Unit) -> Result<(), Error> {
        let files = or_stdin(files);
        if *unit != Unit::File {
            for path in files.iter().filter(|path| !is_stdin(path)) {
                check_readable(path).map_err(|source| Error::Input { path: path.clone(), source })?;
            }
        }
        if let Unit::Row(table) = unit {
            files.iter().try_for_each(|path| table.check(path))?;
        }
        Ok(())
    }

    /// Starts to read `files` one after the other; no file at all, or `-`, is standard input.
    ///
    /// # Errors
    /// A file of lines or rows that cannot be read. If each file is one input, a file that cannot be read fails alone,
    /// later.
    pub(crate) fn open(files: &[PathBuf], unit: Unit) -> Result<Self, Error> {
        Self::check(files, &unit)?;
        let files = or_stdin(files);
        let sizes: Vec<Option<u64>> = files.iter().map(|path| regular_size(path)).collect();
        let (sender, records) = mpsc::channel(MAX_READ_AHEAD);
        let outlet = Outlet { sender, room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)), handle: Handle::current() };
        let name_files = unit == Unit::File || files.len() > 1;
        // Not `spawn_blocking`: the runtime would wait at its end for a standard input that nobody closes.
        std::thread::spawn(move || {
            for path in &files {
                let file = name_files.then(|| path.to_string_lossy().into());
                let sent = match &unit {
                    Unit::Line => lines::send(path, file.as_ref(), &outlet),
                    Unit::File => send_file(path, file, &outlet),
                    Unit::Row(table) => table.send(path, file.as_ref(), &outlet),
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        Ok(Self { records, total_bytes: sizes.into_iter().sum() })
    }
}

/// The sending side of the reading thread.
struct Outlet {
    sender: mpsc::Sender<Record>,
    room: Arc<Semaphore>,
    handle: Handle,
}

/// The error that nobody receives records any more.
struct Closed;

impl Outlet {
    fn send(&self, location: InputLocation, content: Result<Vec<u8>, ReadError>, consumed: u64) -> Result<(), Closed> {
        let bytes = content.as_ref().map_or(0, Vec::len).min(MAX_WAITING_BYTES);
        let permits = u32::try_from(bytes).expect("MAX_WAITING_BYTES fits 32 bits");
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        let room = self.handle.block_on(room).expect("the semaphore is never closed");
        self.sender.blocking_send(Record { location, content, consumed, _room: room }).map_err(|_| Closed)
    }
}

fn send_file(path: &Path, file: Option<Arc<str>>, outlet: &Outlet) -> Result<(), Closed> {
    let content = read_file(path, MAX_FILE_BYTES);
    let consumed = regular_size(path).unwrap_or(0);
    outlet.send(InputLocation { file, line: None }, content, consumed)
}

fn read_file(path: &Path, max: usize) -> Result<Vec<u8>, ReadError> {
    let mut content = Vec::new();
    // One byte more than allowed, to notice a file that is too large.
    source(path)?.take(max as u64 + 1).read_to_end(&mut content)?;
    if content.len() > max {
        return Err(ReadError::TooLarge { unit: "file", max });
    }
    Ok(content)
}

fn or_stdin(files: &[PathBuf]) -> Vec<PathBuf> {
    if files.is_empty() { vec![PathBuf::from("-")] } else { files.to_vec() }
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
