//! Writing of a trace, request by request.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::line::{HeaderLine, RequestLine, VERSION};
use crate::{RecordedRequest, RequestTrace};

/// Writes a trace as JSON lines: a header, then one line for each request, in any order.
///
/// ```text
/// {"sconce_trace":1,"origin":"sconce serve"}
/// {"at_us":0,"model":"minilm","weight":37}
/// {"at_us":1250,"model":"minilm","items":2,"weight":60,"priority":"low","deadline_us":50000}
/// ```
#[derive(Debug)]
pub struct TraceWriter<W> {
    out: W,
    /// Kept between lines to reuse its memory.
    line: Vec<u8>,
}

impl<W: Write> TraceWriter<W> {
    /// Writes the header. `origin` says where the requests come from.
    ///
    /// # Errors
    /// Errors of `out`.
    pub fn new(mut out: W, origin: &str) -> io::Result<Self> {
        let mut line = serde_json::to_vec(&HeaderLine { sconce_trace: VERSION, origin: Cow::Borrowed(origin) })?;
        line.push(b'\n');
        out.write_all(&line)?;
        Ok(Self { out, line })
    }

    /// Writes one request, in one call to `out`, and returns the bytes that it took.
    ///
    /// # Errors
    /// Errors of `out`.
    pub fn write(&mut self, request: &RecordedRequest) -> io::Result<usize> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, &RequestLine::from(request))?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)?;
        Ok(self.line.len())
    }

    /// Flushes, and returns `out`.
    ///
    /// # Errors
    /// Errors of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    /// Hands everything that is buffered to the operating system.
    ///
    /// # Errors
    /// Errors of `out`.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl RequestTrace {
    /// Writes the whole trace, as [`TraceWriter`] does.
    ///
    /// # Errors
    /// Errors of `out`.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut writer = TraceWriter::new(out, self.origin())?;
        for request in self.requests() {
            writer.write(request)?;
        }
        writer.finish()?;
        Ok(())
    }
}
