//! The encoding of a value. All numbers are little-endian.
//!
//! ```text
//! magic "SCNV" · version u8 · checksum [16] of the rest ·
//! precision: length u8, bytes · tensors: count u32 ·
//! each: name: length u16, bytes · dtype u8 · rank u8 · dimensions u64 × rank · length u64 · bytes
//! ```
//!
//! The checksum is the beginning of a BLAKE3 digest.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Corrupt, EncodedValue, TensorSpan, TensorView, Value, ValueError};
use crate::Dtype;

const MAGIC: [u8; 4] = *b"SCNV";
const VERSION: u8 = 1;
const CHECKSUM: Range<usize> = 5..21;
/// Bytes of the smallest tensor. A count of tensors is checked against it before memory is reserved for them.
const MIN_TENSOR: usize = 2 + 1 + 1 + 8;

pub(super) fn encode(precision: &str, tensors: &[TensorView<'_>]) -> Result<Value, ValueError> {
    let mut out = ByteWriter { bytes: Vec::with_capacity(encoded_len(precision, tensors)) };
    out.put(&MAGIC);
    out.put(&[VERSION]);
    out.put(&[0; CHECKSUM.end - CHECKSUM.start]);
    let length = u8::try_from(precision.len())
        .map_err(|_| too_long("a precision", precision, usize::from(u8::MAX)))?
        .to_le_bytes();
    let precision = out.text(&length, precision);
    // Four billion tensors do not fit into memory.
    out.put(&u32::try_from(tensors.len()).expect("a count of tensors").to_le_bytes());
    let spans = tensors.iter().map(|tensor| out.tensor(tensor)).collect::<Result<_, _>>()?;
    let mut encoded = out.bytes;
    let checksum = checksum(&encoded[CHECKSUM.end..]);
    encoded[CHECKSUM].copy_from_slice(&checksum);
    Ok(Value(Arc::new(EncodedValue { encoded: encoded.into(), precision, tensors: spans })))
}

pub(super) fn decode(encoded: Bytes) -> Result<Value, Corrupt> {
    let mut reader = Reader { bytes: &encoded, at: 0 };
    if reader.array()? != MAGIC || reader.array()? != [VERSION] || reader.array()? != checksum(reader.rest()) {
        return Err(Corrupt);
    }
    let [length] = reader.array()?;
    let precision = reader.text(length.into())?;
    let count = reader.number::<4>()?;
    if count > reader.rest().len() / MIN_TENSOR {
        return Err(Corrupt);
    }
    let tensors = (0..count).map(|_| reader.tensor()).collect::<Result<_, _>>()?;
    if !reader.rest().is_empty() {
        return Err(Corrupt);
    }
    Ok(Value(Arc::new(EncodedValue { encoded, precision, tensors })))
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM.end - CHECKSUM.start] {
    *blake3::hash(body).as_bytes().first_chunk().expect("a digest is longer than a checksum")
}

fn encoded_len(precision: &str, tensors: &[TensorView<'_>]) -> usize {
    let each = |tensor: &TensorView<'_>| MIN_TENSOR + tensor.name.len() + 8 * tensor.shape.len() + tensor.bytes.len();
    CHECKSUM.end + 1 + precision.len() + 4 + tensors.iter().map(each).sum::<usize>()
}

fn too_long(what: &'static str, name: &str, max: usize) -> ValueError {
    ValueError::NameTooLong { what, length: name.len(), max }
}

/// Returns true if a tensor of this type and shape can have this number of bytes.
fn fits(dtype: Dtype, shape: &[usize], bytes: usize) -> bool {
    let Some(size) = dtype.size() else { return true };
    // Zero elements are zero bytes, whatever the other dimensions multiply to.
    let expected = shape.iter().try_fold(size, |product, dimension| product.checked_mul(*dimension));
    if shape.contains(&0) { bytes == 0 } else { expected == Some(bytes) }
}

struct ByteWriter {
    bytes: Vec<u8>,
}

impl ByteWriter {
    fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    fn text(&mut self, length: &[u8], text: &str) -> Range<usize> {
        self.put(length);
        self.put(text.as_bytes())
    }

    fn tensor(&mut self, tensor: &TensorView<'_>) -> Result<TensorSpan, ValueError> {
        let TensorView { name, dtype, shape, bytes } = *tensor;
        let length = u16::try_from(name.len())
            .map_err(|_| too_long("a tensor's name", name, usize::from(u16::MAX)))?
            .to_le_bytes();
        let rank = u8::try_from(shape.len())
            .map_err(|_| ValueError::TooManyDimensions { tensor: name.to_owned(), rank: shape.len() })?;
        if !fits(dtype, shape, bytes.len()) {
            let (tensor, shape) = (name.to_owned(), shape.to_vec());
            return Err(ValueError::WrongLength { tensor, dtype, shape, bytes: bytes.len() });
        }
        let name = self.text(&length, name);
        self.put(&[dtype.code(), rank]);
        for dimension in shape {
            self.put(&(*dimension as u64).to_le_bytes());
        }
        self.put(&(bytes.len() as u64).to_le_bytes());
        Ok(TensorSpan { name, dtype, shape: shape.into(), bytes: self.put(bytes) })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn skip(&mut self, length: usize) -> Result<Range<usize>, Corrupt> {
        let range = self.at..self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or(Corrupt)?;
        self.at = range.end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let range = self.skip(N)?;
        self.bytes[range].try_into().map_err(|_| Corrupt)
    }

    /// Reads a number of `N` bytes, at most eight, as a count or length.
    fn number<const N: usize>(&mut self) -> Result<usize, Corrupt> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        u64::from_le_bytes(wide).try_into().map_err(|_| Corrupt)
    }

    fn text(&mut self, length: usize) -> Result<Range<usize>, Corrupt> {
        let range = self.skip(length)?;
        std::str::from_utf8(&self.bytes[range.clone()]).map_err(|_| Corrupt)?;
        Ok(range)
    }

    fn tensor(&mut self) -> Result<TensorSpan, Corrupt> {
        let length = self.number::<2>()?;
        let name = self.text(length)?;
        let [dtype, rank] = self.array()?;
        let dtype = Dtype::from_code(dtype).ok_or(Corrupt)?;
        let shape = (0..rank).map(|_| self.number::<8>()).collect::<Result<Box<[_]>, _>>()?;
        let length = self.number::<8>()?;
        let bytes = self.skip(length)?;
        if fits(dtype, &shape, bytes.len()) { Ok(TensorSpan { name, dtype, shape, bytes }) } else { Err(Corrupt) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn embedding() -> Value {
        let bytes: Vec<u8> = (0..16).collect();
        let embedding = TensorView { name: "embedding", dtype: Dtype::F32, shape: &[1, 4], bytes: &bytes };
        let label = TensorView { name: "label", dtype: Dtype::Bytes, shape: &[1], bytes: b"\x03\0\0\0cat" };
        Value::new("int8", &[embedding, label]).unwrap()
    }

    /// Corrects the checksum, so that decoding looks at the bytes after it.
    fn resealed(mut encoded: Vec<u8>) -> Bytes {
        let sum = checksum(&encoded[CHECKSUM.end..]);
        encoded[CHECKSUM].copy_from_slice(&sum);
        encoded.into()
    }

    #[test]
    fn a_value_comes_back_as_it_went_in_without_a_copy() {
        let value = embedding();
        let read = Value::decode(value.encoded().clone()).unwrap();
        assert_eq!(read.precision(), "int8");
        assert!(read.tensors().eq(value.tensors()));
        let label = read.tensor("label").unwrap();
        assert_eq!((label.dtype, label.shape, label.bytes), (Dtype::Bytes, &[1][..], &b"\x03\0\0\0cat"[..]));
        assert_eq!(read.tensor("embedding").unwrap().bytes.as_ptr(), value.tensor("embedding").unwrap().bytes.as_ptr());
        assert_eq!(read.shared_bytes("label").unwrap(), b"\x03\0\0\0cat"[..]);
        assert_eq!(read.tensor("nothing"), None);
    }

    /// Compares with a golden value: old stores must stay readable until `VERSION` is raised.
    #[test]
    fn the_layout_is_the_documented_one() {
        let tensor = TensorView { name: "y", dtype: Dtype::U8, shape: &[2], bytes: &[7, 9] };
        let value = Value::new("f32", &[tensor]).unwrap();
        let body = b"\x03f32\x01\0\0\0\x01\0y\x02\x01\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x07\x09";
        assert_eq!(value.encoded()[..5], *b"SCNV\x01");
        assert_eq!(value.encoded()[5..21], blake3::hash(body).as_bytes()[..16]);
        assert_eq!(value.encoded()[21..], *body);
    }

    #[test]
    fn every_flipped_bit_every_cut_and_every_byte_more_is_corrupt() {
        let good = embedding().encoded().to_vec();
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[place] ^= 1 << bit;
                assert_eq!(Value::decode(bad.into()), Err(Corrupt), "bit {bit} of byte {place}");
            }
            assert_eq!(Value::decode(good[..place].to_vec().into()), Err(Corrupt), "cut at {place}");
        }
        assert_eq!(Value::decode([&good[..], &[0]].concat().into()), Err(Corrupt));
        assert_eq!(Value::decode(resealed([&good[..], &[0]].concat())), Err(Corrupt));
    }

    #[test]
    fn a_shape_that_contradicts_the_bytes_is_refused_when_a_value_is_made() {
        let tensor = |dtype, shape, bytes| TensorView { name: "x", dtype, shape, bytes };
        let table = [
            (tensor(Dtype::F32, &[2][..], &[0; 8][..]), true),
            (tensor(Dtype::F32, &[2], &[0; 7]), false),
            (tensor(Dtype::F32, &[], &[0; 4]), true),
            (tensor(Dtype::I64, &[usize::MAX, 2], &[0; 8]), false),
            (tensor(Dtype::I64, &[usize::MAX, usize::MAX, 0], &[]), true),
            (tensor(Dtype::Bytes, &[3], b"what the caller likes"), true),
        ];
        for (tensor, good) in table {
            assert_eq!(Value::new("f32", &[tensor]).is_ok(), good, "{tensor:?}");
        }
        let long = "x".repeat(70_000);
        let error = Value::new(&long, &[]).unwrap_err();
        assert_eq!(error.to_string(), "a precision is 70000 bytes long, but must be at most 255");
    }

    proptest! {
        #[test]
        fn no_bytes_behind_a_right_checksum_make_a_panic(body in prop::collection::vec(any::<u8>(), 0..80)) {
            let encoded = [&MAGIC[..], &[VERSION], &[0; 16], &body].concat();
            if let Ok(value) = Value::decode(resealed(encoded)) {
                prop_assert_eq!(value.tensors().count(), value.tensors().len());
            }
        }

        #[test]
        fn no_change_of_the_header_behind_a_right_checksum_makes_a_panic(
            place in 21usize..60, byte in any::<u8>()
        ) {
            let mut encoded = embedding().encoded().to_vec();
            encoded[place] = byte;
            if let Ok(value) = Value::decode(resealed(encoded)) {
                prop_assert_eq!(value.tensors().count(), 2);
            }
        }
    }
}
