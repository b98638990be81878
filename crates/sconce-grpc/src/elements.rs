//! Reads the elements of one input tensor, raw or typed, and checks their number.

use bytes::Bytes;
use sconce::{Datatype, Elements};
use sconce_server::{NumberType, RequestError, SentDatatype, SentNumber, TensorLayout};

use crate::proto::InferTensorContents;

/// Undecoded elements of a tensor, from the field of the request that holds them.
#[derive(Debug)]
pub(crate) enum Contents {
    Raw(Bytes),
    Typed(InferTensorContents),
}

impl Default for Contents {
    fn default() -> Self {
        Self::Raw(Bytes::new())
    }
}

/// The field of [`InferTensorContents`] that holds elements of a type.
fn field(sent: SentDatatype) -> &'static str {
    let SentDatatype::Number(number) = sent else { return "bytes_contents" };
    match number {
        NumberType::Bool => "bool_contents",
        NumberType::Int8 | NumberType::Int16 | NumberType::Int32 => "int_contents",
        NumberType::Int64 => "int64_contents",
        NumberType::Uint8 | NumberType::Uint16 | NumberType::Uint32 => "uint_contents",
        NumberType::Uint64 => "uint64_contents",
        NumberType::Fp32 => "fp32_contents",
        NumberType::Fp64 => "fp64_contents",
    }
}

/// Reads the elements of an input.
pub(crate) fn read(layout: TensorLayout, contents: Contents) -> Result<Elements, RequestError> {
    match contents {
        Contents::Raw(raw) => layout.raw(raw),
        Contents::Typed(typed) => typed_elements(layout, typed),
    }
}

fn typed_elements(layout: TensorLayout, typed: InferTensorContents) -> Result<Elements, RequestError> {
    let (expected, datatype) = (field(layout.sent), layout.sent.name());
    if let Some(got) = fields(&typed).find(|got| *got != expected) {
        return Err(RequestError::WrongContents { name: layout.name, field: got, datatype, expected });
    }
    layout.check_count(elements_of(&typed))?;
    match (layout.sent, layout.datatype) {
        (SentDatatype::Bytes, _) => Ok(Elements::Bytes(typed.bytes_contents)),
        (SentDatatype::Number(NumberType::Fp32), Datatype::Fp32) => Ok(Elements::F32(typed.fp32_contents)),
        _ => {
            // All fields but one are empty.
            let whole = (typed.bool_contents.into_iter().map(i128::from))
                .chain(typed.int_contents.into_iter().map(i128::from))
                .chain(typed.int64_contents.into_iter().map(i128::from))
                .chain(typed.uint_contents.into_iter().map(i128::from))
                .chain(typed.uint64_contents.into_iter().map(i128::from));
            layout.numbers(whole.map(SentNumber::Whole).chain(typed.fp64_contents.into_iter().map(SentNumber::Double)))
        }
    }
}

fn elements_of(typed: &InferTensorContents) -> usize {
    typed.bool_contents.len()
        + typed.int_contents.len()
        + typed.int64_contents.len()
        + typed.uint_contents.len()
        + typed.uint64_contents.len()
        + typed.fp32_contents.len()
        + typed.fp64_contents.len()
        + typed.bytes_contents.len()
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

    fn typed(
        sent: SentDatatype,
        datatype: Datatype,
        contents: InferTensorContents,
        elements: usize,
    ) -> Result<Elements, String> {
        let layout = TensorLayout { name: "x", sent, datatype, items: 1, elements };
        read(layout, Contents::Typed(contents)).map_err(|error| error.to_string())
    }

    const FP32: SentDatatype = SentDatatype::Number(NumberType::Fp32);
    const UINT8: SentDatatype = SentDatatype::Number(NumberType::Uint8);

    #[test]
    fn typed_elements_come_from_the_field_of_their_datatype() {
        let bytes = InferTensorContents { bytes_contents: vec![b"ab".to_vec()], ..Default::default() };
        let read = typed(SentDatatype::Bytes, Datatype::Bytes, bytes, 1);
        assert_eq!(read, Ok(Elements::Bytes(vec![b"ab".to_vec()])));
        let uint = InferTensorContents { uint_contents: vec![0, 255], ..Default::default() };
        assert_eq!(typed(UINT8, Datatype::Uint8, uint, 2), Ok(Elements::U8(vec![0, 255])));
        let fp32 = InferTensorContents { fp32_contents: vec![1.5], ..Default::default() };
        assert_eq!(typed(FP32, Datatype::Fp32, fp32, 1), Ok(Elements::F32(vec![1.5])));
    }

    #[test]
    fn numbers_of_other_fields_are_converted_where_none_changes() {
        let number = SentDatatype::Number;
        let int64 = InferTensorContents { int64_contents: vec![-3, 4], ..Default::default() };
        assert_eq!(typed(number(NumberType::Int64), Datatype::Fp32, int64, 2), Ok(Elements::F32(vec![-3.0, 4.0])));
        let fp64 = InferTensorContents { fp64_contents: vec![0.5], ..Default::default() };
        assert_eq!(typed(number(NumberType::Fp64), Datatype::Fp32, fp64, 1), Ok(Elements::F32(vec![0.5])));
        let bools = InferTensorContents { bool_contents: vec![true, false], ..Default::default() };
        assert_eq!(typed(number(NumberType::Bool), Datatype::Uint8, bools, 2), Ok(Elements::U8(vec![1, 0])));
    }

    #[test]
    fn typed_elements_of_another_field_number_or_range_are_refused() {
        let fp64 = || InferTensorContents { fp64_contents: vec![1.0], ..Default::default() };
        let both = InferTensorContents { fp32_contents: vec![1.0], ..fp64() };
        let refused = "input 'x' has fp64_contents, but datatype FP32 uses fp32_contents";
        assert_eq!(typed(FP32, Datatype::Fp32, fp64(), 1).unwrap_err(), refused);
        assert_eq!(typed(FP32, Datatype::Fp32, both, 1).unwrap_err(), refused);
        let none = typed(SentDatatype::Bytes, Datatype::Bytes, InferTensorContents::default(), 3).unwrap_err();
        assert_eq!(none, "input 'x' has 0 elements, but its shape needs 3");
        let large = InferTensorContents { uint_contents: vec![7, 256], ..Default::default() };
        let large = typed(UINT8, Datatype::Uint8, large, 2).unwrap_err();
        let message =
            "input 'x' has the value 256 at element 1, which its datatype UINT8 does not hold; send another datatype";
        assert_eq!(large, message);
    }
}
