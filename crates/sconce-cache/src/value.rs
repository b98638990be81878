//! A cached answer: named tensors and the precision that made them, in the form in which they are stored.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::Dtype;

mod codec;

/// A cached answer. Cheap to clone.
///
/// It is encoded once, when it is made, and every tier stores that encoding; a value that was read points into what was
/// read. Nothing is copied on the way from one tier to the next.
#[derive(Clone)]
pub struct Value(Arc<Parts>);

struct Parts {
    encoded: Bytes,
    precision: Range<usize>,
    tensors: Box<[Place]>,
}

/// Where a tensor lies in the encoding.
struct Place {
    name: Range<usize>,
    dtype: Dtype,
    shape: Box<[usize]>,
    bytes: Range<usize>,
}

/// One tensor of a value, or one to make a value of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// Its name, at most 65,535 bytes.
    pub name: &'a str,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Its dimensions, at most 255.
    pub shape: &'a [usize],
    /// Its elements, little-endian and row by row, at any address.
    pub bytes: &'a [u8],
}

impl Value {
    /// Encodes an answer: one copy of its bytes and one checksum.
    ///
    /// # Errors
    /// [`ValueError`] where a name is too long or a tensor's bytes are not what its shape says.
    pub fn new(precision: &str, tensors: &[Tensor<'_>]) -> Result<Self, ValueError> {
        codec::encode(precision, tensors)
    }

    /// Reads an encoded answer; the value points into `encoded`.
    ///
    /// # Errors
    /// [`Corrupt`] for anything but the whole of an encoding of this version, unchanged. The checksum finds accidents:
    /// whoever may write to a store can also write a value with a checksum that is right.
    pub fn decode(encoded: Bytes) -> Result<Self, Corrupt> {
        codec::decode(encoded)
    }

    /// The precision that made it, as its maker calls it.
    #[must_use]
    pub fn precision(&self) -> &str {
        self.text(&self.0.precision)
    }

    /// Its tensors, in the order in which they were given.
    #[must_use]
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'_>> {
        self.0.tensors.iter().map(|place| Tensor {
            name: self.text(&place.name),
            dtype: place.dtype,
            shape: &place.shape,
            bytes: &self.0.encoded[place.bytes.clone()],
        })
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.tensors().find(|tensor| tensor.name == name)
    }

    /// A tensor's elements as bytes that keep the value's memory alive.
    #[must_use]
    pub fn shared_bytes(&self, name: &str) -> Option<Bytes> {
        let place = self.0.tensors.iter().find(|place| self.text(&place.name) == name)?;
        Some(self.0.encoded.slice(place.bytes.clone()))
    }

    /// The encoding.
    #[must_use]
    pub fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }

    /// Bytes of memory that it takes, all in all.
    #[must_use]
    pub fn weight(&self) -> usize {
        let place = |place: &Place| size_of::<Place>() + size_of_val(&*place.shape);
        self.0.encoded.len() + size_of::<Parts>() + self.0.tensors.iter().map(place).sum::<usize>()
    }

    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(&self.0.encoded[range.clone()]).expect("texts were checked when the value was made")
    }
}

/// Equal encodings.
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

/// Why tensors do not make a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Give it a shorter name.
    #[error("{what} is {length} bytes long, but must be at most {max}")]
    NameTooLong {
        /// What the name is of.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// What is allowed.
        max: usize,
    },
    /// Give it fewer dimensions.
    #[error("tensor '{tensor}' has {rank} dimensions, but must have at most 255")]
    TooManyDimensions {
        /// Name of the tensor.
        tensor: String,
        /// Its dimensions.
        rank: usize,
    },
    /// Shape and bytes contradict each other.
    #[error("tensor '{tensor}' has {bytes} bytes, which its shape {shape:?} of {dtype:?} does not")]
    WrongLength {
        /// Name of the tensor.
        tensor: String,
        /// Type of its elements.
        dtype: Dtype,
        /// Its dimensions.
        shape: Vec<usize>,
        /// Its bytes.
        bytes: usize,
    },
}

/// Bytes that are not an encoded value: damaged, cut short, of another version, or not ours at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an intact value of this version")]
pub struct Corrupt;
