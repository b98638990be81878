//! A cached answer: named tensors and the precision that made them, in the form in which they are stored.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::Dtype;

mod codec;

/// A cached answer. Cheap to clone.
///
/// Encoded once, when it is made; every tier stores that encoding, and a decoded value points into the bytes that were
/// read. Nothing is copied on the way from one tier to the next.
#[derive(Clone)]
pub struct Value(Arc<EncodedValue>);

/// An encoding, and the spans of its parts.
struct EncodedValue {
    encoded: Bytes,
    precision: Range<usize>,
    tensors: Box<[TensorSpan]>,
}

/// The span of a tensor in the encoding.
struct TensorSpan {
    name: Range<usize>,
    dtype: Dtype,
    shape: Box<[usize]>,
    bytes: Range<usize>,
}

/// A tensor of a value, or one to make a value of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// Name, at most 65,535 bytes.
    pub name: &'a str,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Dimensions, at most 255.
    pub shape: &'a [usize],
    /// The elements, little-endian and row by row; need not be aligned.
    pub bytes: &'a [u8],
}

impl Value {
    /// Encodes an answer: one copy of its bytes and one checksum.
    ///
    /// # Errors
    /// [`ValueError`] if a name is too long, a tensor has too many dimensions, or its bytes do not match its shape.
    pub fn new(precision: &str, tensors: &[TensorView<'_>]) -> Result<Self, ValueError> {
        codec::encode(precision, tensors)
    }

    /// Decodes an answer; the value points into `encoded`.
    ///
    /// # Errors
    /// [`Corrupt`] for anything but a whole, unchanged encoding of this version. The checksum finds accidents, not
    /// attacks: a writer to a store can also write a value with a right checksum.
    pub fn decode(encoded: Bytes) -> Result<Self, Corrupt> {
        codec::decode(encoded)
    }

    /// Name of the precision that made the value.
    #[must_use]
    pub fn precision(&self) -> &str {
        self.text(&self.0.precision)
    }

    /// The tensors, in the order in which they were given.
    #[must_use]
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorView<'_>> {
        self.0.tensors.iter().map(|span| TensorView {
            name: self.text(&span.name),
            dtype: span.dtype,
            shape: &span.shape,
            bytes: &self.0.encoded[span.bytes.clone()],
        })
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors().find(|tensor| tensor.name == name)
    }

    /// The elements of the tensor of this name, as bytes that keep the value's memory alive.
    #[must_use]
    pub fn shared_bytes(&self, name: &str) -> Option<Bytes> {
        let span = self.0.tensors.iter().find(|span| self.text(&span.name) == name)?;
        Some(self.0.encoded.slice(span.bytes.clone()))
    }

    /// The encoding.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }

    /// Bytes of memory that the value takes, its bookkeeping included.
    #[must_use]
    pub fn weight(&self) -> usize {
        let size = |span: &TensorSpan| size_of::<TensorSpan>() + size_of_val(&*span.shape);
        self.0.encoded.len() + size_of::<EncodedValue>() + self.0.tensors.iter().map(size).sum::<usize>()
    }

    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(&self.0.encoded[range.clone()]).expect("texts were checked when the value was made")
    }
}

/// Compares encodings.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.0.encoded == other.0.encoded
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tensors: Vec<_> = self.tensors().map(|tensor| (tensor.name, tensor.dtype, tensor.shape)).collect();
        f.debug_struct("Value").field("precision", &self.precision()).field("tensors", &tensors).finish()
    }
}

/// Reasons for which tensors do not make a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// A name is too long.
    #[error("{what} is {length} bytes long, but must be at most {max}")]
    NameTooLong {
        /// The named thing: a precision, or a tensor's name.
        what: &'static str,
        /// Length of the name in bytes.
        length: usize,
        /// The largest length allowed.
        max: usize,
    },
    /// A tensor has too many dimensions.
    #[error("tensor '{tensor}' has {rank} dimensions, but must have at most 255")]
    TooManyDimensions {
        /// Name of the tensor.
        tensor: String,
        /// Number of dimensions.
        rank: usize,
    },
    /// A tensor's bytes do not match its shape.
    #[error("tensor '{tensor}' has {bytes} bytes, which its shape {shape:?} of {dtype:?} does not")]
    WrongLength {
        /// Name of the tensor.
        tensor: String,
        /// Type of the elements.
        dtype: Dtype,
        /// Dimensions.
        shape: Vec<usize>,
        /// Number of bytes given.
        bytes: usize,
    },
}

/// The error for bytes that are not an encoded value: damaged, cut short, of another version, or of another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an intact value of this version")]
pub struct Corrupt;
