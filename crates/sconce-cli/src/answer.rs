//! One input in, one JSON object out.

use std::ops::Not;

use sconce::{Answer, Classification, Input, InputKind, Model, Output, Precision, Request, Truncation};
use serde::{Serialize, Serializer};

use crate::inputs::{Place, Record};
use crate::pixels;

/// The answer to one input: a JSON object and a line end.
pub(crate) struct Answered {
    pub(crate) json: Vec<u8>,
    pub(crate) failed: bool,
    /// Bytes of the source that the input took.
    pub(crate) consumed: u64,
}

/// Runs one input. An error becomes an answer, too.
pub(crate) async fn answer(model: Model, record: Record, truncation: Truncation) -> Answered {
    // The `..` leaves the record's share of the read-ahead memory in `record`: freed when this function returns.
    let Record { place, content, consumed, .. } = record;
    let outcome = match content.map_err(|cause| cause.to_string()).and_then(|content| input(&model, content)) {
        Ok(input) => {
            let request = Request::new(input).truncation(truncation);
            model.infer(request).await.map_err(|cause| cause.to_string())
        }
        Err(message) => Err(message),
    };
    let failed = outcome.is_err();
    let mut json = match outcome {
        Ok(answer) => object(&place, &answer),
        Err(error) => to_json(&ErrorObject { error, file: place.file.as_deref(), line: place.line }),
    };
    json.push(b'\n');
    Answered { json, failed, consumed }
}

/// The model's input for the content of a line, file or field.
pub(crate) fn input(model: &Model, content: Vec<u8>) -> Result<Input, String> {
    match model.signature().input.kind {
        InputKind::Image { shape } => {
            pixels::parse(&content, &shape).map(Input::Array).map_err(|cause| cause.to_string())
        }
        // The model itself checks that the bytes are text.
        _ => Ok(Input::Bytes(content)),
    }
}

fn object(place: &Place, answer: &Answer) -> Vec<u8> {
    let file = place.file.as_deref();
    let Answer { output, truncated, precision, device, .. } = answer;
    let (truncated, precision, device) = (*truncated, *precision, device.to_string());
    match output {
        Output::Embedding(embedding) => to_json(&EmbeddingObject { file, embedding, precision, device, truncated }),
        Output::Classification(classification) => to_json(&ClassificationObject {
            file,
            label: classification.label(),
            score: classification.score(),
            scores: Scores(classification),
            precision,
            device,
            truncated,
        }),
        _ => unreachable!("the command has checked the task"),
    }
}

fn to_json(object: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(object).expect("strings and numbers have a JSON form")
}

#[derive(Serialize)]
struct EmbeddingObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    embedding: &'a [f32],
    precision: Precision,
    device: String,
    #[serde(skip_serializing_if = "Not::not")]
    truncated: bool,
}

#[derive(Serialize)]
struct ClassificationObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    label: &'a str,
    score: f32,
    scores: Scores<'a>,
    precision: Precision,
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

/// Scores by label, in the model's order.
struct Scores<'a>(&'a Classification);

impl Serialize for Scores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.labels.iter().zip(&self.0.scores))
    }
}
