//! Reads the elements of one input tensor, raw or typed, and checks their number.

use bytes::{Buf, Bytes};
use sconce::{Datatype, Elements};

use crate::error::RequestError;
use crate::proto::InferTensorContents;

/// Undecoded elements of a tensor, from the field of the request that holds them.
#[derive(Debug)]
pub(crate) enum Contents {
    Raw(Bytes),
    Typed(InferTensorContents),
}

/// The field of [`InferTensorContents`] that holds elements of a type.
fn field(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bytes => "bytes_contents",
        Datatype::Uint8 => "uint_contents",
        Datatype::Int8 | Datatype::Int32 => "int_contents",
        Datatype::Fp16 => "raw_input_contents",
        Datatype::Fp32 => "fp32_contents",
    }
}

/// Reads `expected` elements of the input `name`.
pub(crate) fn read(
    name: &'static str,
    datatype: Datatype,
    contents: Contents,
    expected: usize,
) -> Result<Elements, RequestError> {
    match contents {
        Contents::Raw(raw) => match datatype {
            Datatype::Bytes => raw_bytes(name, raw, expected).map(Elements::Bytes),
            Datatype::Uint8 => raw_u8(name, &raw, expected).map(Elements::U8),
            Datatype::Fp32 => raw_f32(name, &raw, expected).map(Elements::F32),
            Datatype::Int8 | Datatype::Int32 | Datatype::Fp16 => unreachable!("of outputs alone"),
        },
        Contents::Typed(typed) => typed_elements(name, datatype, typed, expected),
    }
}

fn raw_bytes(name: &'static str, mut raw: Bytes, expected: usize) -> Result<Vec<Vec<u8>>, RequestError> {
    // `expected` is bounded by the model's queue, so a small message cannot reserve much.
    let mut elements = Vec::with_capacity(expected);
    for index in 0..expected {
        let cut_short = |_| RequestError::CutShort { name, index, expected };
        let length = raw.try_get_u32_le().map_err(cut_short)? as usize;
        if raw.len() < length {
            return Err(RequestError::CutShort { name, index, expected });
        }
        elements.push(raw.split_to(length).to_vec());
    }
    match raw.len() {
        0 => Ok(elements),
        extra => Err(RequestError::TrailingBytes { name, extra }),
    }
}

fn raw_u8(name: &'static str, raw: &[u8], expected: usize) -> Result<Vec<u8>, RequestError> {
    check_raw_size(name, raw, Some(expected))?;
    Ok(raw.to_vec())
}

fn raw_f32(name: &'static str, raw: &[u8], expected: usize) -> Result<Vec<f32>, RequestError> {
    check_raw_size(name, raw, expected.checked_mul(size_of::<f32>()))?;
    let (values, _) = raw.as_chunks();
    Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Checks the number of raw bytes. `None` stands for an expected size that does not fit `usize`.
fn check_raw_size(name: &'static str, raw: &[u8], expected: Option<usize>) -> Result<(), RequestError> {
    match expected.unwrap_or(usize::MAX) {
        expected if raw.len() == expected => Ok(()),
        expected => Err(RequestError::WrongRawSize { name, got: raw.len(), expected }),
    }
}

fn typed_elements(
    name: &'static str,
    datatype: Datatype,
    typed: InferTensorContents,
    expected: usize,
) -> Result<Elements, RequestError> {
    if let Some(got) = fields(&typed).find(|got| *got != field(datatype)) {
        return Err(RequestError::WrongContents {
            name,
            field: got,
            datatype: datatype.name(),
            expected: field(datatype),
        });
    }
    let got = typed.bytes_contents.len() + typed.uint_contents.len() + typed.fp32_contents.len();
    if got != expected {
        return Err(RequestError::WrongElementCount { name, got, expected });
    }
    match datatype {
        Datatype::Bytes => Ok(Elements::Bytes(typed.bytes_contents)),
        Datatype::Fp32 => Ok(Elements::F32(typed.fp32_contents)),
        Datatype::Int8 | Datatype::Int32 | Datatype::Fp16 => unreachable!("of outputs alone"),
        Datatype::Uint8 => {
            let byte = |(index, value)| u8::try_from(value).map_err(|_| RequestError::NotAByte { name, index, value });
            typed.uint_contents.into_iter().enumerate().map(byte).collect::<Result<_, _>>().map(Elements::U8)
        }
    }
}

/// Names of the fields that are not empty.
fn fields(typed: &InferTensorContents) -> impl Iterator<Item = &'static str> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = typed;
    [
        ("bool_contents", bool_contents.is_empty()),
        ("int_contents", int_contents.is_empty()),
        ("int64_contents", int64_contents.is_empty()),
        ("uint_contents", uint_contents.is_empty()),
        ("uint64_contents", uint64_contents.is_empty()),
        ("fp32_contents", fp32_contents.is_empty()),
        ("fp64_contents", fp64_contents.is_empty()),
        ("bytes_contents", bytes_contents.is_empty()),
    ]
    .into_iter()
    .filter_map(|(field, empty)| (!empty).then_some(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(datatype: Datatype, bytes: &[u8], expected: usize) -> Result<Elements, String> {
        let contents = Contents::Raw(Bytes::copy_from_slice(bytes));
        read("x", datatype, contents, expected).map_err(|error| error.to_string())
    }

    fn typed(datatype: Datatype, contents: InferTensorContents, expected: usize) -> Result<Elements, String> {
        read("x", datatype, Contents::Typed(contents), expected).map_err(|error| error.to_string())
    }

    #[test]
    fn raw_elements_are_little_endian_and_bytes_stand_behind_their_length() {
        let bytes = b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c";
        let elements = [b"ab".to_vec(), Vec::new(), b"c".to_vec()];
        assert_eq!(raw(Datatype::Bytes, bytes, 3), Ok(Elements::Bytes(elements.to_vec())));
        assert_eq!(raw(Datatype::Uint8, &[0, 255], 2), Ok(Elements::U8(vec![0, 255])));
        assert_eq!(raw(Datatype::Fp32, &[0, 0, 0xc0, 0x3f], 1), Ok(Elements::F32(vec![1.5])));
    }

    #[test]
    fn raw_bytes_that_do_not_fit_their_number_are_refused() {
        let cut_short = |index, expected| {
            format!(
                "input 'x' ends within element {index}: its raw bytes must be {expected} times a 4-byte \
                 little-endian length and that many bytes"
            )
        };
        let table: &[(&[u8], usize, String)] = &[
            (b"", 1, cut_short(0, 1)),
            (b"\x01\0\0", 1, cut_short(0, 1)),
            (b"\x01\0\0\0a\x05\0\0\0abcd", 2, cut_short(1, 2)),
            (b"\xff\xff\xff\xffa", 1, cut_short(0, 1)),
            (b"\x01\0\0\0ab", 1, "input 'x' has 1 raw bytes behind its last element".to_owned()),
        ];
        for (bytes, expected, message) in table {
            assert_eq!(raw(Datatype::Bytes, bytes, *expected).unwrap_err(), *message);
        }
    }

    #[test]
    fn raw_numbers_that_do_not_fit_their_number_are_refused() {
        let message = |got, expected: usize| {
            Err(format!("input 'x' has {got} raw bytes, but its shape and datatype need {expected}"))
        };
        assert_eq!(raw(Datatype::Uint8, &[1, 2, 3], 2), message(3, 2));
        assert_eq!(raw(Datatype::Fp32, &[0; 7], 2), message(7, 8));
        assert_eq!(raw(Datatype::Fp32, &[0; 8], usize::MAX / 2), message(8, usize::MAX));
    }

    #[test]
    fn typed_elements_come_from_the_field_of_their_datatype() {
        let bytes = InferTensorContents { bytes_contents: vec![b"ab".to_vec()], ..Default::default() };
        assert_eq!(typed(Datatype::Bytes, bytes, 1), Ok(Elements::Bytes(vec![b"ab".to_vec()])));
        let uint = InferTensorContents { uint_contents: vec![0, 255], ..Default::default() };
        assert_eq!(typed(Datatype::Uint8, uint, 2), Ok(Elements::U8(vec![0, 255])));
        let fp32 = InferTensorContents { fp32_contents: vec![1.5], ..Default::default() };
        assert_eq!(typed(Datatype::Fp32, fp32, 1), Ok(Elements::F32(vec![1.5])));
    }

    #[test]
    fn typed_elements_of_another_field_number_or_range_are_refused() {
        let fp64 = || InferTensorContents { fp64_contents: vec![1.0], ..Default::default() };
        let both = InferTensorContents { fp32_contents: vec![1.0], ..fp64() };
        let refused = "input 'x' has fp64_contents, but datatype FP32 uses fp32_contents";
        assert_eq!(typed(Datatype::Fp32, fp64(), 1).unwrap_err(), refused);
        assert_eq!(typed(Datatype::Fp32, both, 1).unwrap_err(), refused);
        let none = typed(Datatype::Bytes, InferTensorContents::default(), 3).unwrap_err();
        assert_eq!(none, "input 'x' has 0 elements, but its shape needs 3");
        let large = InferTensorContents { uint_contents: vec![7, 256], ..Default::default() };
        let large = typed(Datatype::Uint8, large, 2).unwrap_err();
        assert_eq!(large, "input 'x' has the value 256 at element 1, but UINT8 ends at 255");
    }
}
