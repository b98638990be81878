//! `/embed`, `/embed_all`, `/embed_sparse` and `/similarity`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use sconce::{Answer, Input, Output, OutputDtype, SparseVector};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AnswerShape, PathModel, TeiOptionFields, TeiOptions, TeiResult, compute_headers};
use crate::body::JsonBody;
use crate::dialect::Tei;
use crate::error::HttpError;
use crate::inputs::{InputForms, InputList, IsObject};
use crate::numbers::Numbers;
use crate::service::{EMBEDS, EMBEDS_SPARSELY, EMBEDS_TOKENS, HttpService, Needed};

#[derive(Deserialize, ToSchema)]
#[serde(expecting = "a JSON object")]
pub(crate) struct EmbedRequest {
    #[schema(value_type = InputForms)]
    inputs: InputList,
    #[serde(flatten)]
    #[schema(value_type = TeiOptionFields)]
    options: TeiOptions,
}

#[utoipa::path(
    post,
    path = "/embed",
    tag = "text-embeddings-inference",
    description = "An embedding for each input. `/models/{model}/embed` is the same of one model.",
    request_body = EmbedRequest,
    responses(
        (status = 200, body = Vec<Vec<f32>>),
        (status = 400, description = "The list is empty"),
        (status = 422, description = "The request is not of this form, or the model does not do what it asks for"),
        (status = 429, description = "The queue is full; the header retry-after-ms says when to come back"),
    )
)]
pub(crate) async fn embed(
    service: State<Arc<HttpService>>,
    model: PathModel,
    request: JsonBody<EmbedRequest, Tei>,
) -> TeiResult {
    answer(&service, model, request, EMBEDS, |answers| {
        Json(answers.iter().map(|answer| Numbers::of(&answer.output)).collect::<Vec<_>>()).into_response()
    })
    .await
}

#[utoipa::path(
    post,
    path = "/embed_all",
    tag = "text-embeddings-inference",
    description = "An embedding for each token of each input, by models that give them. `/models/{model}/embed_all` is the same of one model.",
    request_body = EmbedRequest,
    responses(
        (status = 200, body = Vec<Vec<Vec<f32>>>),
        (status = 400, description = "The list is empty"),
        (status = 422, description = "The request is not of this form, or the model does not do what it asks for"),
        (status = 429, description = "The queue is full; the header retry-after-ms says when to come back"),
    )
)]
pub(crate) async fn embed_all(
    service: State<Arc<HttpService>>,
    model: PathModel,
    request: JsonBody<EmbedRequest, Tei>,
) -> TeiResult {
    answer(&service, model, request, EMBEDS_TOKENS, |answers| {
        let rows = |answer: &Answer| -> Vec<Vec<f32>> {
            let numbers = answer.output.numbers();
            let converted = answer.output.converted_embedding().and_then(|embedding| embedding.token_width);
            let width = converted.or_else(|| answer.output.token_vectors().map(|vectors| vectors.dimensions));
            numbers.chunks_exact(width.unwrap_or(1).max(1)).map(<[f32]>::to_vec).collect()
        };
        Json(answers.iter().map(rows).collect::<Vec<_>>()).into_response()
    })
    .await
}

#[utoipa::path(
    post,
    path = "/embed_sparse",
    tag = "text-embeddings-inference",
    description = "The words of the vocabulary that stand for each input, with their weights. `/models/{model}/embed_sparse` is the same of one model.",
    request_body = EmbedRequest,
    responses(
        (status = 200, body = Vec<Vec<SparseValue>>),
        (status = 400, description = "The list is empty"),
        (status = 422, description = "The request is not of this form, or the model does not do what it asks for"),
        (status = 429, description = "The queue is full; the header retry-after-ms says when to come back"),
    )
)]
pub(crate) async fn embed_sparse(
    service: State<Arc<HttpService>>,
    model: PathModel,
    request: JsonBody<EmbedRequest, Tei>,
) -> TeiResult {
    let values = |vector: &SparseVector| -> Vec<SparseValue> {
        vector.indices.iter().zip(&vector.values).map(|(&index, &value)| SparseValue { index, value }).collect()
    };
    answer(&service, model, request, EMBEDS_SPARSELY, |answers| {
        let rows = answers.iter().map(|answer| answer.output.sparse().map(values).unwrap_or_default());
        Json(rows.collect::<Vec<_>>()).into_response()
    })
    .await
}

/// A word of a vocabulary with its weight.
#[derive(Serialize, ToSchema)]
pub(crate) struct SparseValue {
    index: u32,
    value: f32,
}

async fn answer(
    service: &HttpService,
    model: PathModel,
    request: JsonBody<EmbedRequest, Tei>,
    needed: Needed,
    rows: impl FnOnce(&[Answer]) -> axum::response::Response,
) -> TeiResult {
    let started = Instant::now();
    let JsonBody { value: EmbedRequest { inputs, options }, call, .. } = request;
    let model = &service.model(model.as_ref().map(|Path(name)| name.as_str()), needed)?;
    let answers =
        service.answers(model, "inputs", inputs.items, options.read(AnswerShape::Vectors)?.parameters, &call).await?;
    Ok((compute_headers(&answers, inputs.characters, started), rows(&answers)).into_response())
}

#[derive(Deserialize, ToSchema)]
#[serde(expecting = "a JSON object")]
pub(crate) struct SimilarityRequest {
    inputs: SimilarityInput,
    #[serde(flatten)]
    #[schema(value_type = TeiOptionFields)]
    options: TeiOptions,
}

#[derive(Deserialize, ToSchema)]
struct SimilarityInput {
    source_sentence: String,
    sentences: Vec<String>,
}

/// True if a body is that of a similarity, which clients may send to `/`.
pub(super) fn is_similarity(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        inputs: IsObject,
    }
    serde_json::from_slice::<Probe>(body).is_ok_and(|Probe { inputs: IsObject(is_object) }| is_object)
}

#[utoipa::path(
    post,
    path = "/similarity",
    tag = "text-embeddings-inference",
    description = "The cosine of one text with each of several others. `/models/{model}/similarity` is the same of one model.",
    request_body = SimilarityRequest,
    responses(
        (status = 200, body = Vec<f32>),
        (status = 400, description = "The list is empty"),
        (status = 422, description = "The request is not of this form, or the model does not do what it asks for"),
        (status = 429, description = "The queue is full; the header retry-after-ms says when to come back"),
    )
)]
pub(crate) async fn similarity(
    State(service): State<Arc<HttpService>>,
    model: PathModel,
    JsonBody { value: request, call, .. }: JsonBody<SimilarityRequest, Tei>,
) -> TeiResult {
    let started = Instant::now();
    let SimilarityRequest { inputs: SimilarityInput { source_sentence, sentences }, options } = request;
    let model = &service.model(model.as_ref().map(|Path(name)| name.as_str()), EMBEDS)?;
    if sentences.is_empty() {
        return Err(HttpError::empty("inputs.sentences").into());
    }
    let characters = source_sentence.chars().count() + sentences.iter().map(|text| text.chars().count()).sum::<usize>();
    let texts: Vec<Input> = std::iter::once(source_sentence).chain(sentences).map(Input::from).collect();
    let parameters = options.read(AnswerShape::Vectors)?.parameters;
    if parameters.vectors.output_dtype != OutputDtype::Float32 {
        let message = "field 'output_dtype' has no meaning for a similarity; leave it out";
        return Err(HttpError::invalid("output_dtype", message).into());
    }
    let answers = service.answers(model, "inputs.sentences", texts, parameters, &call).await?;
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
