//! Requests as JSON: their tensors, parameters and wanted outputs.

use std::fmt;

use sconce::{Datatype, Elements};
use sconce_server::{
    Charge, NumberType, ParameterMap, ParameterValue, RequestError, SentDatatype, SentNumber, TensorLayout,
};
use serde::de::{DeserializeOwned, DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::body::charge_values;

/// The body of `infer`, or the part of it before binary tensors.
#[derive(Debug, Deserialize)]
pub(crate) struct InferRequestJson {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) parameters: JsonParameters,
    pub(crate) inputs: Vec<InputJson>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) outputs: Vec<OutputJson>,
}

/// An input tensor.
#[derive(Debug, Deserialize)]
pub(crate) struct InputJson {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) datatype: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) parameters: JsonParameters,
    /// `None` if the elements are behind the JSON.
    #[serde(default)]
    pub(crate) data: Option<JsonElements>,
}

/// An output that is asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct OutputJson {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) parameters: JsonParameters,
}

/// Reads a value, and the default from null, which pydantic writes for a field that is not set.
fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads JSON, whose memory counts among that of the request.
pub(crate) fn read(json: &[u8], charge: Option<&Charge>) -> Result<InferRequestJson, RequestError> {
    if let Some(charge) = charge {
        charge_values(json, charge)?;
    }
    serde_json::from_slice(json)
        .map_err(|error| RequestError::Malformed { expected: "inference request", message: error.to_string() })
}

/// Parameters as JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct JsonParameters(pub(crate) Map<String, Value>);

impl ParameterMap for JsonParameters {
    fn get(&self, name: &str) -> Option<ParameterValue<'_>> {
        let value = self.0.get(name)?;
        Some(match value {
            Value::Bool(value) => ParameterValue::Bool(*value),
            Value::String(text) => ParameterValue::Text(text),
            Value::Number(number) => match (number.as_i128(), number.as_f64()) {
                (Some(whole), _) => ParameterValue::Integer(whole),
                (None, Some(number)) => ParameterValue::Number(number),
                (None, None) => ParameterValue::Unset,
            },
            Value::Null | Value::Array(_) | Value::Object(_) => ParameterValue::Unset,
        })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The elements of a tensor in row-major order, flat or nested.
#[derive(Debug, Default, PartialEq)]
pub(crate) enum JsonElements {
    /// No element.
    #[default]
    None,
    Whole(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<Vec<u8>>),
    Bools(Vec<bool>),
}

impl JsonElements {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Whole(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Texts(texts) => texts.len(),
            Self::Bools(values) => values.len(),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::None => "no elements",
            Self::Whole(_) => "whole numbers",
            Self::Floats(_) => "numbers with fractions",
            Self::Texts(_) => "strings",
            Self::Bools(_) => "bools",
        }
    }

    /// Converts the elements to those of `layout`.
    pub(crate) fn elements(self, layout: TensorLayout) -> Result<Elements, RequestError> {
        layout.check_count(self.len())?;
        match (layout.sent, self) {
            (SentDatatype::Bytes, Self::Texts(texts)) => Ok(Elements::Bytes(texts)),
            (SentDatatype::Number(NumberType::Fp32), Self::Floats(values)) if layout.datatype == Datatype::Fp32 => {
                Ok(Elements::F32(values.into_iter().map(nearest).collect()))
            }
            (SentDatatype::Number(NumberType::Fp32), Self::Whole(values)) if layout.datatype == Datatype::Fp32 => {
                Ok(Elements::F32(values.into_iter().map(|value| value as f32).collect()))
            }
            (SentDatatype::Number(NumberType::Fp32 | NumberType::Fp64), Self::Floats(values)) => {
                layout.numbers(values.into_iter().map(SentNumber::Double))
            }
            (SentDatatype::Number(_), Self::Whole(values)) => {
                layout.numbers(values.into_iter().map(|value| SentNumber::Whole(value.into())))
            }
            (SentDatatype::Number(_), Self::Bools(values)) => {
                layout.numbers(values.into_iter().map(|value| SentNumber::Whole(value.into())))
            }
            (sent_as, other) => Err(RequestError::WrongContents {
                name: layout.name,
                field: other.kind(),
                datatype: layout.sent.name(),
                expected: if sent_as == SentDatatype::Bytes { "strings" } else { "numbers of that type" },
            }),
        }
    }

    fn push<E: Error>(&mut self, element: JsonElement) -> Result<(), E> {
        if let (Self::None, element) = (&*self, &element) {
            *self = match element {
                JsonElement::Whole(_) => Self::Whole(Vec::new()),
                JsonElement::Float(_) => Self::Floats(Vec::new()),
                JsonElement::Text(_) => Self::Texts(Vec::new()),
                JsonElement::Bool(_) => Self::Bools(Vec::new()),
            };
        }
        if let (Self::Whole(values), JsonElement::Float(_)) = (&mut *self, &element) {
            *self = Self::Floats(std::mem::take(values).into_iter().map(|value| value as f64).collect());
        }
        match (self, element) {
            (Self::Whole(values), JsonElement::Whole(value)) => values.push(value),
            (Self::Floats(values), JsonElement::Float(value)) => values.push(value),
            (Self::Floats(values), JsonElement::Whole(value)) => values.push(value as f64),
            (Self::Texts(texts), JsonElement::Text(text)) => texts.push(text),
            (Self::Bools(values), JsonElement::Bool(value)) => values.push(value),
            (all, _) => return Err(E::custom(format_args!("another value among {}", all.kind()))),
        }
        Ok(())
    }
}

/// The nearest float of 32 bits, as a reader of JSON takes it.
#[expect(clippy::cast_possible_truncation, reason = "rounded to the nearest")]
fn nearest(value: f64) -> f32 {
    value as f32
}

/// One element.
enum JsonElement {
    Whole(i64),
    Float(f64),
    Text(Vec<u8>),
    Bool(bool),
}

impl<'de> Deserialize<'de> for JsonElements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::None;
        deserializer.deserialize_seq(Flat(&mut all))?;
        Ok(all)
    }
}

/// Adds the elements of an array, and of arrays within it, to a tensor.
struct Flat<'a>(&'a mut JsonElements);

impl<'de> DeserializeSeed<'de> for Flat<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flat<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers, strings or bools, flat or nested")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(Flat(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.0.push(JsonElement::Whole(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        let too_large = |_| E::custom(format_args!("the number {value} is too large"));
        self.0.push(JsonElement::Whole(i64::try_from(value).map_err(too_large)?))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.push(JsonElement::Float(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.push(JsonElement::Text(text.as_bytes().to_vec()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.0.push(JsonElement::Bool(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(json: &str) -> Result<JsonElements, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn elements_are_read_flat_and_nested_and_of_one_kind() {
        assert_eq!(elements("[[1, 2], [3, -4]]"), Ok(JsonElements::Whole(vec![1, 2, 3, -4])));
        assert_eq!(elements("[1, 2.5, 3]"), Ok(JsonElements::Floats(vec![1.0, 2.5, 3.0])));
        assert_eq!(elements(r#"[["é"], [""]]"#), Ok(JsonElements::Texts(vec!["é".into(), Vec::new()])));
        assert_eq!(elements("[true]"), Ok(JsonElements::Bools(vec![true])));
        assert_eq!(elements("[]"), Ok(JsonElements::None));
        for (json, message) in [
            (r#"[1, "a"]"#, "another value among whole numbers"),
            ("[18446744073709551615]", "the number 18446744073709551615 is too large"),
            ("[null]", "invalid type: null, expected an array of numbers, strings or bools, flat or nested"),
            ("7", "invalid type: integer `7`, expected an array of numbers, strings or bools, flat or nested"),
        ] {
            let error = elements(json).unwrap_err();
            assert!(error.starts_with(message), "{json}: {error}");
        }
        assert!(elements(&"[".repeat(100_000)).unwrap_err().contains("recursion limit"));
    }

    fn converted(json: &str, number: NumberType, datatype: Datatype) -> Result<Elements, String> {
        let read = elements(json).unwrap();
        let (sent_as, elements) = (SentDatatype::Number(number), read.len());
        let layout = TensorLayout { name: "x", sent: sent_as, datatype, items: 1, elements };
        read.elements(layout).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_are_rounded_to_the_type_they_were_sent_as_and_then_exact() {
        let f32s = |values: &[f32]| Ok(Elements::F32(values.to_vec()));
        assert_eq!(converted("[0.1, 2]", NumberType::Fp32, Datatype::Fp32), f32s(&[0.1, 2.0]));
        assert_eq!(converted("[0.5]", NumberType::Fp64, Datatype::Fp32), f32s(&[0.5]));
        assert_eq!(converted("[3, -1]", NumberType::Int64, Datatype::Fp32), f32s(&[3.0, -1.0]));
        assert_eq!(converted("[3]", NumberType::Uint8, Datatype::Uint8), Ok(Elements::U8(vec![3])));
        assert!(converted("[0.1]", NumberType::Fp64, Datatype::Fp32).unwrap_err().ends_with("send FP32"));
        assert_eq!(
            converted("[1.5]", NumberType::Int64, Datatype::Fp32).unwrap_err(),
            "input 'x' has numbers with fractions, but datatype INT64 uses numbers of that type"
        );
        assert_eq!(
            converted(r#"["a"]"#, NumberType::Fp32, Datatype::Fp32).unwrap_err(),
            "input 'x' has strings, but datatype FP32 uses numbers of that type"
        );
    }

    #[test]
    fn a_request_may_have_nulls_where_it_says_nothing() {
        let json = r#"{"id": null, "parameters": null, "outputs": null, "model_name": "m",
            "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "parameters": null, "data": [1]}]}"#;
        let request = read(json.as_bytes(), None).unwrap();
        assert_eq!((request.id.as_str(), request.outputs.len(), request.inputs.len()), ("", 0, 1));
        let error = read(b"{\"inputs\": 5}", None).unwrap_err().to_string();
        assert!(error.starts_with("the request is no inference request: invalid type: integer `5`"), "{error}");
    }
}
