//! Tensors as protocols carry them: the common ground of inputs, outputs and every server.

use std::borrow::Cow;

/// The element types that models read and give, by the names of the Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datatype {
    /// `BYTES`: a string of bytes.
    Bytes,
    /// `UINT8`
    Uint8,
    /// `FP32`
    Fp32,
}

impl Datatype {
    /// The protocol's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "BYTES",
            Self::Uint8 => "UINT8",
            Self::Fp32 => "FP32",
        }
    }
}

/// The elements of a tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// Of [`Datatype::Bytes`].
    Bytes(Vec<Vec<u8>>),
    /// Of [`Datatype::Uint8`].
    U8(Vec<u8>),
    /// Of [`Datatype::Fp32`].
    F32(Vec<f32>),
}

/// A tensor that an input comes in, described for one item.
#[derive(Debug, Clone, PartialEq)]
pub struct InputTensor {
    /// Its name.
    pub name: &'static str,
    /// The element types that are read, the preferred one first.
    pub datatypes: &'static [Datatype],
    /// The dimensions of an item's elements; `None`: any length of one dimension, or one string.
    pub shape: Option<Vec<usize>>,
}

/// A tensor that an output is given in, described for one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputTensor {
    /// Its name.
    pub name: &'static str,
    /// The type of its elements.
    pub datatype: Datatype,
    /// Elements of one item.
    pub width: usize,
}

/// What one item's output has for a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OutputElements<'a> {
    /// One string.
    Text(&'a str),
    /// Numbers.
    F32(&'a [f32]),
}

/// An input as the key of a cache sees it. Inputs with equal fields are the same input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputKey<'a> {
    /// The kind of input.
    pub name: &'static str,
    /// The type of its elements.
    pub datatype: Datatype,
    /// Its dimensions.
    pub shape: Cow<'a, [usize]>,
    /// Its elements.
    pub bytes: Cow<'a, [u8]>,
}
