//! `/predict`: the labels of texts, or of pairs of texts.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use sconce::{Input, Output};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AnswerShape, PathModel, TeiOptionFields, TeiOptions, TeiResult, TeiTerms, compute_headers};
use crate::body::JsonBody;
use crate::dialect::Tei;
use crate::service::{CLASSIFIES, HttpService};

#[derive(Deserialize, ToSchema)]
#[serde(expecting = "a JSON object")]
pub(crate) struct PredictRequest {
    /// A text, a pair of texts as a list of two, or a list of lists of one or two texts.
    #[schema(value_type = Value)]
    inputs: Sequences,
    #[serde(flatten)]
    #[schema(value_type = TeiOptionFields)]
    options: TeiOptions,
}

/// A text, a pair of texts as a list of two, or a list of lists of one text or two.
enum Sequences {
    One(Vec<String>),
    Many(Vec<Vec<String>>),
}

const EXPECTED: &str = "a text, a pair of texts as a list of two, or a list of lists of one or two texts: [[\"a text\"], [\"two\", \"texts\"]]";

impl<'de> Deserialize<'de> for Sequences {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SequencesVisitor;

        impl<'de> Visitor<'de> for SequencesVisitor {
            type Value = Sequences;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Sequences, E> {
                Ok(Sequences::One(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sequences, A::Error> {
                #[derive(Deserialize)]
                #[serde(untagged, expecting = "a text, or a list of one or two texts")]
                enum Element {
                    Text(String),
                    Texts(Vec<String>),
                }
                let (mut texts, mut sequences) = (Vec::new(), Vec::new());
                while let Some(element) = list.next_element()? {
                    match element {
                        Element::Text(text) => texts.push(text),
                        Element::Texts(texts) => sequences.push(texts),
                    }
                }
                let is_fine = |texts: &Vec<String>| (1..=2).contains(&texts.len());
                match (texts.is_empty(), sequences.is_empty()) {
                    (false, true) if is_fine(&texts) => Ok(Sequences::One(texts)),
                    (true, _) if sequences.iter().all(is_fine) => Ok(Sequences::Many(sequences)),
                    _ => Err(A::Error::custom(format_args!("expected {EXPECTED}"))),
                }
            }
        }

        deserializer.deserialize_any(SequencesVisitor)
    }
}

/// A label with its score.
#[derive(Serialize, ToSchema)]
pub(crate) struct Prediction<'a> {
    label: &'a str,
    score: f32,
}

#[utoipa::path(
    post,
    path = "/predict",
    tag = "text-embeddings-inference",
    description = "The labels of a text or of a pair of texts, the most likely first; a list of such lists for a list of lists. `/models/{model}/predict` is the same of one model.",
    request_body = PredictRequest,
    responses(
        (status = 200, body = Vec<Prediction>),
        (status = 400, description = "The list is empty"),
        (status = 422, description = "The request is not of this form, or the model does not do what it asks for"),
        (status = 429, description = "The queue is full; the header retry-after-ms says when to come back"),
    )
)]
pub(crate) async fn predict(
    State(service): State<Arc<HttpService>>,
    model: PathModel,
    JsonBody { value: request, call, .. }: JsonBody<PredictRequest, Tei>,
) -> TeiResult {
    let started = Instant::now();
    let PredictRequest { inputs, options } = request;
    let model = &service.model(model.as_ref().map(|Path(name)| name.as_str()), CLASSIFIES)?;
    let (sequences, single) = match inputs {
        Sequences::One(sequence) => (vec![sequence], true),
        Sequences::Many(sequences) => (sequences, false),
    };
    let characters = sequences.iter().flatten().map(|text| text.chars().count()).sum();
    let TeiTerms { parameters, raw_scores: raw, .. } = options.read(AnswerShape::Labels)?;
    let inputs = sequences.into_iter().map(input).collect();
    let answers = service.answers(model, "inputs", inputs, parameters, &call).await?;
    let rows: Vec<Vec<Prediction<'_>>> = answers.iter().map(|answer| predictions(&answer.output, raw)).collect();
    let headers = compute_headers(&answers, characters, started);
    Ok(match (single, rows.first()) {
        (true, Some(row)) => (headers, Json(row)).into_response(),
        _ => (headers, Json(rows)).into_response(),
    })
}

/// One text, or a pair.
fn input(mut sequence: Vec<String>) -> Input {
    let second = (sequence.len() > 1).then(|| sequence.remove(1));
    let first = sequence.swap_remove(0);
    match second {
        Some(second) => (first, second).into(),
        None => first.into(),
    }
}

/// The labels of an answer, the most likely first; with `raw`, by their logits.
fn predictions(output: &Output, raw: bool) -> Vec<Prediction<'_>> {
    let (labels, scores): (&[String], &[f32]) = match output {
        Output::Classification(answer) => (&answer.labels, if raw { &answer.logits } else { &answer.scores }),
        Output::Score(score) => (&score.labels, std::slice::from_ref(if raw { &score.logit } else { &score.score })),
        _ => (&[], &[]),
    };
    let mut predictions: Vec<_> =
        labels.iter().zip(scores).map(|(label, &score)| Prediction { label, score }).collect();
    predictions.sort_by(|a, b| b.score.total_cmp(&a.score));
    predictions
}
