//! Finds a quote that is never closed in comma-separated values.

/// Follows the quotes of comma-separated values as the parser reads them: the parser takes the end of the file for the
/// end of a quoted field.
#[derive(Debug)]
pub(super) struct Quotes {
    state: QuoteState,
    bytes: u64,
    line: u64,
    opened: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuoteState {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote in a quoted field, which ends the field unless another quote follows.
    QuoteInQuoted,
}

/// UTF-8's byte order mark, which the parser skips at the beginning.
const BOM: &[u8; 3] = b"\xef\xbb\xbf";

impl Quotes {
    pub(super) fn new() -> Self {
        Self { state: QuoteState::FieldStart, bytes: 0, line: 1, opened: 1 }
    }

    /// Follows further bytes of the file.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        for (at, &byte) in (self.bytes..).zip(bytes) {
            let is_bom = usize::try_from(at).is_ok_and(|at| BOM.get(at) == Some(&byte));
            if !is_bom {
                self.step(byte);
            }
        }
        self.bytes += bytes.len() as u64;
    }

    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (QuoteState::FieldStart, b'"') => {
                self.opened = self.line;
                QuoteState::Quoted
            }
            (QuoteState::Quoted, b'"') => QuoteState::QuoteInQuoted,
            (QuoteState::QuoteInQuoted, b'"') | (QuoteState::Quoted, _) => QuoteState::Quoted,
            (_, b',' | b'\r' | b'\n') => QuoteState::FieldStart,
            _ => QuoteState::Unquoted,
        };
        if byte == b'\n' {
            self.line += 1;
        }
    }

    /// The line of the quote that is open after the first `bytes` bytes, if these are all that was read.
    pub(super) fn open_after(&self, bytes: u64) -> Option<u64> {
        (self.state == QuoteState::Quoted && self.bytes == bytes).then_some(self.opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_quote_is_found_with_its_line_and_the_parser_reads_the_same() {
        let table: [(&str, Option<u64>); 12] = [
            ("", None),
            ("a,b\n1,2\n", None),
            ("a,b\n\"1\",\"2", Some(2)),
            ("a\n\"x\ny\"\n", None),
            ("a\n\"x\ny\n", Some(2)),
            ("a\n\"x\"\"", Some(2)),
            ("a\n\"x\"\"\"", None),
            ("a\n5\" disk\n", None),
            ("a\n\"x\"y\"\n", None),
            ("a\n\n\r\n\"\n", Some(4)),
            ("\u{feff}\"a", Some(1)),
            ("\u{feff}\"a\"\n", None),
        ];
        for (text, line) in table {
            let mut quotes = Quotes::new();
            quotes.read(text.as_bytes());
            assert_eq!(quotes.open_after(text.len() as u64), line, "{text:?}");
            // What is appended within an open quote is no row of its own.
            let appended = format!("{text}\nend");
            let mut reader =
                csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(appended.as_bytes());
            let rows: Vec<_> = reader.records().map(|row| row.expect("UTF-8")).collect();
            let last = rows.last().expect("there is a row");
            assert_eq!(last.len() == 1 && &last[0] == "end", line.is_none(), "{text:?}: {rows:?}");
        }
    }
}
