//! Comma- and tab-separated values (RFC 4180), with a header.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::{Closed, MAX_LINE_BYTES, Outlet, Place, ReadError, source};

/// Bytes of one row at most, so that a quote that is never closed does not read a whole file into memory.
const MAX_ROW_BYTES: usize = 4 * MAX_LINE_BYTES;

pub(super) fn send(
    path: &Path,
    file: Option<&Arc<str>>,
    outlet: &Outlet,
    column: &str,
    delimiter: u8,
) -> Result<(), Closed> {
    let place = |line| Place { file: file.cloned(), line: Some(line) };
    let source = match source(path) {
        Ok(source) => source,
        Err(cause) => return outlet.send(place(1), Err(cause.into()), 0),
    };
    let since_last_row = Rc::new(Cell::new(0));
    let source = Bounded { source, since_last_row: Rc::clone(&since_last_row) };
    // A quote has no meaning in tab-separated values.
    let quoting = delimiter == b',';
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).quoting(quoting).buffer_capacity(1 << 16).from_reader(source);
    let index = match index_of(column, reader.byte_headers()) {
        Ok(index) => index,
        Err(error) => return outlet.send(place(1), Err(error), 0),
    };
    let mut row = csv::ByteRecord::new();
    let mut consumed = 0;
    loop {
        since_last_row.set(0);
        let line = reader.position().line();
        let content = match reader.read_byte_record(&mut row) {
            Ok(true) => cell(&row, index),
            Ok(false) => return Ok(()),
            // The row has another number of fields than the header; the next row may be correct.
            Err(cause) if matches!(cause.kind(), csv::ErrorKind::UnequalLengths { .. }) => {
                Err(ReadError::Table(cause.to_string()))
            }
            Err(cause) => return outlet.send(place(line), Err(ReadError::Table(cause.to_string())), 0),
        };
        let end = reader.position().byte();
        outlet.send(place(line), content, end - consumed)?;
        consumed = end;
    }
}

/// A source that fails if a row is too long.
struct Bounded<R> {
    source: R,
    since_last_row: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_last_row.get() > MAX_ROW_BYTES {
            return Err(io::Error::other(format!(
                "a row is longer than {MAX_ROW_BYTES} bytes; is a quote never closed?"
            )));
        }
        let read = self.source.read(buffer)?;
        self.since_last_row.update(|before| before + read);
        Ok(read)
    }
}

fn index_of(column: &str, headers: csv::Result<&csv::ByteRecord>) -> Result<usize, ReadError> {
    let headers = headers.map_err(|cause| ReadError::Table(cause.to_string()))?;
    let index = headers.iter().position(|name| name == column.as_bytes());
    index.ok_or_else(|| ReadError::NoField {
        column: column.to_owned(),
        known: headers.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
    })
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
        let source = Bounded { source: endless, since_last_row: Rc::new(Cell::new(0)) };
        let mut reader = csv::ReaderBuilder::new().from_reader(source);
        let error = reader.read_byte_record(&mut csv::ByteRecord::new()).unwrap_err().to_string();
        assert!(error.contains("is a quote never closed?"), "{error}");
    }
}
