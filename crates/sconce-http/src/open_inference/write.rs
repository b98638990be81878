//! Responses to `infer`: JSON, with binary tensors behind it where they are asked for.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use sconce::Model;
use sconce_server::{AnswerFact, AnswerList, RequestError, RequestedOutput, ResponseElements, SharedTensor};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

/// The header with the length of the JSON before binary tensors.
pub(crate) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

#[derive(Serialize)]
struct InferResponseJson<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    model_name: &'a str,
    model_version: &'a str,
    #[serde(serialize_with = "as_map")]
    parameters: Vec<(&'static str, AnswerFact)>,
    outputs: Vec<OutputTensorJson>,
}

#[derive(Serialize)]
struct OutputTensorJson {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_array")]
    data: Option<ResponseElements>,
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

fn as_map<S: Serializer>(facts: &[(&'static str, AnswerFact)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(facts.len()))?;
    for (name, fact) in facts {
        match fact {
            AnswerFact::Bool(value) => map.serialize_entry(name, value)?,
            AnswerFact::Text(text) => map.serialize_entry(name, text)?,
        }
    }
    map.end()
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn as_array<S: Serializer>(data: &Option<ResponseElements>, serializer: S) -> Result<S::Ok, S::Error> {
    match data {
        None => serializer.serialize_none(),
        Some(ResponseElements::F32(values)) => values.serialize(serializer),
        Some(ResponseElements::F16(values)) => serializer.collect_seq(values.iter().map(|value| value.to_f32())),
        Some(ResponseElements::I8(values)) => values.serialize(serializer),
        Some(ResponseElements::U8(values)) => values.serialize(serializer),
        Some(ResponseElements::I32(values)) => values.serialize(serializer),
        Some(ResponseElements::Bytes(texts)) => texts.serialize(serializer),
    }
}

/// The place of an output's elements.
#[derive(Clone)]
pub(crate) enum OutputPlace {
    Json,
    /// Behind the JSON.
    Binary,
    Shared(SharedTensor),
}

/// An output, and the place of its elements.
pub(crate) struct WantedOutput {
    pub(crate) output: RequestedOutput,
    pub(crate) place: OutputPlace,
}

/// The response with the wanted outputs of all answers.
pub(crate) fn response(
    model: &Model,
    id: &str,
    wanted: &[WantedOutput],
    answers: &AnswerList,
) -> Result<Response, RequestError> {
    let (mut outputs, mut binary) = (Vec::with_capacity(wanted.len()), Vec::new());
    for wanted in wanted {
        let tensor = wanted.output.tensor(answers);
        let datatype = tensor.elements.datatype().name();
        let (parameters, data) = match &wanted.place {
            OutputPlace::Json => (None, Some(tensor.elements)),
            OutputPlace::Binary => {
                let raw = tensor.elements.raw();
                let binary_data_size = raw.len();
                binary.push(raw);
                (Some(BinarySize { binary_data_size }), None)
            }
            OutputPlace::Shared(place) => {
                place.write(&tensor.elements.raw())?;
                // perf_analyzer takes parameters here for those of a binary tensor.
                (None, None)
            }
        };
        outputs.push(OutputTensorJson { name: wanted.output.name(), datatype, shape: tensor.shape, parameters, data });
    }
    let version = model.version().to_string();
    let (model_name, parameters) = (model.name(), answers.facts());
    let json = InferResponseJson { id, model_name, model_version: &version, outputs, parameters };
    let mut body = serde_json::to_vec(&json).expect("maps have names, and writing to memory does not fail");
    let kind = |value| (header::CONTENT_TYPE, HeaderValue::from_static(value));
    if binary.is_empty() {
        return Ok(([kind("application/json")], body).into_response());
    }
    let json_length = HeaderValue::from(body.len());
    body.reserve_exact(binary.iter().map(Vec::len).sum());
    for raw in binary {
        body.extend_from_slice(&raw);
    }
    Ok(([kind("application/octet-stream"), (JSON_LENGTH, json_length)], body).into_response())
}
