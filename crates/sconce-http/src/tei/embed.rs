//! `/embed`, `/embed_all`, `/embed_sparse` and `/similarity`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use sconce::{Answer, Output, RequestGroup, SparseVector};
use serde::{Deserialize, Serialize};

use super::{PathModel, TeiOptions, TeiResult, compute_headers};
use crate::body::JsonBody;
use crate::dialect::Tei;
use crate::error::HttpError;
use crate::inputs::InputList;
use crate::service::{EMBEDS, EMBEDS_SPARSELY, EMBEDS_TOKENS, HttpService, Needed};

#[derive(Deserialize)]
pub(super) struct EmbedRequest {
    inputs: InputList,
    #[serde(flatten)]
    options: TeiOptions,
}

pub(super) async fn embed(
    service: State<Arc<HttpService>>,
    model: PathModel,
    request: JsonBody<EmbedRequest, Tei>,
) -> TeiResult {
    answer(&service, model, request.0, EMBEDS, |answers| {
        let rows: Vec<&[f32]> = answers.iter().map(|answer| answer.output.embedding().unwrap_or_default()).collect();
        Json(rows).into_response()
    })
    .await
}

pub(super) async fn embed_all(
    service: State<Arc<HttpService>>,
    model: PathModel,
    request: JsonBody<EmbedRequest, Tei>,
) -> TeiResult {
    answer(&service, model, request.0, EMBEDS_TOKENS, |answers| {
        let rows = |answer: &Answer| -> Vec<Vec<f32>> {
            let vectors = answer.output.token_vectors();
            vectors.map_or(Vec::new(), |vectors| {
                vectors.values.chunks_exact(vectors.dimensions.max(1)).map(<[f32]>::to_vec).collect()
            })
        };
        Json(answers.iter().map(rows).collect::<Vec<_>>()).into_response()
    })
    .await
}

pub(super) async fn embed_sparse(
    service: State<Arc<HttpService>>,
    model: PathModel,
    request: JsonBody<EmbedRequest, Tei>,
) -> TeiResult {
    #[derive(Serialize)]
    struct SparseValue {
        index: u32,
        value: f32,
    }
    let values = |vector: &SparseVector| -> Vec<SparseValue> {
        vector.indices.iter().zip(&vector.values).map(|(&index, &value)| SparseValue { index, value }).collect()
    };
    answer(&service, model, request.0, EMBEDS_SPARSELY, |answers| {
        let rows = answers.iter().map(|answer| answer.output.sparse().map(values).unwrap_or_default());
        Json(rows.collect::<Vec<_>>()).into_response()
    })
    .await
}

async fn answer(
    service: &HttpService,
    model: PathModel,
    request: EmbedRequest,
    needed: Needed,
    rows: impl FnOnce(&[Answer]) -> axum::response::Response,
) -> TeiResult {
    let started = Instant::now();
    let EmbedRequest { inputs, options } = request;
    let model = service.model(model.as_ref().map(|Path(name)| name.as_str()), needed)?;
    if inputs.items.is_empty() {
        return Err(HttpError::empty("inputs").into());
    }
    let group = options.read()?.options.apply(RequestGroup::new(inputs.items))?;
    let answers = service.answers(model, group).await?;
    Ok((compute_headers(&answers, inputs.characters, started), rows(&answers)).into_response())
}

#[derive(Deserialize)]
pub(super) struct SimilarityRequest {
    inputs: SimilarityInput,
    #[serde(flatten)]
    options: TeiOptions,
}

#[derive(Deserialize)]
struct SimilarityInput {
    source_sentence: String,
    sentences: Vec<String>,
}

/// True if a body is that of a similarity, which clients may send to `/`.
pub(super) fn is_similarity(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "inputs")]
        _inputs: SimilarityInput,
    }
    serde_json::from_slice::<Probe>(body).is_ok()
}

/// The cosine of one text with each of several others.
pub(super) async fn similarity(
    State(service): State<Arc<HttpService>>,
    model: PathModel,
    JsonBody(request, _): JsonBody<SimilarityRequest, Tei>,
) -> TeiResult {
    let started = Instant::now();
    let SimilarityRequest { inputs: SimilarityInput { source_sentence, sentences }, options } = request;
    let model = service.model(model.as_ref().map(|Path(name)| name.as_str()), EMBEDS)?;
    if sentences.is_empty() {
        return Err(HttpError::empty("inputs.sentences").into());
    }
    let texts = std::iter::once(source_sentence).chain(sentences);
    let mut characters = 0;
    let texts = texts.inspect(|text| characters += text.chars().count());
    let group = options.read()?.options.apply(RequestGroup::new(texts))?;
    let answers = service.answers(model, group).await?;
    let (source, others) = answers.split_first().expect("an answer for each text");
    let cosines: Vec<f32> = others.iter().map(|other| cosine(&source.output, &other.output)).collect();
    Ok((compute_headers(&answers, characters, started), Json(cosines)).into_response())
}

fn cosine(a: &Output, b: &Output) -> f32 {
    let (a, b) = (a.embedding().unwrap_or_default(), b.embedding().unwrap_or_default());
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    #[expect(clippy::cast_possible_truncation, reason = "answers are f32")]
    let cosine = if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 } as f32;
    cosine
}
