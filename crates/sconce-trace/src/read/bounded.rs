//! A source whose lines and whole length are bounded, however it is read.

use std::io::{self, BufRead, Read};

use crate::{TraceError, TraceLimits};

/// A limit that a source exceeds. Travels as the cause of an [`io::Error`] through readers that know nothing of it.
#[derive(Debug, thiserror::Error)]
enum Exceeded {
    #[error("line {line} is longer than {max} bytes")]
    Line { line: u64, max: usize },
    #[error("the source is longer than {max} bytes")]
    Whole { max: u64 },
}

/// Reads `source`, and fails at the first line that is too long, or when too many bytes were read.
pub(super) struct Bounded<R> {
    source: R,
    limits: TraceLimits,
    line: u64,
    in_line: usize,
    read: u64,
}

impl<R> Bounded<R> {
    pub(super) fn new(source: R, limits: &TraceLimits) -> Self {
        Self { source, limits: *limits, line: 1, in_line: 0, read: 0 }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        let TraceLimits { max_line_bytes, max_bytes, .. } = self.limits;
        self.read += count as u64;
        for part in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            self.in_line += part.len();
            if self.in_line > max_line_bytes {
                return Err(io::Error::other(Exceeded::Line { line: self.line, max: max_line_bytes }));
            }
            if part.ends_with(b"\n") {
                (self.line, self.in_line) = (self.line + 1, 0);
            }
        }
        if self.read > max_bytes {
            return Err(io::Error::other(Exceeded::Whole { max: max_bytes }));
        }
        Ok(count)
    }
}

/// The error of a source that was read through [`Bounded`].
pub(super) fn of_reading(error: io::Error) -> TraceError {
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(Exceeded::Line { line, max }) => TraceError::LineTooLong { line: *line, max: *max },
        Some(Exceeded::Whole { max }) => TraceError::TooManyBytes { max: *max },
        None => TraceError::Read(error),
    }
}

/// Reads the next line, its end included, into `line`; returns false at the end of the source. Blank lines count as lines.
pub(super) fn line(
    source: &mut impl BufRead,
    line: &mut Vec<u8>,
    number: u64,
    limits: &TraceLimits,
) -> Result<bool, TraceError> {
    line.clear();
    source.read_until(b'\n', line).map_err(of_reading)?;
    // A line that ends within one buffer is seen whole before the bound of its source can stop it.
    if line.len() > limits.max_line_bytes {
        return Err(TraceError::LineTooLong { line: number, max: limits.max_line_bytes });
    }
    Ok(!line.is_empty())
}
