//! Lines of text, up to a bound of their length.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use super::{Closed, InputLocation, MAX_LINE_BYTES, Outlet, ReadError, source};

/// Sends each line of a source.
pub(super) fn send(path: &Path, file: Option<&Arc<str>>, outlet: &Outlet) -> Result<(), Closed> {
    for_each(path, file, outlet, |location, line| outlet.send(location, line.content, line.consumed))
}

/// Calls `each` with each line of a source and its location. A source that cannot be read sends an error instead.
pub(super) fn for_each(
    path: &Path,
    file: Option<&Arc<str>>,
    outlet: &Outlet,
    mut each: impl FnMut(InputLocation, InputLine) -> Result<(), Closed>,
) -> Result<(), Closed> {
    let location = |line| InputLocation { file: file.cloned(), line: Some(line) };
    let mut reader = match source(path) {
        Ok(source) => BufReader::with_capacity(1 << 16, source),
        Err(cause) => return outlet.send(location(1), Err(cause.into()), 0),
    };
    for number in 1.. {
        match read_line(&mut reader, MAX_LINE_BYTES) {
            Ok(Some(line)) => each(location(number), line)?,
            Ok(None) => break,
            Err(cause) => return outlet.send(location(number), Err(cause.into()), 0),
        }
    }
    Ok(())
}

/// A line without its end.
pub(super) struct InputLine {
    pub(super) content: Result<Vec<u8>, ReadError>,
    /// Bytes of the line in its source, its end included.
    pub(super) consumed: u64,
}

/// Reads the next line without its end; `None` at the end of the source. A line of more than `max` bytes is skipped to
/// its end.
fn read_line(reader: &mut impl BufRead, max: usize) -> io::Result<Option<InputLine>> {
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
    Ok(Some(InputLine { content, consumed }))
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
