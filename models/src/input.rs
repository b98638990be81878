//! What a caller hands in: one item's input, before it is prepared.

/// One item's input. Which of these a model takes is in its [`Signature`](crate::Signature).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Input {
    /// Text, for models that tokenise.
    Text(String),
    /// The content of a file or a BYTES element of a request; must be UTF-8 where a model reads text.
    Bytes(Vec<u8>),
    /// A dense array without a batch dimension, for instance an image of shape `[channels, height, width]`.
    Array(Array),
}

/// A dense row-major array.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dimensions, outermost first, without a batch dimension.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` elements.
    pub data: ArrayData,
}

/// The elements of an [`Array`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ArrayData {
    /// `UINT8` elements.
    U8(Vec<u8>),
    /// `FP32` elements.
    F32(Vec<f32>),
}

impl ArrayData {
    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// How many bytes the elements take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::U8(values) => size_of_val(values.as_slice()),
            Self::F32(values) => size_of_val(values.as_slice()),
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The Open Inference Protocol's name of the element type.
    #[must_use]
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::U8(_) => "UINT8",
            Self::F32(_) => "FP32",
        }
    }
}

impl Input {
    /// How many bytes there are to look at, a measure of the work that preparing takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Array(array) => array.data.bytes(),
        }
    }

    /// What this input is, in the words of an error message.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Array(_) => "an array",
        }
    }
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Array> for Input {
    fn from(array: Array) -> Self {
        Self::Array(array)
    }
}

/// What to do with a text of more tokens than the model can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncation {
    /// Keep the first tokens, as Hugging Face pipelines do, and say so in the answer.
    #[default]
    Truncate,
    /// Answer [`InputError::TooLong`](crate::InputError::TooLong).
    Refuse,
}
