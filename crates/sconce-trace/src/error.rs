//! Errors of traces, by what their reader can do about them.

use std::{fmt, io};

/// A trace that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The source fails.
    #[error("cannot read the trace: {0}")]
    Read(#[from] io::Error),
    /// Nothing is in the file.
    #[error("the trace is empty; give a file with a header line and a line for each request")]
    Empty,
    /// The file has a header, and no request.
    #[error("the trace has no request; give one with at least one line after its header")]
    NoRequest,
    /// A line, or a row of a table, that is too long.
    #[error("line {line} of the trace is longer than max_line_bytes, {max}; is it a trace?")]
    LineTooLong {
        /// The line, from 1.
        line: u64,
        /// The limit.
        max: usize,
    },
    /// More requests than are read.
    #[error(
        "the trace has more than max_requests, {max}; give a part of it, for instance its first lines (head -n {max})"
    )]
    TooManyRequests {
        /// The limit.
        max: usize,
    },
    /// More bytes than are read.
    #[error("the trace has more than max_bytes, {max}; give a part of it, or one without contents")]
    TooManyBytes {
        /// The limit.
        max: u64,
    },
    /// The first line belongs to no format.
    #[error(
        "the trace begins with '{header}', which no known format does: Sconce's own {{\"sconce_trace\": 1, …}}, Azure's \
         TIMESTAMP,ContextTokens,GeneratedTokens, BurstGPT's Timestamp,Model,Request tokens,…, or Mooncake's \
         {{\"timestamp\": …, \"input_length\": …}}"
    )]
    UnknownFormat {
        /// The beginning of the first line.
        header: String,
    },
    /// A later version of Sconce's own format.
    #[error("field 'sconce_trace' of line 1 is {version}, a version that this program does not read; it reads 1")]
    UnknownVersion {
        /// The version.
        version: u64,
    },
    /// A line that is not a JSON object of the expected form.
    #[error("line {line} of the trace is no request: {message}")]
    NotARequest {
        /// The line, from 1.
        line: u64,
        /// The reason.
        message: String,
    },
    /// A row that is not a row of the table.
    #[error("line {line} of the trace is no row of a table: {message}; mend or remove it")]
    NotARow {
        /// The line, from 1.
        line: u64,
        /// The reason.
        message: String,
    },
    /// A field with a bad value.
    #[error("line {line} of the trace: field '{field}' is {value}; it must be {allowed}")]
    Field {
        /// The line, from 1.
        line: u64,
        /// The name of the field.
        field: &'static str,
        /// The value.
        value: String,
        /// The values that are allowed.
        allowed: &'static str,
    },
}

/// A setting of a change, or of a trace that is made up, with a bad value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but must be {allowed}")]
pub struct TraceSettingError {
    /// The name of the setting.
    pub field: &'static str,
    /// The value.
    pub value: String,
    /// The values that are allowed.
    pub allowed: String,
}

impl TraceSettingError {
    pub(crate) fn new(field: &'static str, value: &dyn fmt::Display, allowed: impl Into<String>) -> Self {
        Self { field, value: value.to_string(), allowed: allowed.into() }
    }
}
