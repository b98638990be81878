//! Tensors as protocols carry them, shared by inputs, outputs and all servers.

use std::borrow::Cow;

use half::f16;

/// The element types of inputs and outputs, by their names in the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datatype {
    /// `BYTES`: strings of bytes.
    Bytes,
    /// `UINT8`: unsigned bytes.
    Uint8,
    /// `INT8`: signed bytes; of outputs alone.
    Int8,
    /// `INT32`: 32-bit whole numbers; of outputs alone.
    Int32,
    /// `FP16`: 16-bit floats; of outputs alone.
    Fp16,
    /// `FP32`: 32-bit floats.
    Fp32,
}

impl Datatype {
    /// The protocol's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "BYTES",
            Self::Uint8 => "UINT8",
            Self::Int8 => "INT8",
            Self::Int32 => "INT32",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
        }
    }
}

/// The elements of a tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// Elements of [`Datatype::Bytes`].
    Bytes(Vec<Vec<u8>>),
    /// Elements of [`Datatype::Uint8`].
    U8(Vec<u8>),
    /// Elements of [`Datatype::Fp32`].
    F32(Vec<f32>),
}

/// A tensor that carries an input, described for one item.
#[derive(Debug, Clone, PartialEq)]
pub struct InputTensor {
    /// The tensor's name.
    pub name: &'static str,
    /// The element types that are accepted, the preferred one first.
    pub datatypes: &'static [Datatype],
    /// The shape of an item; `None`: one string, or one dimension of any length.
    pub shape: Option<Vec<usize>>,
    /// True if a request may leave the tensor out.
    pub optional: bool,
}

/// A tensor that carries an output, described for one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputTensor {
    /// The tensor's name.
    pub name: &'static str,
    /// The element type.
    pub datatype: Datatype,
    /// The shape of an item.
    pub shape: OutputShape,
}

/// The shape of one item of an output. Items of one response whose number of elements or rows varies are filled up to
/// the largest of them: numbers with 0, numbers of words with −1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputShape {
    /// So many elements.
    Fixed(usize),
    /// A number of elements that varies with the input.
    Varying,
    /// A number of rows that varies with the input, of so many elements each.
    Rows(usize),
}

/// The elements of a tensor for one item's output.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputElements<'a> {
    /// One string.
    Text(Cow<'a, str>),
    /// Several floats.
    F32(&'a [f32]),
    /// Several 16-bit floats.
    F16(&'a [f16]),
    /// Several signed bytes.
    I8(&'a [i8]),
    /// Several unsigned bytes.
    U8(&'a [u8]),
    /// Several whole numbers.
    I32(Vec<i32>),
}

/// An input's part of a cache key. Inputs with equal fields are the same input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputKey<'a> {
    /// The kind of input.
    pub name: &'static str,
    /// The element type.
    pub datatype: Datatype,
    /// The dimensions; for a pair, the bytes of each text.
    pub shape: Cow<'a, [usize]>,
    /// The elements, floats in little-endian order.
    pub bytes: Cow<'a, [u8]>,
}

impl InputKey<'_> {
    /// Encodes the key as a part of another: every field, with its length before it.
    pub(crate) fn part(&self) -> Vec<u8> {
        let Self { name, datatype, shape, bytes } = self;
        let mut part = Vec::with_capacity(bytes.len() + 64);
        for field in [name.as_bytes(), datatype.name().as_bytes()] {
            part.extend_from_slice(&(field.len() as u64).to_le_bytes());
            part.extend_from_slice(field);
        }
        for size in std::iter::once(shape.len()).chain(shape.iter().copied()).chain([bytes.len()]) {
            part.extend_from_slice(&(size as u64).to_le_bytes());
        }
        part.extend_from_slice(bytes);
        part
    }
}
