//! Tables of Apache Parquet.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array as _, ArrayRef, ArrowPrimitiveType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{DataRow, DataTable, DataValue};
use crate::inputs::{CellKind, ReadError, parquet as column};

pub(super) fn read(path: &Path) -> Result<DataTable, ReadError> {
    let invalid = |cause: &dyn std::fmt::Display| ReadError::Table(cause.to_string());
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?).map_err(|cause| invalid(&cause))?;
    let columns: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut rows = Vec::new();
    for batch in builder.build().map_err(|cause| invalid(&cause))? {
        let batch = batch.map_err(|cause| invalid(&cause))?;
        for at in 0..batch.num_rows() {
            let values = columns.iter().zip(batch.columns()).map(|(name, cells)| value(cells, at, name));
            rows.push(DataRow { line: rows.len() as u64 + 1, values: values.collect::<Result<_, _>>()? });
        }
    }
    Ok(DataTable { columns, rows })
}

fn value(cells: &ArrayRef, at: usize, name: &str) -> Result<DataValue, ReadError> {
    if cells.is_null(at) {
        return Ok(DataValue::Absent);
    }
    if let Some(number) = number(cells, at) {
        return Ok(DataValue::Bytes(number.into_bytes()));
    }
    let kind = CellKind::Array("a text, bytes, a number, or a list of numbers");
    column::cell(cells, at, name, kind).map(DataValue::Bytes)
}

/// A number or a truth value as it is written.
fn number(cells: &ArrayRef, at: usize) -> Option<String> {
    fn of<T: ArrowPrimitiveType<Native: ToString>>(cells: &ArrayRef, at: usize) -> Option<String> {
        Some(cells.as_primitive_opt::<T>()?.value(at).to_string())
    }
    let readers = [
        of::<Int64Type>,
        of::<Int32Type>,
        of::<Int16Type>,
        of::<Int8Type>,
        of::<UInt64Type>,
        of::<UInt32Type>,
        of::<UInt16Type>,
        of::<UInt8Type>,
        of::<Float64Type>,
        of::<Float32Type>,
    ];
    let truth = || cells.as_boolean_opt().map(|truths| truths.value(at).to_string());
    readers.into_iter().find_map(|reader| reader(cells, at)).or_else(truth)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{BooleanArray, Float32Array, Int8Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn texts_numbers_and_truth_are_values_and_null_is_nothing() {
        let columns: [(&str, ArrayRef); 4] = [
            ("text", Arc::new(StringArray::from(vec![Some("good"), None]))),
            ("score", Arc::new(Float32Array::from(vec![4.5, 2.0]))),
            ("label", Arc::new(Int8Array::from(vec![1, -1]))),
            ("right", Arc::new(BooleanArray::from(vec![true, false]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.parquet");
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let table = DataTable::read(&path, None, None).unwrap();
        assert_eq!(table.columns, ["text", "score", "label", "right"]);
        let texts = |row: usize| table.rows[row].values.iter().map(DataValue::text).collect::<Vec<_>>();
        assert_eq!(texts(0), [Some("good"), Some("4.5"), Some("1"), Some("true")]);
        assert_eq!(texts(1), [None, Some("2"), Some("-1"), Some("false")]);
    }
}
