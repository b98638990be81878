//! Embeddings in other element types than `FP32`, with the numbers that `quantize_embeddings` of sentence-transformers
//! gives.

use std::fmt;
use std::str::FromStr;

use half::f16;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::{EMBEDDING, Output, TOKEN_EMBEDDINGS};
use crate::{Datatype, InputError, OutputElements};

/// The element type of embeddings in an answer, by the names of sentence-transformers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutputDtype {
    /// `float32`: as computed.
    #[default]
    Float32,
    /// `float16`: the nearest 16-bit float.
    Float16,
    /// `int8`: `uint8` less 128.
    Int8,
    /// `uint8`: the range −1…1, which holds all embeddings of length 1, cut into 255 equal steps: ⌊(x + 1) · 255 / 2⌋.
    Uint8,
    /// `binary`: `ubinary` less 128.
    Binary,
    /// `ubinary`: a bit for each element, set if it is above 0, eight in a byte. The first element is the highest bit of the
    /// first byte; zeros fill up the last byte.
    Ubinary,
}

impl OutputDtype {
    /// All element types.
    pub const ALL: [Self; 6] = [Self::Float32, Self::Float16, Self::Int8, Self::Uint8, Self::Binary, Self::Ubinary];

    /// The name in requests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
        }
    }
}

impl fmt::Display for OutputDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for OutputDtype {
    type Err = UnknownOutputDtype;

    fn from_str(name: &str) -> Result<Self, UnknownOutputDtype> {
        let is_named = |dtype: &Self| dtype.name() == name;
        Self::ALL.into_iter().find(is_named).ok_or_else(|| UnknownOutputDtype { name: name.to_owned() })
    }
}

/// The error for a name that no element type has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "output_dtype '{}' is not known; known are: {}",
    crate::excerpt(name),
    OutputDtype::ALL.map(OutputDtype::name).join(", ")
)]
pub struct UnknownOutputDtype {
    /// The name that was given.
    pub name: String,
}

/// An embedding, or the vectors of a text's tokens, in another element type than `FP32`. As JSON its elements are numbers,
/// those of bits the numbers of their bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvertedEmbedding {
    /// The element type that was asked for.
    pub dtype: OutputDtype,
    /// The elements; of the vectors of tokens end to end.
    pub elements: ConvertedElements,
    /// Elements of the vector of each token; `None` if there is one vector for the whole text.
    pub token_width: Option<usize>,
}

/// The elements of a [`ConvertedEmbedding`].
#[derive(Debug, Clone, PartialEq)]
pub enum ConvertedElements {
    /// Elements of [`OutputDtype::Float16`].
    F16(Vec<f16>),
    /// Elements of [`OutputDtype::Int8`] and [`OutputDtype::Binary`].
    I8(Vec<i8>),
    /// Elements of [`OutputDtype::Uint8`] and [`OutputDtype::Ubinary`].
    U8(Vec<u8>),
}

impl Output {
    /// The same answer with the elements of its embeddings in another type; every other answer as it is.
    ///
    /// # Errors
    /// [`InputError::Unrepresentable`] if the element type does not hold an element: `int8` and `uint8` hold those of
    /// vectors of length 1.
    pub fn converted(self, dtype: OutputDtype) -> Result<Self, InputError> {
        match self {
            output if dtype == OutputDtype::Float32 => Ok(output),
            Self::Embedding(values) => {
                let elements = ConvertedElements::of(&values, values.len(), dtype)?;
                Ok(Self::Converted(ConvertedEmbedding { dtype, elements, token_width: None }))
            }
            Self::TokenVectors(vectors) => {
                let elements = ConvertedElements::of(&vectors.values, vectors.dimensions, dtype)?;
                let token_width = Some(elements.len() / vectors.tokens().max(1));
                Ok(Self::Converted(ConvertedEmbedding { dtype, elements, token_width }))
            }
            output => Ok(output),
        }
    }
}

/// More than rounding puts an element of a vector of length 1 beyond 1.
const ROUNDING: f32 = 1e-5;

impl ConvertedElements {
    /// Converts vectors of `width` elements that lie end to end.
    fn of(values: &[f32], width: usize, dtype: OutputDtype) -> Result<Self, InputError> {
        let max = match dtype {
            OutputDtype::Float16 => f32::from(f16::MAX),
            OutputDtype::Int8 | OutputDtype::Uint8 => 1.0 + ROUNDING,
            OutputDtype::Float32 | OutputDtype::Binary | OutputDtype::Ubinary => f32::INFINITY,
        };
        if let Some(value) = values.iter().find(|value| value.abs() > max) {
            return Err(InputError::Unrepresentable { dtype: dtype.name(), value: value.to_string() });
        }
        let vectors = values.chunks(width.max(1));
        Ok(match dtype {
            OutputDtype::Float32 | OutputDtype::Float16 => {
                Self::F16(values.iter().map(|value| f16::from_f32(*value)).collect())
            }
            OutputDtype::Uint8 => Self::U8(values.iter().map(|value| step(*value)).collect()),
            OutputDtype::Int8 => Self::I8(values.iter().map(|value| less_128(step(*value))).collect()),
            OutputDtype::Ubinary => Self::U8(vectors.flat_map(bits).collect()),
            OutputDtype::Binary => Self::I8(vectors.flat_map(bits).map(less_128).collect()),
        })
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F16(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::U8(values) => values.len(),
        }
    }

    /// True if there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type in the protocol.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        match self {
            Self::F16(_) => Datatype::Fp16,
            Self::I8(_) => Datatype::Int8,
            Self::U8(_) => Datatype::Uint8,
        }
    }

    /// The elements as floats, which hold them all.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F16(values) => values.iter().map(|value| value.to_f32()).collect(),
            Self::I8(values) => values.iter().map(|value| f32::from(*value)).collect(),
            Self::U8(values) => values.iter().map(|value| f32::from(*value)).collect(),
        }
    }
}

/// The number of the step of −1…1 that holds an element, in the arithmetic of sentence-transformers.
fn step(value: f32) -> u8 {
    let step = ((value + 1.0) / (2.0_f32 / 255.0)).floor().clamp(0.0, 255.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a whole number from 0 to 255")]
    let step = step as u8;
    step
}

fn less_128(byte: u8) -> i8 {
    (byte ^ 0x80).cast_signed()
}

/// The bytes of a vector's bits.
fn bits(vector: &[f32]) -> impl Iterator<Item = u8> {
    let bit = |(at, value): (usize, &f32)| u8::from(*value > 0.0) << (7 - at);
    vector.chunks(8).map(move |eight| eight.iter().enumerate().map(bit).sum())
}

impl ConvertedEmbedding {
    /// The name of the tensor that carries it.
    pub(super) fn tensor_name(&self) -> &'static str {
        if self.token_width.is_some() { TOKEN_EMBEDDINGS } else { EMBEDDING }
    }

    /// The number of tokens that have a vector each; `None` if there is one vector for the whole text.
    #[must_use]
    pub fn tokens(&self) -> Option<usize> {
        self.token_width.map(|width| self.elements.len() / width.max(1))
    }

    pub(super) fn output_elements(&self) -> OutputElements<'_> {
        match &self.elements {
            ConvertedElements::F16(values) => OutputElements::F16(values),
            ConvertedElements::I8(values) => OutputElements::I8(values),
            ConvertedElements::U8(values) => OutputElements::U8(values),
        }
    }
}

impl Serialize for ConvertedEmbedding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn object<T: Serialize, S: Serializer>(
            name: &str,
            elements: &[T],
            width: Option<usize>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            let mut object = serializer.serialize_map(Some(1))?;
            match width {
                Some(width) => object.serialize_entry(name, &elements.chunks(width.max(1)).collect::<Vec<_>>())?,
                None => object.serialize_entry(name, elements)?,
            }
            object.end()
        }
        let (name, width) = (self.tensor_name(), self.token_width);
        match &self.elements {
            ConvertedElements::F16(_) => object(name, &self.elements.to_f32(), width, serializer),
            ConvertedElements::I8(values) => object(name, values, width, serializer),
            ConvertedElements::U8(values) => object(name, values, width, serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::TokenVectors;

    /// Vectors of `tests/families/converted.json`, with each of the types that sentence-transformers converted them to.
    fn cases() -> Vec<(Vec<f32>, Value)> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/families/converted.json");
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let vector = |case: &Value| serde_json::from_value(case["vector"].clone()).unwrap();
        cases.into_iter().map(|case| (vector(&case), case)).collect()
    }

    #[test]
    fn each_element_type_has_the_numbers_of_sentence_transformers() {
        for (vector, case) in cases() {
            for dtype in OutputDtype::ALL {
                let output = Output::Embedding(vector.clone()).converted(dtype).unwrap();
                let expected: Vec<f32> = serde_json::from_value(case[dtype.name()].clone()).unwrap();
                assert_eq!(*output.numbers(), expected, "{dtype} of {vector:?}");
                let tokens = TokenVectors { dimensions: vector.len(), values: vector.repeat(2) };
                let tokens = Output::TokenVectors(tokens).converted(dtype).unwrap();
                assert_eq!(*tokens.numbers(), expected.repeat(2), "{dtype} of {vector:?} twice");
            }
        }
        assert!(cases().len() >= 8);
    }

    #[test]
    fn answers_are_numbers_in_json_and_have_the_datatype_of_their_elements() {
        let convert = |output: Output, dtype| {
            let output = output.converted(dtype).unwrap();
            (serde_json::to_string(&output).unwrap(), output)
        };
        let embedding = || Output::Embedding(vec![0.5, -0.25, 1.0]);
        let (json, output) = convert(embedding(), OutputDtype::Int8);
        assert_eq!(json, r#"{"embedding":[63,-33,126]}"#);
        assert_eq!(output.tensor(EMBEDDING), Some(OutputElements::I8(&[63, -33, 126])));
        assert_eq!((output.tensor(TOKEN_EMBEDDINGS), output.embedding()), (None, None));
        assert_eq!(convert(embedding(), OutputDtype::Float16).0, r#"{"embedding":[0.5,-0.25,1.0]}"#);
        assert_eq!(convert(embedding(), OutputDtype::Ubinary).0, r#"{"embedding":[160]}"#);
        let tokens = Output::TokenVectors(TokenVectors { dimensions: 2, values: vec![1.0, -1.0, -1.0, 1.0] });
        let (json, output) = convert(tokens, OutputDtype::Binary);
        assert_eq!(json, r#"{"token_embeddings":[[0],[-64]]}"#);
        assert_eq!(output.tensor(super::super::TOKENS), Some(OutputElements::I32(vec![2])));
    }

    #[test]
    fn an_element_that_the_type_does_not_hold_is_an_error_with_its_value() {
        for (dtype, value, fine) in [
            (OutputDtype::Int8, 1.5, 1.000_001),
            (OutputDtype::Uint8, -3.25, -1.0),
            (OutputDtype::Float16, 70_000.0, 65_504.0),
        ] {
            let convert = |value| Output::Embedding(vec![0.0, value]).converted(dtype);
            assert!(convert(fine).is_ok(), "{dtype}");
            let refused = convert(value).unwrap_err().to_string();
            assert!(refused.contains(dtype.name()) && refused.contains(&value.to_string()), "{refused}");
            assert!(refused.contains("normalize"), "{refused}");
        }
    }

    #[test]
    fn names_are_those_of_the_library_and_others_are_refused_with_them() {
        for dtype in OutputDtype::ALL {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        let refused = "int4".parse::<OutputDtype>().unwrap_err().to_string();
        let known = "float32, float16, int8, uint8, binary, ubinary";
        assert_eq!(refused, format!("output_dtype 'int4' is not known; known are: {known}"));
    }
}
