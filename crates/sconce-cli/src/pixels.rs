//! An image as a JSON array of numbers, flat or nested.

use sconce::{Array, ArrayData};
use serde_json::Value;

/// An error in a line that should be an array of numbers.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PixelsError {
    #[error("not JSON: {0}; give an image as an array of numbers, for instance [[0, 16], [7.5, 3]]")]
    NotJson(String),
    #[error("the image holds {got} at element {index}; only numbers are allowed")]
    NotANumber { index: usize, got: String },
    #[error("the image is ragged at element {index}: all rows need one length")]
    Ragged { index: usize },
}

/// Reads pixels in the shape of their nesting. A flat list of the right length, or a shape that differs from the
/// model's `shape` only by dimensions of 1, becomes the model's shape. Any other shape is kept, and the model refuses
/// it.
pub(crate) fn parse(json: &[u8], shape: &[usize]) -> Result<Array, PixelsError> {
    let value: Value = serde_json::from_slice(json).map_err(|cause| PixelsError::NotJson(cause.to_string()))?;
    let mut nested = Nested { shape: nesting(&value), pixels: Vec::new() };
    nested.collect(&value, 0)?;
    let Nested { shape: given, pixels } = nested;
    let without_ones = |shape: &[usize]| shape.iter().copied().filter(|&size| size != 1).collect::<Vec<_>>();
    let flat = given.len() == 1 && given[0] == shape.iter().product::<usize>();
    let shape = if flat || without_ones(&given) == without_ones(shape) { shape.to_vec() } else { given };
    Ok(Array { shape, data: ArrayData::F32(pixels) })
}

/// The shape of a nested array, by the first element of each level.
fn nesting(value: &Value) -> Vec<usize> {
    let mut shape = Vec::new();
    let mut level = value;
    while let Value::Array(items) = level {
        shape.push(items.len());
        let Some(first) = items.first() else { break };
        level = first;
    }
    shape
}

struct Nested {
    shape: Vec<usize>,
    pixels: Vec<f32>,
}

impl Nested {
    fn collect(&mut self, value: &Value, depth: usize) -> Result<(), PixelsError> {
        let index = self.pixels.len();
        match (value, self.shape.get(depth)) {
            (Value::Array(items), Some(&length)) if items.len() == length => {
                items.iter().try_for_each(|item| self.collect(item, depth + 1))
            }
            (Value::Array(_), _) | (Value::Number(_), Some(_)) => Err(PixelsError::Ragged { index }),
            (Value::Number(number), None) => {
                #[expect(clippy::cast_possible_truncation, reason = "models read 32 bits")]
                let pixel = number.as_f64().unwrap_or(f64::NAN) as f32;
                self.pixels.push(pixel);
                Ok(())
            }
            (other, _) => Err(PixelsError::NotANumber { index, got: other.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_and_nested_images_are_the_same() {
        for json in ["[1, 2, 3, 4]", "[[1, 2], [3, 4]]", "[[[1, 2], [3.0, 4e0]]]"] {
            let array = parse(json.as_bytes(), &[1, 2, 2]).unwrap();
            assert_eq!(array.shape, [1, 2, 2], "{json}");
            assert_eq!(array.data, ArrayData::F32(vec![1.0, 2.0, 3.0, 4.0]), "{json}");
        }
    }

    #[test]
    fn another_shape_is_kept_for_the_model_to_refuse() {
        for (json, shape) in [("[1, 2, 3]", vec![3]), ("[[1, 2, 3, 4]]", vec![1, 4]), ("[]", vec![0]), ("7", vec![])] {
            assert_eq!(parse(json.as_bytes(), &[1, 2, 2]).unwrap().shape, shape, "{json}");
        }
    }

    #[test]
    fn what_is_not_an_array_of_numbers_is_refused_where_it_starts() {
        let table = [
            ("[[1, 2], [3]]", PixelsError::Ragged { index: 2 }),
            ("[1, [2]]", PixelsError::Ragged { index: 1 }),
            ("[[1], 2]", PixelsError::Ragged { index: 1 }),
            ("[1, null]", PixelsError::NotANumber { index: 1, got: "null".to_owned() }),
            ("\"seven\"", PixelsError::NotANumber { index: 0, got: "\"seven\"".to_owned() }),
        ];
        for (json, expected) in table {
            assert_eq!(parse(json.as_bytes(), &[1, 2, 2]), Err(expected), "{json}");
        }
        assert!(matches!(parse(b"[1, 2", &[2]), Err(PixelsError::NotJson(_))));
    }
}
