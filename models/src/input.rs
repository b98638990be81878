//! Inputs. All properties of a kind of input are in this file: the tensors that carry it, its bytes in a cache's key,
//! its form in a file, a sample. A new kind is an arm of each `match` in this file, and a family that takes it.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::pixels::{self, PixelsError};
use crate::tensor::{Datatype, Elements, InputKey, InputTensor};
use crate::{CONTENT_INPUT, IMAGE_INPUT, TEXT_INPUT};

/// The name of a pair's second text in requests, as in Hugging Face's tokenizers.
pub const TEXT_PAIR_INPUT: &str = "text_pair";

/// The input of one item. A model's [`Signature`](crate::Signature) states the kind that it takes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Input {
    /// A text, for models that tokenise.
    Text(String),
    /// Two texts that are read together, such as a query and a passage.
    Pair(Box<[Input; 2]>),
    /// A text with another before it, such as an instruction that a model was trained with, instead of the one that the model
    /// puts there itself.
    Prompted {
        /// The text that comes first; empty for none.
        prompt: String,
        /// The input.
        text: Box<Input>,
    },
    /// The content of a file, or a BYTES element of a request; must be UTF-8 for models that read text.
    Bytes(Vec<u8>),
    /// Numbers of tokens of the model's own tokenizer, read as they are: no special token and no prompt is added.
    Tokens(Vec<u32>),
    /// A dense array without a batch dimension, such as an image of shape `[channels, height, width]`.
    Array(Array),
}

/// The kind and bounds of an input.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum InputKind {
    /// UTF-8 text.
    Text {
        /// Most tokens, special tokens included.
        max_tokens: usize,
    },
    /// One text, or two texts that are read together; a line of a file is one text.
    #[serde(rename = "text_or_pair")]
    TextOrPair {
        /// Most tokens, of both texts together if there are two, special tokens included.
        max_tokens: usize,
    },
    /// Two texts that are read together, or one text.
    Pair {
        /// Most tokens of both texts together, special tokens included.
        max_tokens: usize,
    },
    /// The content of any file, not empty.
    Content,
    /// An image as `UINT8` or `FP32` pixels of the same range.
    Image {
        /// Channels, height, width.
        shape: [usize; 3],
    },
}

/// An error in a line or a file: its content is not in the form of the model's kind of input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// An image that is not an array of numbers.
    #[error(transparent)]
    Pixels(#[from] PixelsError),
    /// A pair that is not an array of two strings.
    #[error("not a pair of texts: {0}; give a JSON array of two strings, for instance [\"a query\", \"a passage\"]")]
    Pair(String),
}

/// The way in which inputs are written in files; [`InputKind::parse`] reads each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// A line of text.
    Line,
    /// A line of JSON.
    Json {
        /// The value in words: `an array of numbers`.
        what: &'static str,
    },
    /// The whole file.
    File,
}

impl InputKind {
    /// The tensors that carry inputs of this kind; the first is named `name`.
    #[must_use]
    pub fn tensors(&self, name: &'static str) -> Vec<InputTensor> {
        let of = |name, datatypes, shape| InputTensor { name, datatypes, shape, optional: false };
        match self {
            Self::Text { .. } => vec![of(name, &[Datatype::Bytes], None)],
            Self::TextOrPair { .. } | Self::Pair { .. } => {
                let second = of(TEXT_PAIR_INPUT, &[Datatype::Bytes], None);
                vec![of(name, &[Datatype::Bytes], None), InputTensor { optional: true, ..second }]
            }
            Self::Content => vec![of(name, &[Datatype::Bytes, Datatype::Uint8], None)],
            Self::Image { shape } => vec![of(name, &[Datatype::Uint8, Datatype::Fp32], Some(shape.to_vec()))],
        }
    }

    /// Splits tensors, in the order of [`tensors`](Self::tensors) and each with the elements of `items` items, into
    /// inputs. An optional tensor may be missing.
    #[must_use]
    pub fn inputs(&self, tensors: Vec<Elements>, items: usize) -> Vec<Input> {
        let mut tensors = tensors.into_iter().map(|elements| self.split(elements, items));
        let first = tensors.next().unwrap_or_default();
        match tensors.next() {
            Some(second) => first.into_iter().zip(second).map(|(a, b)| Input::Pair(Box::new([a, b]))).collect(),
            None => first,
        }
    }

    /// Splits one tensor into items.
    fn split(&self, elements: Elements, items: usize) -> Vec<Input> {
        let shape = |length: usize| match self {
            Self::Image { shape } => shape.to_vec(),
            Self::Text { .. } | Self::TextOrPair { .. } | Self::Pair { .. } | Self::Content => vec![length],
        };
        let array = |length, data| Input::Array(Array { shape: shape(length), data });
        match elements {
            Elements::Bytes(elements) => elements.into_iter().map(Input::Bytes).collect(),
            // A single item is moved, not copied.
            Elements::U8(values) if items == 1 => vec![array(values.len(), ArrayData::U8(values))],
            Elements::F32(values) if items == 1 => vec![array(values.len(), ArrayData::F32(values))],
            Elements::U8(values) => {
                let length = (values.len() / items.max(1)).max(1);
                values.chunks_exact(length).map(|item| array(length, ArrayData::U8(item.to_vec()))).collect()
            }
            Elements::F32(values) => {
                let length = (values.len() / items.max(1)).max(1);
                values.chunks_exact(length).map(|item| array(length, ArrayData::F32(item.to_vec()))).collect()
            }
        }
    }

    /// Reads an input from the bytes of a line or a file: text and content as they are, a pair and an image as JSON. Where a
    /// pair could stand, a line that does not begin with `[` is one text.
    ///
    /// # Errors
    /// [`ParseError`] says what form such an input must have.
    pub fn parse(&self, written: Vec<u8>) -> Result<Input, ParseError> {
        match self {
            // The model's processor checks that bytes are UTF-8, with an error of its own.
            Self::Text { .. } | Self::TextOrPair { .. } | Self::Content => Ok(Input::Bytes(written)),
            Self::Pair { .. } if !written.trim_ascii_start().starts_with(b"[") => Ok(Input::Bytes(written)),
            Self::Pair { .. } => {
                let texts: Vec<Value> =
                    serde_json::from_slice(&written).map_err(|cause| ParseError::Pair(cause.to_string()))?;
                match &texts[..] {
                    [Value::String(first), Value::String(second)] => Ok((&**first, &**second).into()),
                    [_, _] => Err(ParseError::Pair("an array of two values that are not both strings".to_owned())),
                    other => Err(ParseError::Pair(format!("an array of length {}", other.len()))),
                }
            }
            Self::Image { shape } => Ok(Input::Array(pixels::parse(&written, shape)?)),
        }
    }

    /// The way in which an input of this kind is written in a file.
    #[must_use]
    pub fn written(&self) -> Written {
        match self {
            Self::Text { .. } | Self::TextOrPair { .. } => Written::Line,
            Self::Pair { .. } => Written::Json { what: "an array of two strings" },
            Self::Image { .. } => Written::Json { what: "an array of numbers" },
            Self::Content => Written::File,
        }
    }

    /// A made-up input, of about `tokens` tokens for kinds that are tokenised.
    #[must_use]
    pub fn sample(&self, tokens: usize) -> Input {
        // A common word is one token in most vocabularies; two tokens are special.
        let text = |tokens: usize| Input::from("the ".repeat(tokens.saturating_sub(2).max(1)).trim_end());
        match self {
            Self::Text { .. } | Self::TextOrPair { .. } => text(tokens),
            Self::Pair { .. } => Input::Pair(Box::new([text(tokens / 2), text(tokens / 2)])),
            Self::Content => Input::Bytes(b"fn main() { println!(\"a sconce holds candles\"); }\n".repeat(40)),
            Self::Image { shape } => {
                let pixels = (0..17).cycle().step_by(7).take(shape.iter().product()).collect();
                Input::Array(Array { shape: shape.to_vec(), data: ArrayData::U8(pixels) })
            }
        }
    }

    /// Most tokens of an input, special tokens included; `None` for kinds that are not tokenised.
    #[must_use]
    pub fn max_tokens(&self) -> Option<usize> {
        match self {
            Self::Text { max_tokens } | Self::TextOrPair { max_tokens } | Self::Pair { max_tokens } => {
                Some(*max_tokens)
            }
            Self::Content | Self::Image { .. } => None,
        }
    }

    /// The default name of the first tensor in requests.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Text { .. } | Self::TextOrPair { .. } | Self::Pair { .. } => TEXT_INPUT,
            Self::Content => CONTENT_INPUT,
            Self::Image { .. } => IMAGE_INPUT,
        }
    }
}

impl fmt::Display for InputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { max_tokens } => write!(f, "text, to {max_tokens} tokens"),
            Self::TextOrPair { max_tokens } => write!(f, "text or pair of texts, to {max_tokens} tokens"),
            Self::Pair { max_tokens } => write!(f, "pair of texts or text, to {max_tokens} tokens"),
            Self::Content => f.write_str("content of a file"),
            Self::Image { shape: [channels, height, width] } => write!(f, "image {channels}×{height}×{width}"),
        }
    }
}

impl Input {
    /// This input's part of a cache key, for a model that takes inputs of `kind`.
    #[must_use]
    pub fn key<'a>(&'a self, kind: &InputKind) -> InputKey<'a> {
        let key = |name, datatype, shape: Cow<'a, [usize]>, bytes| InputKey { name, datatype, shape, bytes };
        let none: &[usize] = &[];
        match self {
            Self::Text(text) => key("text", Datatype::Bytes, none.into(), text.as_bytes().into()),
            Self::Bytes(bytes) => {
                // A text has one key, whether it came as a string or, over the wire, as bytes.
                let name = match kind {
                    InputKind::Text { .. } | InputKind::TextOrPair { .. } | InputKind::Pair { .. } => "text",
                    InputKind::Content | InputKind::Image { .. } => "bytes",
                };
                key(name, Datatype::Bytes, none.into(), bytes.into())
            }
            Self::Pair(pair) => {
                let parts = pair.each_ref().map(|input| input.key(kind).part());
                key("pair", Datatype::Bytes, none.into(), parts.concat().into())
            }
            Self::Prompted { prompt, text } => {
                let prompt = key("prompt", Datatype::Bytes, none.into(), prompt.as_bytes().into()).part();
                let parts = [prompt, text.key(kind).part()];
                key("prompted", Datatype::Bytes, none.into(), parts.concat().into())
            }
            Self::Tokens(ids) => {
                let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
                key("tokens", Datatype::Int32, none.into(), bytes.into())
            }
            Self::Array(Array { shape, data: ArrayData::U8(bytes) }) => {
                key("array", Datatype::Uint8, shape.into(), bytes.into())
            }
            Self::Array(Array { shape, data: ArrayData::F32(data) }) => {
                let bytes: Vec<u8> = data.iter().flat_map(|element| element.to_le_bytes()).collect();
                key("array", Datatype::Fp32, shape.into(), bytes.into())
            }
        }
    }

    /// Bytes of the input, a measure of the work to prepare it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Pair(pair) => pair.iter().map(Self::bytes).sum(),
            Self::Prompted { prompt, text } => prompt.len() + text.bytes(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Tokens(ids) => size_of_val(ids.as_slice()),
            Self::Array(array) => array.data.bytes(),
        }
    }

    /// The same input with a text before it, instead of the one that the model puts there itself.
    #[must_use]
    pub fn with_prompt(self, prompt: impl Into<String>) -> Self {
        Self::Prompted { prompt: prompt.into(), text: Box::new(self) }
    }

    /// The kind of this input, worded for error messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Pair(_) => "a pair of texts",
            Self::Prompted { .. } => "a text with a prompt",
            Self::Bytes(_) => "bytes",
            Self::Tokens(_) => "numbers of tokens",
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

impl From<(&str, &str)> for Input {
    fn from((first, second): (&str, &str)) -> Self {
        Self::Pair(Box::new([first.into(), second.into()]))
    }
}

impl From<(String, String)> for Input {
    fn from((first, second): (String, String)) -> Self {
        Self::Pair(Box::new([first.into(), second.into()]))
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

/// A dense row-major array.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dimensions, outermost first, without a batch dimension.
    pub shape: Vec<usize>,
    /// The elements, `shape.iter().product()` of them.
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
    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Bytes that the elements take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::U8(values) => size_of_val(values.as_slice()),
            Self::F32(values) => size_of_val(values.as_slice()),
        }
    }

    /// True if there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type's name in the Open Inference Protocol.
    #[must_use]
    pub fn dtype(&self) -> &'static str {
        match self {
            Self::U8(_) => Datatype::Uint8.name(),
            Self::F32(_) => Datatype::Fp32.name(),
        }
    }
}

/// The treatment of a text with more tokens than the model can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncation {
    /// Keep the first tokens (or the last, if the tokenizer truncates on the left), and say so in the answer.
    #[default]
    Truncate,
    /// Refuse the text with [`InputError::TooLong`](crate::InputError::TooLong).
    Refuse,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [InputKind; 5] = [
        InputKind::Text { max_tokens: 8 },
        InputKind::TextOrPair { max_tokens: 8 },
        InputKind::Pair { max_tokens: 8 },
        InputKind::Content,
        InputKind::Image { shape: [1, 2, 2] },
    ];

    #[test]
    fn what_tensors_carry_is_what_was_put_into_them() {
        let bytes = |text: &str| Input::Bytes(text.as_bytes().to_vec());
        let strings = |texts: [&str; 2]| Elements::Bytes(texts.map(|text| text.as_bytes().to_vec()).into());
        let [text, either, pair, content, image] = KINDS;
        assert_eq!(text.inputs(vec![strings(["a", "b"])], 2), [bytes("a"), bytes("b")]);
        let pairs = pair.inputs(vec![strings(["a", "b"]), strings(["c", "d"])], 2);
        let expected = [["a", "c"], ["b", "d"]].map(|pair| Input::Pair(Box::new(pair.map(bytes))));
        assert_eq!(pairs, expected);
        assert_eq!(either.inputs(vec![strings(["a", "b"]), strings(["c", "d"])], 2), expected);
        assert_eq!(either.inputs(vec![strings(["a", "b"])], 2), [bytes("a"), bytes("b")]);
        let array = |shape: &[usize], data| Input::Array(Array { shape: shape.to_vec(), data });
        let files = content.inputs(vec![Elements::U8(vec![1, 2, 3, 4])], 2);
        assert_eq!(files, [vec![1, 2], vec![3, 4]].map(|data| array(&[2], ArrayData::U8(data))));
        let images = image.inputs(vec![Elements::F32(vec![0.5; 4])], 1);
        assert_eq!(images, [array(&[1, 2, 2], ArrayData::F32(vec![0.5; 4]))]);
        for kind in KINDS {
            let names: Vec<_> = kind.tensors(kind.name()).into_iter().map(|tensor| tensor.name).collect();
            assert_eq!(names[0], kind.name());
            let has_two = matches!(kind, InputKind::Pair { .. } | InputKind::TextOrPair { .. });
            assert_eq!(names.len(), 1 + usize::from(has_two));
        }
    }

    #[test]
    fn inputs_that_differ_have_keys_that_differ() {
        let [text, _, pair, content, _] = KINDS;
        let array = |shape: &[usize]| Array { shape: shape.to_vec(), data: ArrayData::U8(b"ab".to_vec()) };
        let inputs: [(Input, &InputKind); 16] = [
            ("ab".into(), &text),
            (("a", "b").into(), &pair),
            (("ab", "").into(), &pair),
            (("", "ab").into(), &pair),
            // Refused by every model, and never found under the key of another.
            (Input::Pair(Box::new([("a", "b").into(), "".into()])), &pair),
            (Input::Pair(Box::new([array(&[2]).into(), "".into()])), &pair),
            (Input::from("ab").with_prompt(""), &text),
            (Input::from("b").with_prompt("a"), &text),
            (Input::from("").with_prompt("ab"), &text),
            (Input::from("b").with_prompt("").with_prompt("a"), &text),
            (Input::from("ab").with_prompt("a"), &text),
            (Input::Tokens(vec![7, 8]), &text),
            (Input::Tokens(vec![7]), &text),
            (b"ab".to_vec().into(), &content),
            (array(&[2]).into(), &content),
            (array(&[2, 1]).into(), &content),
        ];
        let keys = inputs.each_ref().map(|(input, kind)| input.key(kind));
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{key:?}");
        }
        assert_eq!(Input::from("ab").key(&text), Input::Bytes(b"ab".to_vec()).key(&text));
    }

    #[test]
    fn each_kind_is_read_as_it_is_written() {
        let [text, either, pair, content, image] = KINDS;
        let parse = |kind: &InputKind, written: &str| kind.parse(written.as_bytes().to_vec());
        assert_eq!(parse(&text, "a text"), Ok(Input::Bytes(b"a text".to_vec())));
        assert_eq!(parse(&either, "[\"a\", \"b\"]"), Ok(Input::Bytes(b"[\"a\", \"b\"]".to_vec())));
        assert_eq!(parse(&content, "a file"), Ok(Input::Bytes(b"a file".to_vec())));
        assert_eq!(parse(&pair, r#"["a query", "a passage"]"#), Ok(("a query", "a passage").into()));
        let pixels = Array { shape: vec![1, 2, 2], data: ArrayData::F32(vec![0.0, 1.0, 2.0, 3.0]) };
        assert_eq!(parse(&image, "[[0, 1], [2, 3]]"), Ok(pixels.into()));
        assert_eq!(parse(&pair, "one text"), Ok(Input::Bytes(b"one text".to_vec())));
        for written in [r#"["a", "b""#, r#"["a", 1]"#, r#"["a", "b", "c"]"#, r#" ["a", "b"] x"#] {
            assert!(matches!(parse(&pair, written), Err(ParseError::Pair(_))), "{written}");
        }
        let refused = parse(&pair, r#"["one"]"#).unwrap_err().to_string();
        assert!(refused.contains("not a pair of texts") && refused.contains("JSON array of two strings"), "{refused}");
    }

    #[test]
    fn kinds_are_listed_as_they_were() {
        let json = KINDS.map(|kind| serde_json::to_value(kind).unwrap().to_string());
        assert_eq!(json[0], r#"{"kind":"text","max_tokens":8}"#);
        assert_eq!(json[1], r#"{"kind":"text_or_pair","max_tokens":8}"#);
        assert_eq!(json[3], r#"{"kind":"content"}"#);
        assert_eq!(json[4], r#"{"kind":"image","shape":[1,2,2]}"#);
    }
}
