//! One input in, one JSON object out.

use std::ops::Not;

use sconce::{Answer, Input, Model, Output, Precision, Request, Truncation, VectorOptions};
use serde::Serialize;

use crate::inputs::{InputLocation, Record};

/// The answer to one input: a JSON object and a line end.
pub(crate) struct AnswerLine {
    pub(crate) json: Vec<u8>,
    pub(crate) failed: bool,
    /// Bytes of the source that the input took.
    pub(crate) consumed: u64,
}

/// The terms of all inputs of a command.
#[derive(Debug, Clone)]
pub(crate) struct LineTerms {
    pub(crate) truncation: Truncation,
    pub(crate) prompt: Option<String>,
    pub(crate) vectors: VectorOptions,
}

impl LineTerms {
    fn request(self, input: Input) -> Request {
        let Self { truncation, prompt, vectors } = self;
        Request { prompt, vectors, ..Request::new(input).truncation(truncation) }
    }
}

/// Runs one input. An error becomes an answer, too.
pub(crate) async fn answer(model: Model, record: Record, terms: LineTerms) -> AnswerLine {
    // The `..` leaves the record's share of the read-ahead memory in `record`: freed when this function returns.
    let Record { location, content, consumed, .. } = record;
    let outcome = match content.map_err(|cause| cause.to_string()).and_then(|content| input(&model, content)) {
        Ok(input) => model.infer(terms.request(input)).await.map_err(|cause| cause.to_string()),
        Err(message) => Err(message),
    };
    let failed = outcome.is_err();
    let mut json = match outcome {
        Ok(answer) => object(&location, &answer),
        Err(error) => to_json(&ErrorObject { error, file: location.file.as_deref(), line: location.line }),
    };
    json.push(b'\n');
    AnswerLine { json, failed, consumed }
}

/// The input that a model is given for the content of a line, file or field.
pub(crate) fn input(model: &Model, content: Vec<u8>) -> Result<Input, String> {
    model.signature().input.kind.parse(content).map_err(|cause| cause.to_string())
}

fn object(location: &InputLocation, answer: &Answer) -> Vec<u8> {
    let Answer { output, truncated, precision, decision, device, .. } = answer;
    to_json(&OutputObject {
        file: location.file.as_deref(),
        output,
        precision: *precision,
        decision: decision.as_deref(),
        device: device.to_string(),
        truncated: *truncated,
    })
}

fn to_json(object: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(object).expect("strings and numbers have a JSON form")
}

#[derive(Serialize)]
struct OutputObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(flatten)]
    output: &'a Output,
    precision: Precision,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'a str>,
    device: String,
    #[serde(skip_serializing_if = "Not::not")]
    truncated: bool,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
}
