//! Reads the elements of a tensor, and converts numbers of other types where none is changed by it.

use bytes::{Buf as _, Bytes};
use sconce::{Datatype, Elements};

use crate::error::RequestError;
use crate::tensors::{SentDatatype, TensorLayout};

/// The types of numbers that the protocol has, by its names, but for 16-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the protocol's names")]
pub enum NumberType {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Fp32,
    Fp64,
}

/// A number of any type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SentNumber {
    /// A whole number.
    Whole(i128),
    /// A float of 32 bits.
    Single(f32),
    /// A float of 64 bits.
    Double(f64),
}

impl NumberType {
    const ALL: [Self; 11] = [
        Self::Bool,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Fp32,
        Self::Fp64,
    ];

    /// The type of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|number| number.name() == name)
    }

    /// The protocol's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
        }
    }

    /// True for whole numbers.
    #[must_use]
    pub fn is_whole(self) -> bool {
        !matches!(self, Self::Fp32 | Self::Fp64)
    }

    /// True if the type holds a whole number.
    fn holds(self, whole: i128) -> bool {
        let bits = 8 * self.width();
        match self {
            Self::Bool => (0..=1).contains(&whole),
            Self::Uint8 | Self::Uint16 | Self::Uint32 | Self::Uint64 => (0..1 << bits).contains(&whole),
            Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64 => {
                (-(1 << (bits - 1))..1 << (bits - 1)).contains(&whole)
            }
            Self::Fp32 | Self::Fp64 => true,
        }
    }

    /// Bytes of an element.
    fn width(self) -> usize {
        match self {
            Self::Bool | Self::Int8 | Self::Uint8 => 1,
            Self::Int16 | Self::Uint16 => 2,
            Self::Int32 | Self::Uint32 | Self::Fp32 => 4,
            Self::Int64 | Self::Uint64 | Self::Fp64 => 8,
        }
    }

    /// Reads one element in little-endian order; `raw` has as many bytes.
    fn read(self, mut raw: &[u8]) -> SentNumber {
        match self {
            Self::Bool | Self::Uint8 => SentNumber::Whole(raw.get_u8().into()),
            Self::Int8 => SentNumber::Whole(raw.get_i8().into()),
            Self::Int16 => SentNumber::Whole(raw.get_i16_le().into()),
            Self::Uint16 => SentNumber::Whole(raw.get_u16_le().into()),
            Self::Int32 => SentNumber::Whole(raw.get_i32_le().into()),
            Self::Uint32 => SentNumber::Whole(raw.get_u32_le().into()),
            Self::Int64 => SentNumber::Whole(raw.get_i64_le().into()),
            Self::Uint64 => SentNumber::Whole(raw.get_u64_le().into()),
            Self::Fp32 => SentNumber::Single(raw.get_f32_le()),
            Self::Fp64 => SentNumber::Double(raw.get_f64_le()),
        }
    }
}

impl SentNumber {
    /// The 32-bit float of the same value.
    #[expect(clippy::cast_possible_truncation, reason = "checked by the way back")]
    fn as_f32(self) -> Option<f32> {
        match self {
            Self::Single(value) => Some(value),
            Self::Double(value) => {
                let single = value as f32;
                let is_same = f64::from(single).to_bits() == value.to_bits();
                (is_same || value.is_nan()).then_some(single)
            }
            Self::Whole(value) => {
                let single = value as f32;
                (single as i128 == value).then_some(single)
            }
        }
    }

    fn as_u8(self) -> Option<u8> {
        if let Self::Whole(value) = self { u8::try_from(value).ok() } else { None }
    }

    fn shown(self) -> String {
        match self {
            Self::Whole(value) => value.to_string(),
            Self::Single(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
        }
    }
}

impl TensorLayout {
    /// Reads little-endian elements; those of `BYTES` stand each behind its length.
    ///
    /// # Errors
    /// [`RequestError`] if the bytes are of another number of elements, or a number is not exact as the model reads it.
    pub fn raw(&self, raw: Bytes) -> Result<Elements, RequestError> {
        let SentDatatype::Number(sent) = self.sent else {
            return self.raw_bytes(raw).map(Elements::Bytes);
        };
        // `None` stands for an expected size that does not fit `usize`.
        let expected = self.elements.saturating_mul(sent.width());
        if raw.len() != expected {
            return Err(RequestError::WrongRawSize { name: self.name, got: raw.len(), expected });
        }
        match (sent, self.datatype) {
            (NumberType::Uint8, Datatype::Uint8) => Ok(Elements::U8(raw.to_vec())),
            (NumberType::Fp32, Datatype::Fp32) => {
                let (values, _) = raw.as_chunks();
                Ok(Elements::F32(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
            }
            _ => self.numbers(raw.chunks_exact(sent.width()).map(|element| sent.read(element))),
        }
    }

    /// Converts numbers, as many as the tensor has elements, to the type that the model reads.
    ///
    /// # Errors
    /// [`RequestError::OutOfRange`] names the first that is none of the type it was sent as, [`RequestError::NotExact`] the
    /// first that would change.
    pub fn numbers(&self, numbers: impl Iterator<Item = SentNumber>) -> Result<Elements, RequestError> {
        let mut numbers = numbers.enumerate().map(|(index, number)| match (self.sent, number) {
            (SentDatatype::Number(sent), SentNumber::Whole(whole)) if !sent.holds(whole) => {
                let (name, datatype) = (self.name, sent.name());
                Err(RequestError::OutOfRange { name, index, value: number.shown(), datatype })
            }
            _ => Ok((index, number)),
        });
        let refuse = |index, number: SentNumber| RequestError::NotExact {
            name: self.name,
            index,
            value: number.shown(),
            datatype: self.datatype.name(),
        };
        match self.datatype {
            Datatype::Uint8 => {
                let byte =
                    |item: Numbered| item.and_then(|(at, number)| number.as_u8().ok_or_else(|| refuse(at, number)));
                numbers.try_fold(Vec::with_capacity(self.elements), collected(byte)).map(Elements::U8)
            }
            Datatype::Fp32 => {
                let float =
                    |item: Numbered| item.and_then(|(at, number)| number.as_f32().ok_or_else(|| refuse(at, number)));
                numbers.try_fold(Vec::with_capacity(self.elements), collected(float)).map(Elements::F32)
            }
            Datatype::Bytes | Datatype::Int8 | Datatype::Int32 | Datatype::Fp16 => {
                unreachable!("no numbers are read as these")
            }
        }
    }

    fn raw_bytes(&self, mut raw: Bytes) -> Result<Vec<Vec<u8>>, RequestError> {
        let (name, expected) = (self.name, self.elements);
        // `expected` is bounded by `max_items`, so a small message cannot reserve much.
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
}

/// A number with its place, or the refusal of one that its type does not hold.
type Numbered = Result<(usize, SentNumber), RequestError>;

/// A step of a fold that collects what `convert` makes.
fn collected<I, T>(
    convert: impl Fn(I) -> Result<T, RequestError>,
) -> impl FnMut(Vec<T>, I) -> Result<Vec<T>, RequestError> {
    move |mut all, item| {
        all.push(convert(item)?);
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(sent: SentDatatype, datatype: Datatype, elements: usize) -> TensorLayout {
        TensorLayout { name: "x", sent, datatype, items: 1, elements }
    }

    fn raw(sent: NumberType, datatype: Datatype, bytes: &[u8], elements: usize) -> Result<Elements, String> {
        let layout = layout(SentDatatype::Number(sent), datatype, elements);
        layout.raw(Bytes::copy_from_slice(bytes)).map_err(|error| error.to_string())
    }

    fn raw_bytes(bytes: &[u8], elements: usize) -> Result<Elements, String> {
        let layout = layout(SentDatatype::Bytes, Datatype::Bytes, elements);
        layout.raw(Bytes::copy_from_slice(bytes)).map_err(|error| error.to_string())
    }

    #[test]
    fn raw_elements_are_little_endian_and_bytes_stand_behind_their_length() {
        let bytes = b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c";
        let elements = [b"ab".to_vec(), Vec::new(), b"c".to_vec()];
        assert_eq!(raw_bytes(bytes, 3), Ok(Elements::Bytes(elements.to_vec())));
        assert_eq!(raw(NumberType::Uint8, Datatype::Uint8, &[0, 255], 2), Ok(Elements::U8(vec![0, 255])));
        assert_eq!(raw(NumberType::Fp32, Datatype::Fp32, &[0, 0, 0xc0, 0x3f], 1), Ok(Elements::F32(vec![1.5])));
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
            assert_eq!(raw_bytes(bytes, *expected).unwrap_err(), *message);
        }
    }

    #[test]
    fn raw_numbers_that_do_not_fit_their_number_are_refused() {
        let message = |got, expected: usize| {
            Err(format!("input 'x' has {got} raw bytes, but its shape and datatype need {expected}"))
        };
        assert_eq!(raw(NumberType::Uint8, Datatype::Uint8, &[1, 2, 3], 2), message(3, 2));
        assert_eq!(raw(NumberType::Fp32, Datatype::Fp32, &[0; 7], 2), message(7, 8));
        assert_eq!(raw(NumberType::Fp64, Datatype::Fp32, &[0; 8], usize::MAX / 2), message(8, usize::MAX));
    }

    #[test]
    fn numbers_of_other_types_are_converted_where_none_changes() {
        use NumberType::{Fp64, Int8, Int64, Uint16, Uint64};
        let f32s = |values: &[f32]| Ok(Elements::F32(values.to_vec()));
        let doubles = [1.5_f64, -0.0].map(f64::to_le_bytes).concat();
        assert_eq!(raw(Fp64, Datatype::Fp32, &doubles, 2), f32s(&[1.5, -0.0]));
        let wholes = [-7_i64, 1 << 24, i64::MIN].map(i64::to_le_bytes).concat();
        assert_eq!(raw(Int64, Datatype::Fp32, &wholes, 3), f32s(&[-7.0, 16_777_216.0, i64::MIN as f32]));
        assert_eq!(raw(Int8, Datatype::Fp32, &[0xff], 1), f32s(&[-1.0]));
        assert_eq!(raw(Uint16, Datatype::Uint8, &[255, 0], 1), Ok(Elements::U8(vec![255])));
        let message = |value: &str, index, datatype| {
            Err(format!(
                "input 'x' has the value {value} at element {index}, which {datatype}, as the model takes it, cannot hold \
                 exactly; send {datatype}"
            ))
        };
        assert_eq!(raw(Fp64, Datatype::Fp32, &0.1_f64.to_le_bytes(), 1), message("0.1", 0, "FP32"));
        let above = [0, (1_i64 << 24) + 1].map(i64::to_le_bytes).concat();
        assert_eq!(raw(Int64, Datatype::Fp32, &above, 2), message("16777217", 1, "FP32"));
        let largest = raw(Uint64, Datatype::Fp32, &u64::MAX.to_le_bytes(), 1);
        assert_eq!(largest, message("18446744073709551615", 0, "FP32"));
        assert_eq!(raw(Int64, Datatype::Uint8, &256_i64.to_le_bytes(), 1), message("256", 0, "UINT8"));
    }

    #[test]
    fn whole_numbers_are_held_to_the_type_that_they_are_sent_as() {
        use NumberType::{Bool, Int8, Int64, Uint8, Uint32};
        let numbers = |sent, whole: i128| {
            let layout = layout(SentDatatype::Number(sent), Datatype::Fp32, 1);
            layout.numbers([SentNumber::Whole(whole)].into_iter()).map_err(|error| error.to_string())
        };
        for (sent, least, most) in [
            (Bool, 0, 1),
            (Int8, -128, 127),
            (Uint8, 0, 255),
            (Uint32, 0, i128::from(u32::MAX)),
            (Int64, i128::from(i64::MIN), i128::from(i64::MAX)),
        ] {
            for outside in [least - 1, most + 1] {
                let refused = numbers(sent, outside).unwrap_err();
                assert!(
                    refused.contains(&format!("{outside} at element 0, which its datatype {}", sent.name())),
                    "{refused}"
                );
            }
            assert!(numbers(sent, least).is_ok());
        }
    }
}
