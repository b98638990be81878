//! Apache Parquet: a column of texts, of bytes, or of lists of numbers.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float32Type, Float64Type, UInt8Type};
use arrow_array::{Array, ArrayRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{CellKind, Closed, InputLocation, MAX_LINE_BYTES, Outlet, ReadError};

/// Rows that are decoded at a time.
const ROWS: usize = 1024;

pub(super) fn send(
    path: &Path,
    file: Option<&Arc<str>>,
    outlet: &Outlet,
    column: &str,
    cells: CellKind,
) -> Result<(), Closed> {
    let location = |row| InputLocation { file: file.cloned(), line: Some(row) };
    let ended = match open(path, column) {
        Ok((batches, spread)) => send_all(batches, &spread, outlet, (column, cells), location)?,
        Err(error) => Some(Ended { row: 1, error }),
    };
    ended.map_or(Ok(()), |Ended { row, error }| outlet.send(location(row), Err(error), 0))
}

/// Checks that a file is Parquet and has the column.
pub(super) fn check(path: &Path, column: &str) -> Result<(), ReadError> {
    open(path, column).map(drop)
}

/// The row at which a table cannot be read any further, and why.
struct Ended {
    row: u64,
    error: ReadError,
}

/// The file's bytes, spread evenly over its rows: in the file itself only pages of many rows have a place.
struct Spread {
    bytes: u64,
    rows: u64,
}

impl Spread {
    /// Bytes that belong to `row`, which counts from 1.
    fn bytes_of(&self, row: u64) -> u64 {
        let up_to = |row| u128::from(self.bytes) * u128::from(row) / u128::from(self.rows.max(1));
        u64::try_from(up_to(row) - up_to(row - 1)).unwrap_or(u64::MAX)
    }
}

fn open(path: &Path, column: &str) -> Result<(ParquetRecordBatchReader, Spread), ReadError> {
    let table = |cause: parquet::errors::ParquetError| ReadError::Table(cause.to_string());
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(table)?;
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let names: Vec<_> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut found = names.iter().zip(0..).filter(|(name, _)| *name == column).map(|(_, index)| index);
    let index = match (found.next(), found.next()) {
        (Some(first), Some(second)) => return Err(ReadError::column_twice(column, first, second)),
        (Some(index), None) => index,
        (None, _) => return Err(ReadError::NoField { column: column.to_owned(), known: names }),
    };
    let only = ProjectionMask::roots(builder.parquet_schema(), [index]);
    let batches = builder.with_projection(only).with_batch_size(ROWS).build().map_err(table)?;
    Ok((batches, Spread { bytes, rows }))
}

fn send_all(
    batches: ParquetRecordBatchReader,
    spread: &Spread,
    outlet: &Outlet,
    (column, kind): (&str, CellKind),
    location: impl Fn(u64) -> InputLocation,
) -> Result<Option<Ended>, Closed> {
    let mut row = 0;
    for batch in batches {
        let cells = match batch {
            Ok(batch) => batch.column(0).clone(),
            Err(cause) => return Ok(Some(Ended { row: row + 1, error: ReadError::Table(cause.to_string()) })),
        };
        for index in 0..cells.len() {
            row += 1;
            outlet.send(location(row), cell(&cells, index, column, kind), spread.bytes_of(row))?;
        }
    }
    Ok(None)
}

/// The input in a cell: a text as its bytes, bytes as they are, a list of numbers as JSON.
pub(super) fn cell(cells: &ArrayRef, index: usize, column: &str, kind: CellKind) -> Result<Vec<u8>, ReadError> {
    let wrong = |got: String| ReadError::WrongField { column: column.to_owned(), got, allowed: kind };
    if cells.is_null(index) {
        return Err(wrong("null".to_owned()));
    }
    if let Some(dictionary) = cells.as_any_dictionary_opt() {
        let index = dictionary.normalized_keys()[index];
        return cell(dictionary.values(), index, column, kind);
    }
    let numbers =
        || if matches!(kind, CellKind::Array(_)) { numbers_at(cells, index).map(String::into_bytes) } else { None };
    let bytes = bytes_at(cells, index).or_else(numbers).ok_or_else(|| wrong(cells.data_type().to_string()))?;
    if bytes.len() > MAX_LINE_BYTES {
        return Err(ReadError::TooLarge { unit: "field", max: MAX_LINE_BYTES });
    }
    Ok(bytes)
}

fn bytes_at(cells: &ArrayRef, index: usize) -> Option<Vec<u8>> {
    let text = cells.as_string_opt::<i32>().map(|texts| texts.value(index));
    let text = text.or_else(|| cells.as_string_opt::<i64>().map(|texts| texts.value(index)));
    let text = text.or_else(|| cells.as_string_view_opt().map(|texts| texts.value(index)));
    let bytes = text.map(str::as_bytes).or_else(|| cells.as_binary_opt::<i32>().map(|bytes| bytes.value(index)));
    let bytes = bytes.or_else(|| cells.as_binary_opt::<i64>().map(|bytes| bytes.value(index)));
    bytes.or_else(|| cells.as_binary_view_opt().map(|bytes| bytes.value(index))).map(<[u8]>::to_vec)
}

fn numbers_at(cells: &ArrayRef, index: usize) -> Option<String> {
    let list = cells.as_list_opt::<i32>().map(|lists| lists.value(index));
    let list = list.or_else(|| cells.as_list_opt::<i64>().map(|lists| lists.value(index)));
    let list = list.or_else(|| cells.as_fixed_size_list_opt().map(|lists| lists.value(index)))?;
    if list.null_count() > 0 {
        return None;
    }
    if let Some(bytes) = list.as_primitive_opt::<UInt8Type>() {
        return Some(json(bytes.values().iter()));
    }
    if let Some(floats) = list.as_primitive_opt::<Float32Type>() {
        return Some(json(floats.values().iter()));
    }
    list.as_primitive_opt::<Float64Type>().map(|doubles| json(doubles.values().iter()))
}

fn json(numbers: impl Iterator<Item = impl std::fmt::Display>) -> String {
    let mut json = String::from("[");
    for (index, number) in numbers.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing into a string cannot fail.
        let _ = write!(json, "{comma}{number}");
    }
    json + "]"
}

#[cfg(test)]
mod tests {
    use arrow_array::types::Int32Type;
    use arrow_array::{
        BinaryArray, DictionaryArray, Int64Array, LargeStringArray, ListArray, StringArray, StringViewArray,
    };

    use super::*;

    #[test]
    fn texts_bytes_and_lists_of_numbers_are_inputs_in_each_of_their_forms() {
        let list = ListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(0.5), Some(16.0)])]);
        let columns: [(ArrayRef, &[u8]); 6] = [
            (Arc::new(StringArray::from(vec!["text"])), b"text"),
            (Arc::new(LargeStringArray::from(vec!["text"])), b"text"),
            (Arc::new(StringViewArray::from(vec!["text"])), b"text"),
            (Arc::new(["text"].into_iter().collect::<DictionaryArray<Int32Type>>()), b"text"),
            (Arc::new(BinaryArray::from(vec![&b"\xff"[..]])), b"\xff"),
            (Arc::new(list), b"[0.5,16]"),
        ];
        for (column, expected) in columns {
            assert_eq!(
                cell(&column, 0, "text", CellKind::Array("an array of numbers")).unwrap(),
                expected,
                "{}",
                column.data_type()
            );
        }
    }

    #[test]
    fn nulls_and_other_types_are_refused_by_name() {
        let null: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
        let number: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        let message = |column| cell(column, 0, "text", CellKind::Text).unwrap_err().to_string();
        assert!(message(&null).starts_with("field 'text' holds null;"), "{}", message(&null));
        assert!(message(&number).starts_with("field 'text' holds Int64;"), "{}", message(&number));
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(0.5)])]));
        assert!(message(&list).ends_with("; it must be a string"), "{}", message(&list));
    }

    #[test]
    fn the_bytes_of_a_file_are_spread_over_all_its_rows() {
        let spread = Spread { bytes: 1000, rows: 7 };
        assert_eq!((1..=7).map(|row| spread.bytes_of(row)).sum::<u64>(), 1000);
    }
}
