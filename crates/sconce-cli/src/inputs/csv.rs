//! Comma- and tab-separated values (RFC 4180), with a header.

use std::cell::RefCell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::quotes::Quotes;
use super::{Closed, InputLocation, MAX_LINE_BYTES, Outlet, ReadError, source};

/// Bytes of one row at most, so that a quote that is never closed does not read a whole file into memory.
const MAX_ROW_BYTES: usize = 4 * MAX_LINE_BYTES;

pub(super) fn send(
    path: &Path,
    file: Option<&Arc<str>>,
    outlet: &Outlet,
    column: &str,
    delimiter: u8,
) -> Result<(), Closed> {
    let location = |line| InputLocation { file: file.cloned(), line: Some(line) };
    let CsvRows { mut reader, watch, index } = match open(path, column, delimiter) {
        Ok(rows) => rows,
        Err((line, error)) => return outlet.send(location(line), Err(error), 0),
    };
    let mut row = csv::ByteRecord::new();
    let mut consumed = 0;
    loop {
        watch.borrow_mut().since_last_row = 0;
        let line = reader.position().line();
        let content = match reader.read_byte_record(&mut row) {
            Ok(true) => cell(&row, index),
            Ok(false) => return Ok(()),
            // The row has another number of fields than the header; the next row may be correct.
            Err(cause) if matches!(cause.kind(), csv::ErrorKind::UnequalLengths { .. }) => {
                Err(ReadError::Table(cause.to_string()))
            }
            Err(cause) => return outlet.send(location(line), Err(ReadError::Table(cause.to_string())), 0),
        };
        let end = reader.position().byte();
        if let Some(line) = watch.borrow().unclosed_quote(end) {
            return outlet.send(location(line), Err(ReadError::UnclosedQuote), end - consumed);
        }
        outlet.send(location(line), content, end - consumed)?;
        consumed = end;
    }
}

/// Checks that the header of a file can be read and has the column. An error has its line.
pub(super) fn check(path: &Path, column: &str, delimiter: u8) -> Result<(), (u64, ReadError)> {
    open(path, column, delimiter).map(drop)
}

/// Calls `each` with the line and the fields of every row, the first included. An error has its line.
pub(super) fn for_each_row(
    path: &Path,
    delimiter: u8,
    mut each: impl FnMut(u64, &csv::ByteRecord),
) -> Result<(), (u64, ReadError)> {
    let (mut reader, watch) = reader(path, delimiter, false)?;
    let mut row = csv::ByteRecord::new();
    loop {
        watch.borrow_mut().since_last_row = 0;
        let line = reader.position().line();
        let more = reader.read_byte_record(&mut row).map_err(|cause| (line, ReadError::Table(cause.to_string())))?;
        if let Some(line) = watch.borrow().unclosed_quote(reader.position().byte()) {
            return Err((line, ReadError::UnclosedQuote));
        }
        if !more {
            return Ok(());
        }
        each(line, &row);
    }
}

/// The rows of a file behind its header.
struct CsvRows {
    reader: csv::Reader<WatchedRows>,
    watch: Rc<RefCell<Watch>>,
    /// Index of the column of inputs.
    index: usize,
}

fn open(path: &Path, column: &str, delimiter: u8) -> Result<CsvRows, (u64, ReadError)> {
    let (mut reader, watch) = reader(path, delimiter, true)?;
    let headers = reader.byte_headers().map_err(|cause| (1, ReadError::Table(cause.to_string())))?.clone();
    if let Some(line) = watch.borrow().unclosed_quote(reader.position().byte()) {
        return Err((line, ReadError::UnclosedQuote));
    }
    let index = index_of(column, &headers).map_err(|error| (1, error))?;
    Ok(CsvRows { reader, watch, index })
}

type WatchedReader = (csv::Reader<WatchedRows>, Rc<RefCell<Watch>>);

fn reader(path: &Path, delimiter: u8, has_header: bool) -> Result<WatchedReader, (u64, ReadError)> {
    // A quote has no meaning in tab-separated values.
    let quoting = delimiter == b',';
    let watch = Rc::new(RefCell::new(Watch { since_last_row: 0, quotes: quoting.then(Quotes::new) }));
    let source = source(path).map_err(|cause| (1, cause.into()))?;
    let source = WatchedRows { source, watch: Rc::clone(&watch) };
    let mut builder = csv::ReaderBuilder::new();
    builder.delimiter(delimiter).quoting(quoting).buffer_capacity(1 << 16).has_headers(has_header);
    Ok((builder.from_reader(source), watch))
}

/// Observations about the bytes that the parser has read.
struct Watch {
    since_last_row: usize,
    /// `None` if quotes have no meaning.
    quotes: Option<Quotes>,
}

impl Watch {
    /// The line of a quote that is open at `end`, if that is the end of the file.
    fn unclosed_quote(&self, end: u64) -> Option<u64> {
        self.quotes.as_ref()?.open_after(end)
    }
}

/// A source that is watched, and fails if a row is too long.
struct WatchedRows {
    source: Box<dyn Read>,
    watch: Rc<RefCell<Watch>>,
}

impl Read for WatchedRows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut watch = self.watch.borrow_mut();
        if watch.since_last_row > MAX_ROW_BYTES {
            return Err(io::Error::other(format!(
                "a row is longer than {MAX_ROW_BYTES} bytes; is a quote never closed?"
            )));
        }
        let read = self.source.read(buffer)?;
        watch.since_last_row += read;
        if let Some(quotes) = &mut watch.quotes {
            quotes.read(&buffer[..read]);
        }
        Ok(read)
    }
}

fn index_of(column: &str, headers: &csv::ByteRecord) -> Result<usize, ReadError> {
    let mut found = headers.iter().zip(0..).filter(|(name, _)| *name == column.as_bytes()).map(|(_, index)| index);
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(ReadError::column_twice(column, first, second)),
        (Some(index), None) => Ok(index),
        (None, _) => Err(ReadError::NoField {
            column: column.to_owned(),
            known: headers.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
        }),
    }
}

fn cell(row: &csv::ByteRecord, index: usize) -> Result<Vec<u8>, ReadError> {
    let cell = row.get(index).unwrap_or_default();
    if cell.len() > MAX_LINE_BYTES {
        return Err(ReadError::TooLarge { unit: "field", max: MAX_LINE_BYTES });
    }
    Ok(cell.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_that_is_never_closed_ends_before_memory_does() {
        let endless = io::Cursor::new(b"text\n\"".to_vec()).chain(io::repeat(b'x'));
        let watch = Rc::new(RefCell::new(Watch { since_last_row: 0, quotes: Some(Quotes::new()) }));
        let source = WatchedRows { source: Box::new(endless), watch };
        let mut reader = csv::ReaderBuilder::new().from_reader(source);
        let error = reader.read_byte_record(&mut csv::ByteRecord::new()).unwrap_err().to_string();
        assert!(error.contains("is a quote never closed?"), "{error}");
    }
}
