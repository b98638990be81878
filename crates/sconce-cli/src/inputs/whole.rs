//! Whole tables in memory, with all their columns: CSV, TSV, JSON lines, Parquet, and safetensors whose tensors have one
//! element for each example.

mod json;
mod parquet;
mod tensors;

use std::fs;
use std::path::Path;

use sconce::models::{Array, excerpt};

use super::{Format, ReadError, csv, table};

/// Bytes at most of a file that is read as a whole.
const MAX_TABLE_BYTES: u64 = 1 << 30;

/// A table as it was read.
#[derive(Debug)]
pub(crate) struct DataTable {
    /// Names of the columns.
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<DataRow>,
}

/// A row with one value for each column.
#[derive(Debug)]
pub(crate) struct DataRow {
    /// The line of the file, or the number of the row or example, from 1.
    pub(crate) line: u64,
    pub(crate) values: Vec<DataValue>,
}

/// The value of a column in a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DataValue {
    /// A text, a number as it is written, bytes, or an array as JSON.
    Bytes(Vec<u8>),
    /// An array of a tensor.
    Array(Array),
    /// Nothing.
    Absent,
}

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error(
        "{path} has {bytes} bytes; a table that is read as a whole has at most {MAX_TABLE_BYTES}; give a sample of it"
    )]
    TooLarge { path: String, bytes: u64 },
    #[error(
        "cannot tell by its name what {path} holds; give a .csv, .tsv, .jsonl, .parquet or .safetensors file, or --format"
    )]
    UnknownFormat { path: String },
    #[error("{path}{}: {source}", line.map_or_else(String::new, |line| format!(":{line}")))]
    Row { path: String, line: Option<u64>, source: ReadError },
    #[error("{path} has {got} columns in its first row, and --header names {}: {}", named.len(), named.join(", "))]
    OtherHeader { path: String, got: usize, named: Vec<String> },
    #[error("{path} has no row")]
    Empty { path: String },
}

impl DataTable {
    /// Reads a file. `header` names the columns of a CSV or TSV file that does not name them itself.
    pub(crate) fn read(path: &Path, format: Option<Format>, header: Option<&[String]>) -> Result<Self, TableError> {
        let named = path.display().to_string();
        let at = |line: Option<u64>, source| TableError::Row { path: named.clone(), line, source };
        let metadata = fs::metadata(path).map_err(|source| at(None, source.into()))?;
        if metadata.len() > MAX_TABLE_BYTES {
            return Err(TableError::TooLarge { path: named, bytes: metadata.len() });
        }
        let lined = |(line, source)| at(Some(line), source);
        let unlined = |source| at(None, source);
        let is_tensors = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"));
        let table = match format.or_else(|| table::by_name(path)) {
            None if is_tensors => tensors::read(path).map_err(unlined)?,
            Some(Format::Csv) => separated(path, b',', header).map_err(lined)?,
            Some(Format::Tsv) => separated(path, b'\t', header).map_err(lined)?,
            Some(Format::Jsonl) => json::read(path).map_err(lined)?,
            Some(Format::Parquet) => parquet::read(path).map_err(unlined)?,
            Some(Format::Text) | None => return Err(TableError::UnknownFormat { path: named }),
        };
        match (header, table.rows.first()) {
            (_, None) => Err(TableError::Empty { path: named }),
            (Some(header), Some(row)) if row.values.len() != header.len() => {
                Err(TableError::OtherHeader { path: named, got: row.values.len(), named: header.to_vec() })
            }
            _ => Ok(table),
        }
    }
}

impl DataValue {
    /// The value as text for comparing and for messages; `None` for an array and for nothing.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            Self::Array(_) | Self::Absent => None,
        }
    }

    /// The value in words, for messages.
    pub(crate) fn described(&self) -> String {
        match (self, self.text()) {
            (_, Some(text)) => format!("'{}'", excerpt(text)),
            (Self::Bytes(bytes), None) => format!("{} bytes", bytes.len()),
            (Self::Array(array), None) => format!("an array of shape {:?}", array.shape),
            (Self::Absent, None) => "nothing".to_owned(),
        }
    }
}

/// Reads comma- or tab-separated values, whose first row names the columns unless `header` does.
fn separated(path: &Path, delimiter: u8, header: Option<&[String]>) -> Result<DataTable, (u64, ReadError)> {
    let mut table = DataTable { columns: header.unwrap_or_default().to_vec(), rows: Vec::new() };
    let mut named = header.is_some();
    csv::for_each_row(path, delimiter, |line, row| {
        if named {
            let values = row.iter().map(|field| DataValue::Bytes(field.to_vec())).collect();
            table.rows.push(DataRow { line, values });
        } else {
            table.columns = row.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
            named = true;
        }
    })?;
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &[u8], header: Option<&[String]>) -> Result<DataTable, TableError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        fs::write(&path, content).expect("the disk has room");
        DataTable::read(&path, None, header)
    }

    fn texts(table: &DataTable) -> Vec<(u64, Vec<&str>)> {
        assert!(table.rows.iter().all(|row| row.values.len() == table.columns.len()));
        table.rows.iter().map(|row| (row.line, row.values.iter().filter_map(DataValue::text).collect())).collect()
    }

    #[test]
    fn the_same_table_is_read_from_each_format_of_text() {
        let expected = vec![(2, vec!["so, so", "1"]), (3, vec!["good", "0"])];
        let csv = read("t.csv", b"text,label\n\"so, so\",1\ngood,0\n", None).unwrap();
        let tsv = read("t.tsv", b"text\tlabel\nso, so\t1\ngood\t0\n", None).unwrap();
        for table in [&csv, &tsv] {
            assert_eq!(table.columns, ["text", "label"]);
            assert_eq!(texts(table), expected);
        }
        let json = b"{\"text\": \"so, so\", \"label\": 1}\n{\"label\": 0, \"text\": \"good\"}\n";
        let json = read("t.jsonl", json, None).unwrap();
        // Fields of JSON are in the order of their names.
        let at = |name: &str| json.columns.iter().position(|column| column == name).unwrap();
        let row = |row: usize| ["text", "label"].map(|name| json.rows[row].values[at(name)].text().unwrap());
        assert_eq!([row(0), row(1)], [["so, so", "1"], ["good", "0"]]);
        assert_eq!([json.rows[0].line, json.rows[1].line], [1, 2]);
    }

    #[test]
    fn a_file_without_a_header_gets_its_names_from_the_command_line() {
        let header = ["label", "text"].map(str::to_owned);
        let table = read("t.tsv", b"1\ta \"quote\n0\tb\n", Some(&header)).unwrap();
        assert_eq!(texts(&table), [(1, vec!["1", "a \"quote"]), (2, vec!["0", "b"])]);
        let error = read("t.tsv", b"1\ta\tb\n", Some(&header)).unwrap_err().to_string();
        assert!(error.ends_with("has 3 columns in its first row, and --header names 2: label, text"), "{error}");
    }

    #[test]
    fn an_array_of_json_is_kept_and_null_is_nothing() {
        let table = read("t.jsonl", b"{\"image\": [[1, 2]], \"label\": null}\n{\"image\": [3]}\n", None).unwrap();
        assert_eq!(table.rows[0].values, [DataValue::Bytes(b"[[1,2]]".to_vec()), DataValue::Absent]);
        assert_eq!(table.rows[1].values[1], DataValue::Absent);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named_by_file_and_line() {
        let table: [(&str, &[u8], &str); 6] = [
            ("t.csv", b"a,b\n1,2\n3\n", "t.csv:3: the table is not valid: "),
            ("t.csv", b"a,b\n1,\"2\n3\n", "t.csv:2: a quote that begins here is never closed"),
            ("t.jsonl", b"{\"a\": 1}\n\n[1]\n", "t.jsonl:3: the line is an array"),
            ("t.jsonl", b"{\"a\": 1}\n{\n", "t.jsonl:2: not JSON: "),
            ("t.csv", b"a,b\n", "t.csv has no row"),
            ("t.npz", b"", "cannot tell by its name what "),
        ];
        for (name, content, expected) in table {
            let error = read(name, content, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_before_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large.csv");
        fs::File::create(&path).unwrap().set_len(MAX_TABLE_BYTES + 1).unwrap();
        let error = DataTable::read(&path, None, None).unwrap_err().to_string();
        assert!(error.contains("has 1073741825 bytes") && error.ends_with("give a sample of it"), "{error}");
    }
}
