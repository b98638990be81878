//! The numbers of an embedding in the element type that was asked for.

use std::borrow::Cow;

use sconce::{ConvertedElements, Output};
use serde::Serialize;

/// Numbers, as JSON a list.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Numbers<'a> {
    F32(Cow<'a, [f32]>),
    I8(&'a [i8]),
    U8(&'a [u8]),
    #[serde(serialize_with = "as_f32")]
    F16(&'a ConvertedElements),
}

impl<'a> Numbers<'a> {
    /// The numbers of an output.
    pub(crate) fn of(output: &'a Output) -> Self {
        match output.converted_embedding().map(|converted| &converted.elements) {
            Some(ConvertedElements::I8(values)) => Self::I8(values),
            Some(ConvertedElements::U8(values)) => Self::U8(values),
            Some(elements) => Self::F16(elements),
            None => Self::F32(output.numbers()),
        }
    }

    /// Little-endian bytes of all numbers.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I8(values) => values.iter().map(|value| value.cast_unsigned()).collect(),
            Self::U8(values) => values.to_vec(),
            Self::F16(ConvertedElements::F16(values)) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16(elements) => elements.to_f32().iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn as_f32<S: serde::Serializer>(elements: &&ConvertedElements, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(elements.to_f32().iter())
}
