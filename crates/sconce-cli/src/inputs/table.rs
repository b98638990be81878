//! Tables with one column of inputs.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use super::{Closed, Outlet, csv, is_stdin, json_lines, lines, parquet};
use crate::error::Error;

/// The format of tables, and their column of inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// Format of every file; `None`: by the file's name.
    pub(crate) format: Option<Format>,
    /// Name of the field or column that holds the inputs.
    pub(crate) column: String,
}

/// Format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// One text per line
    Text,
    /// One JSON string, object or array per line
    Jsonl,
    /// Comma-separated values with a header
    Csv,
    /// Tab-separated values with a header
    Tsv,
    /// Apache Parquet
    Parquet,
}

impl Table {
    /// The wanted format, else the format by the file's name, or JSON lines for standard input.
    pub(crate) fn format_of(&self, path: &Path) -> Result<Format, Error> {
        let by_name = || if is_stdin(path) { Some(Format::Jsonl) } else { by_name(path) };
        let format = self.format.or_else(by_name).ok_or_else(|| Error::Format { path: path.to_owned() })?;
        if format == Format::Parquet && is_stdin(path) {
            return Err(Error::ParquetFromPipe);
        }
        Ok(format)
    }

    pub(super) fn send(&self, path: &Path, file: Option<&Arc<str>>, outlet: &Outlet) -> Result<(), Closed> {
        let column = &self.column;
        match self.format_of(path).expect("formats were checked before the first file was read") {
            Format::Text => lines::send(path, file, outlet),
            Format::Jsonl => json_lines::send(path, file, outlet, column),
            Format::Csv => csv::send(path, file, outlet, column, b','),
            Format::Tsv => csv::send(path, file, outlet, column, b'\t'),
            Format::Parquet => parquet::send(path, file, outlet, column),
        }
    }
}

fn by_name(path: &Path) -> Option<Format> {
    let extension = path.extension().and_then(OsStr::to_str)?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "txt" | "text" => Format::Text,
        "jsonl" | "ndjson" | "jsonlines" => Format::Jsonl,
        "csv" => Format::Csv,
        "tsv" | "tab" => Format::Tsv,
        "parquet" | "pq" => Format::Parquet,
        _ => return None,
    })
}
