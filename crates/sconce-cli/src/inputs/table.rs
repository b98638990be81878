//! Tables with one column of inputs.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sconce::InputKind;
use sconce::models::Written;

use super::{Closed, InputLocation, Outlet, csv, is_stdin, json_lines, lines, parquet, regular_size};
use crate::error::Error;

/// The column of inputs of tables, and the tables' format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumn {
    /// Format of every file; `None`: by the file's name.
    pub(crate) format: Option<Format>,
    /// Name of the field or column that holds the inputs.
    pub(crate) column: String,
    /// Kind of the inputs.
    pub(crate) cells: CellKind,
}

/// The kind of input in a cell of a table, or in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CellKind {
    /// A text, or bytes.
    Text,
    /// A JSON array, described in words, or a text that holds one.
    Array(&'static str),
}

impl CellKind {
    /// The kind that a model reads.
    pub(crate) fn of(input: &InputKind) -> Self {
        match input.written() {
            Written::Json { what } => Self::Array(what),
            Written::Line | Written::File => Self::Text,
        }
    }
}

impl fmt::Display for CellKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a string",
            Self::Array(what) => what,
        })
    }
}

/// Format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// One text per line
    Text,
    /// One JSON string or object per line; an array for a model of images or of pairs of texts
    Jsonl,
    /// Comma-separated values with a header
    Csv,
    /// Tab-separated values with a header
    Tsv,
    /// Apache Parquet
    Parquet,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "lines of text",
            Self::Jsonl => "JSON lines",
            Self::Csv => "CSV",
            Self::Tsv => "TSV",
            Self::Parquet => "Parquet",
        })
    }
}

impl TableColumn {
    /// The wanted format, else the format by the file's name, or JSON lines for standard input.
    pub(crate) fn format_of(&self, path: &Path) -> Result<Format, Error> {
        let by_name = || if is_stdin(path) { Some(Format::Jsonl) } else { by_name(path) };
        let format = self.format.or_else(by_name).ok_or_else(|| Error::Format { path: path.to_owned() })?;
        if format == Format::Parquet && is_stdin(path) {
            return Err(Error::ParquetFromPipe);
        }
        Ok(format)
    }

    /// Checks that the beginning of a file is as its format says. Standard input and pipes are not checked, because that
    /// would consume their data.
    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        let format = self.format_of(path)?;
        if regular_size(path).is_none() {
            return Ok(());
        }
        let lined = |(line, error)| (Some(line), error);
        let checked = match format {
            Format::Text | Format::Jsonl => Ok(()),
            Format::Csv => csv::check(path, &self.column, b',').map_err(lined),
            Format::Tsv => csv::check(path, &self.column, b'\t').map_err(lined),
            Format::Parquet => parquet::check(path, &self.column).map_err(|error| (None, error)),
        };
        let location = |line| InputLocation { file: Some(path.to_string_lossy().into()), line };
        checked.map_err(|(line, source)| Error::Table { location: location(line), format, source })
    }

    pub(super) fn send(&self, path: &Path, file: Option<&Arc<str>>, outlet: &Outlet) -> Result<(), Closed> {
        let Self { column, cells, .. } = self;
        match self.format_of(path).expect("formats were checked before the first file was read") {
            Format::Text => lines::send(path, file, outlet),
            Format::Jsonl => json_lines::send(path, file, outlet, column, *cells),
            Format::Csv => csv::send(path, file, outlet, column, b','),
            Format::Tsv => csv::send(path, file, outlet, column, b'\t'),
            Format::Parquet => parquet::send(path, file, outlet, column, *cells),
        }
    }
}

pub(super) fn by_name(path: &Path) -> Option<Format> {
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
