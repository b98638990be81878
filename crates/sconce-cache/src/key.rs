//! The key of an answer: a digest of everything that the answer depends on.

use std::fmt;

use crate::Dtype;

#[cfg(test)]
mod tests;

/// Part of every key. Raise it when the encoding below, or the meaning of a stored value, changes: old entries are then
/// never found again.
const SCHEMA_VERSION: u8 = 1;

/// Bytes up to which pieces are gathered before they are hashed, because each call of the hash costs more than copying
/// them. Longer pieces are hashed without a copy.
const GATHERED: usize = 1024;

/// A BLAKE3 digest of something a key depends on: weights, a tokenizer, a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Digests bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Digests everything that a reader gives: a file, say, without loading it into memory.
    ///
    /// # Errors
    /// Errors of reading.
    pub fn of_reader(reader: impl std::io::Read) -> std::io::Result<Self> {
        Ok(Self(*blake3::Hasher::new().update_reader(reader)?.finalize().as_bytes()))
    }
}

/// The key of an entry in all tiers: 32 bytes that depend on everything an answer depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

impl Key {
    /// Makes a key from its bytes, for tools that read a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes as a number: the id of a row in SQLite. Two keys may share it.
    #[cfg(feature = "sqlite")]
    pub(crate) fn row_id(&self) -> i64 {
        let (head, _) = self.0.split_first_chunk().expect("a key has more than eight bytes");
        i64::from_le_bytes(*head)
    }

    /// Makes one key of an ordered list of keys; of a single key, the key itself.
    pub(crate) fn of_list(first: Self, others: &[Self]) -> Self {
        if others.is_empty() {
            return first;
        }
        let mut hasher = blake3::Hasher::new();
        for key in [&[first], others].concat() {
            hasher.update(&key.0);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// Formats the key in hexadecimal digits.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Everything that an answer depends on. There is no default, because a field left out of a key leads to wrong answers:
/// the maker of a key must give every field.
///
/// ```
/// use sconce_cache::{Digest, Dtype, KeyTensor, KeyFields, Parameter};
///
/// let fields = KeyFields {
///     model: "minilm",
///     weights: Digest::of(b"the bytes of model.safetensors"),
///     precision: "int8",
///     device_class: "cpu",
///     processing: Digest::of(b"the bytes of tokenizer.json"),
///     parameters: &[("truncate", Parameter::Bool(true))],
///     outputs: &["embedding"],
///     inputs: &[KeyTensor { name: "text", dtype: Dtype::Bytes, shape: &[1], bytes: b"a candle" }],
/// };
/// assert_ne!(fields.key(), KeyFields { precision: "f32", ..fields }.key());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct KeyFields<'a> {
    /// The model's name and version.
    pub model: &'a str,
    /// Digest of the weights, so that a new training run under an old name is a new model.
    pub weights: Digest,
    /// The precision in which the model runs.
    pub precision: &'a str,
    /// The kind of device: devices that give the same bits share a class.
    pub device_class: &'a str,
    /// Digest of the tokenizer and of everything else that turns a request into tensors.
    pub processing: Digest,
    /// Parameters of the request, in any order.
    pub parameters: &'a [(&'a str, Parameter<'a>)],
    /// Names of the requested outputs, in the requested order; empty for all.
    pub outputs: &'a [&'a str],
    /// The inputs, in the model's order.
    pub inputs: &'a [KeyTensor<'a>],
}

/// The value of a request's parameter. Different types are different values: `1`, `1.0` and `"1"` make three keys.
#[derive(Debug, Clone, Copy)]
pub enum Parameter<'a> {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number, compared by its bits: 0.0 and −0.0 differ, a NaN equals itself.
    Float(f64),
    /// A text.
    Text(&'a str),
}

/// One input tensor.
#[derive(Debug, Clone, Copy)]
pub struct KeyTensor<'a> {
    /// Name of the input.
    pub name: &'a str,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Dimensions.
    pub shape: &'a [usize],
    /// The elements, little-endian and row by row. Elements of [`Dtype::Bytes`] need a length before each, or two lists
    /// of texts could have the same bytes.
    pub bytes: &'a [u8],
}

impl KeyFields<'_> {
    /// Makes the key.
    #[must_use]
    pub fn key(&self) -> Key {
        let mut sink = HashSink { gathered: Vec::with_capacity(GATHERED), hasher: None };
        self.encode(&mut sink);
        sink.finish()
    }

    /// Encodes each field with its length and each list with its count, so that no two different requests have the same
    /// encoding.
    fn encode(&self, sink: &mut impl Sink) {
        sink.put(b"sconce-key");
        sink.put(&[SCHEMA_VERSION]);
        sink.field(self.model.as_bytes());
        sink.field(&self.weights.0);
        sink.field(self.precision.as_bytes());
        sink.field(self.device_class.as_bytes());
        sink.field(&self.processing.0);
        sink.length(self.parameters.len());
        self.encode_parameters(sink);
        sink.length(self.outputs.len());
        for output in self.outputs {
            sink.field(output.as_bytes());
        }
        sink.length(self.inputs.len());
        for input in self.inputs {
            input.encode(sink);
        }
    }

    fn encode_parameters(&self, sink: &mut impl Sink) {
        // Most requests have no parameter or one, which need no list to be sorted.
        if let [] | [_] = self.parameters {
            return self.parameters.iter().for_each(|(name, value)| value.encode(name, sink));
        }
        let mut sorted: Vec<_> = self.parameters.iter().collect();
        // A stable sort keeps the order of parameters with the same name, because the last may win where they are read.
        sorted.sort_by_key(|(name, _)| *name);
        for (name, value) in sorted {
            value.encode(name, sink);
        }
    }
}

impl Parameter<'_> {
    fn encode(&self, name: &str, sink: &mut impl Sink) {
        sink.field(name.as_bytes());
        let (tag, number);
        let bytes: &[u8] = match self {
            Self::Bool(value) => {
                (tag, number) = (1, [u8::from(*value), 0, 0, 0, 0, 0, 0, 0]);
                &number[..1]
            }
            Self::Int(value) => {
                (tag, number) = (2, value.to_le_bytes());
                &number
            }
            Self::Float(value) => {
                (tag, number) = (3, value.to_bits().to_le_bytes());
                &number
            }
            Self::Text(text) => {
                tag = 4;
                text.as_bytes()
            }
        };
        sink.put(&[tag]);
        sink.field(bytes);
    }
}

impl KeyTensor<'_> {
    fn encode(&self, sink: &mut impl Sink) {
        sink.field(self.name.as_bytes());
        sink.put(&[self.dtype.code()]);
        sink.length(self.shape.len());
        for dimension in self.shape {
            sink.length(*dimension);
        }
        sink.field(self.bytes);
    }
}

/// The target of an encoding: the hash, or in a test a vector.
trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn length(&mut self, length: usize) {
        self.put(&(length as u64).to_le_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.put(bytes);
    }
}

struct HashSink {
    gathered: Vec<u8>,
    /// Made only when a piece does not fit into `gathered`: setting it up costs as much as hashing 128 bytes.
    hasher: Option<blake3::Hasher>,
}

impl Sink for HashSink {
    fn put(&mut self, bytes: &[u8]) {
        if self.gathered.len() + bytes.len() <= GATHERED {
            return self.gathered.extend_from_slice(bytes);
        }
        let hasher = self.hasher.get_or_insert_default();
        hasher.update(&self.gathered);
        self.gathered.clear();
        if bytes.len() <= GATHERED {
            self.gathered.extend_from_slice(bytes);
        } else {
            hasher.update(bytes);
        }
    }
}

impl HashSink {
    fn finish(self) -> Key {
        let digest = match self.hasher {
            None => blake3::hash(&self.gathered),
            Some(mut hasher) => hasher.update(&self.gathered).finalize(),
        };
        Key(*digest.as_bytes())
    }
}
