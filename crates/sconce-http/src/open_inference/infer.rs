//! `infer`: reads a request's JSON and the binary tensors behind it, and has the model answer.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use sconce::{Elements, Input, Model, Task};
use sconce_server::{
    Arrival, Charge, OpenInference, OutputRequest, Parameters, RequestError, SharedMemory, TensorHead, TensorLayout,
    count, flag, match_inputs, take_items, wanted,
};

use super::json::{self, InferRequestJson, OutputJson};
use super::write::{JSON_LENGTH, OutputPlace, WantedOutput, response};
use super::{ModelPath, Shared, error_response};

pub(crate) async fn infer(
    State(shared): Shared,
    Path(named): Path<ModelPath>,
    arrival: Option<Extension<Arrival>>,
    charge: Option<Extension<Arc<Charge>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let _in_flight = shared.runtime().enter();
    let arrival = arrival.map_or_else(|| Arrival::new(Instant::now(), None), |Extension(arrival)| arrival);
    let charge = charge.map(|Extension(charge)| charge);
    let answered = async {
        let model = named.of(&shared)?;
        answer(&shared, &model, &headers, body, arrival, charge.as_deref()).await
    };
    answered.await.unwrap_or_else(error_response)
}

/// Answers a request to `model`. All of the request is checked before its first item is submitted.
async fn answer(
    shared: &OpenInference,
    model: &Model,
    headers: &HeaderMap,
    mut body: Bytes,
    arrival: Arrival,
    charge: Option<&Charge>,
) -> Result<Response, RequestError> {
    let json = body.split_to(json_length(headers, body.len())?);
    let mut request = json::read(&json, charge)?;
    let parameters = Parameters::read(&request.parameters)?;
    let wanted = wanted_outputs(&request, &model.signature().task, shared.shared_memory())?;
    let inputs = take_inputs(shared, model, &mut request, body, charge)?;
    let answers = shared.answers(model, inputs, parameters, arrival).await?;
    response(model, &request.id, &wanted, &answers)
}

/// Bytes of JSON at the beginning of a body of `all` bytes.
fn json_length(headers: &HeaderMap, all: usize) -> Result<usize, RequestError> {
    let Some(header) = headers.get(JSON_LENGTH) else { return Ok(all) };
    let length = header.to_str().ok().and_then(|length| length.parse().ok()).filter(|length| *length <= all);
    length.ok_or_else(|| RequestError::Malformed {
        expected: "inference request",
        message: format!(
            "header Inference-Header-Content-Length is {}, but the body has {all} bytes",
            sconce::models::excerpt(&format_args!("{header:?}"))
        ),
    })
}

fn wanted_outputs(
    request: &InferRequestJson,
    task: &Task,
    shared_memory: &SharedMemory,
) -> Result<Vec<WantedOutput>, RequestError> {
    let all_binary = flag("binary_data_output", &request.parameters)?.unwrap_or(false);
    let asked = |output: &OutputJson| {
        let place = match shared_memory.place(&output.name, &output.parameters)? {
            Some(place) => OutputPlace::Shared(place),
            None if flag("binary_data", &output.parameters)?.unwrap_or(all_binary) => OutputPlace::Binary,
            None => OutputPlace::Json,
        };
        Ok((place, count("classification", &output.parameters)?))
    };
    let (places, classes): (Vec<OutputPlace>, Vec<Option<u64>>) =
        request.outputs.iter().map(asked).collect::<Result<Vec<_>, RequestError>>()?.into_iter().unzip();
    let named = request.outputs.iter().zip(classes);
    let asked: Vec<OutputRequest<'_>> =
        named.map(|(output, classes)| OutputRequest { name: &output.name, classes }).collect();
    let unasked = if all_binary { OutputPlace::Binary } else { OutputPlace::Json };
    let places = places.into_iter().chain(std::iter::repeat(unasked));
    Ok(wanted(&asked, task)?.into_iter().zip(places).map(|(output, place)| WantedOutput { output, place }).collect())
}

/// Takes the items out of the request's tensors, whose elements are in the JSON, in shared memory or, in the order of the
/// tensors, in `binary`.
fn take_inputs(
    shared: &OpenInference,
    model: &Model,
    request: &mut InferRequestJson,
    binary: Bytes,
    charge: Option<&Charge>,
) -> Result<Vec<Input>, RequestError> {
    let spec = &model.signature().input;
    let known = spec.kind.tensors(spec.name);
    let matched = match_inputs(&request.inputs.iter().map(|input| input.name.as_str()), &known)?;
    let mut contents = take_contents(request, binary, shared.shared_memory(), charge)?;
    let head = |at: usize| {
        let input = &request.inputs[at];
        TensorHead { name: &input.name, datatype: &input.datatype, shape: &input.shape }
    };
    let read = |at: usize, layout: TensorLayout| std::mem::take(&mut contents[at]).read(layout);
    take_items(spec, &known, &matched, shared.max_items(model), head, read)
}

/// The elements of an input, undecoded.
enum TensorContents {
    Json(json::JsonElements),
    Binary(Bytes),
}

impl Default for TensorContents {
    fn default() -> Self {
        Self::Binary(Bytes::new())
    }
}

impl TensorContents {
    fn read(self, layout: TensorLayout) -> Result<Elements, RequestError> {
        match self {
            Self::Json(elements) => elements.elements(layout),
            Self::Binary(raw) => layout.raw(raw),
        }
    }
}

/// The elements of each input, undecoded.
fn take_contents(
    request: &mut InferRequestJson,
    mut binary: Bytes,
    shared_memory: &SharedMemory,
    charge: Option<&Charge>,
) -> Result<Vec<TensorContents>, RequestError> {
    let malformed = |message| RequestError::Malformed { expected: "inference request", message };
    let mut contents = Vec::with_capacity(request.inputs.len());
    for input in &mut request.inputs {
        let name = sconce::models::excerpt(&input.name);
        let size = count("binary_data_size", &input.parameters)?;
        let shared = shared_memory.place(&input.name, &input.parameters)?;
        contents.push(match (size, input.data.take(), shared) {
            (None, None, Some(place)) => TensorContents::Binary(place.read(charge)?),
            (None, Some(elements), None) => TensorContents::Json(elements),
            (Some(size), None, None) => {
                let size = usize::try_from(size).ok().filter(|size| *size <= binary.len()).ok_or_else(|| {
                    let left = binary.len();
                    malformed(format!(
                        "input '{name}' has binary_data_size {size}, but {left} bytes are left behind the JSON"
                    ))
                })?;
                TensorContents::Binary(binary.split_to(size))
            }
            (None, None, None) => {
                return Err(malformed(format!("input '{name}' has neither data nor binary_data_size")));
            }
            _ => {
                let one = "data, binary_data_size and shared_memory_region";
                return Err(malformed(format!("input '{name}' has more than one of {one}")));
            }
        });
    }
    match binary.len() {
        0 => Ok(contents),
        extra => Err(malformed(format!("{extra} bytes are left behind the last binary tensor"))),
    }
}
