//! Tables of safetensors: each tensor is a column, and its first dimension counts the examples.

use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sconce::models::{Array, ArrayData};

use super::{DataRow, DataTable, DataValue};
use crate::inputs::ReadError;

/// Reads all tensors that have as many examples as the one with the most dimensions.
pub(super) fn read(path: &Path) -> Result<DataTable, ReadError> {
    let bytes = fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|cause| ReadError::Table(cause.to_string()))?;
    let mut tensors = tensors.tensors();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let examples = tensors.iter().max_by_key(|(_, tensor)| tensor.shape().len());
    let examples = examples.and_then(|(_, tensor)| tensor.shape().first().copied()).unwrap_or(0);
    tensors.retain(|(_, tensor)| tensor.shape().first() == Some(&examples));
    let mut columns = Vec::new();
    for (name, tensor) in &tensors {
        columns.push(values(name, tensor, examples)?.into_iter());
    }
    let row = |line: u64| DataRow { line, values: columns.iter_mut().filter_map(Iterator::next).collect() };
    let rows = (1..=examples as u64).map(row).collect();
    Ok(DataTable { columns: tensors.into_iter().map(|(name, _)| name).collect(), rows })
}

/// One value for each example: a number of a tensor of one dimension, else an array.
fn values(name: &str, tensor: &TensorView<'_>, examples: usize) -> Result<Vec<DataValue>, ReadError> {
    let shape = &tensor.shape()[1..];
    let data = tensor.data();
    if shape.is_empty() {
        let numbers = numbers(tensor.dtype(), data);
        let numbers = numbers.ok_or_else(|| unsupported(name, tensor.dtype(), "whole numbers, F32 or F64"))?;
        return Ok(numbers.into_iter().map(|number| DataValue::Bytes(number.into_bytes())).collect());
    }
    let array = |data| DataValue::Array(Array { shape: shape.to_vec(), data });
    let chunk = (data.len() / examples.max(1)).max(1);
    let chunks = data.chunks_exact(chunk);
    match tensor.dtype() {
        Dtype::U8 => Ok(chunks.map(|chunk| array(ArrayData::U8(chunk.to_vec()))).collect()),
        Dtype::F32 => Ok(chunks.map(|chunk| array(ArrayData::F32(each(chunk, f32::from_le_bytes)))).collect()),
        other => Err(unsupported(name, other, "U8 or F32")),
    }
}

fn unsupported(name: &str, dtype: Dtype, allowed: &str) -> ReadError {
    ReadError::Table(format!("tensor '{name}' holds {dtype:?}; it must hold {allowed}"))
}

fn numbers(dtype: Dtype, data: &[u8]) -> Option<Vec<String>> {
    fn written<const N: usize, T: ToString>(data: &[u8], read: fn([u8; N]) -> T) -> Vec<String> {
        each(data, read).iter().map(T::to_string).collect()
    }
    Some(match dtype {
        Dtype::I64 => written(data, i64::from_le_bytes),
        Dtype::I32 => written(data, i32::from_le_bytes),
        Dtype::I16 => written(data, i16::from_le_bytes),
        Dtype::I8 => written(data, i8::from_le_bytes),
        Dtype::U64 => written(data, u64::from_le_bytes),
        Dtype::U32 => written(data, u32::from_le_bytes),
        Dtype::U16 => written(data, u16::from_le_bytes),
        Dtype::U8 | Dtype::BOOL => written(data, u8::from_le_bytes),
        Dtype::F32 => written(data, f32::from_le_bytes),
        Dtype::F64 => written(data, f64::from_le_bytes),
        _ => return None,
    })
}

/// Reads numbers of `N` bytes each.
fn each<const N: usize, T>(data: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|bytes| read(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_labels_of_a_data_set_are_columns() {
        let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
        let table = DataTable::read(&zoo.join("digits-cnn/test.safetensors"), None, None).unwrap();
        assert_eq!((table.columns.as_slice(), table.rows.len()), (&["images", "labels"].map(str::to_owned)[..], 450));
        let DataValue::Array(image) = &table.rows[449].values[0] else { panic!("an image") };
        assert_eq!(image.shape, [1, 8, 8]);
        let label: usize = table.rows[449].values[1].text().unwrap().parse().unwrap();
        assert!(label < 10 && table.rows[449].line == 450);
    }

    #[test]
    fn a_tensor_of_another_type_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.safetensors");
        let view = TensorView::new(Dtype::F64, vec![2, 2], &[0; 32]).unwrap();
        safetensors::serialize_to_file([("images", view)], None, &path).unwrap();
        let error = DataTable::read(&path, None, None).unwrap_err().to_string();
        assert!(error.ends_with("tensor 'images' holds F64; it must hold U8 or F32"), "{error}");
    }
}
