//! OpenAI's API: embeddings, and the list of models.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sconce::{Answer, Model, RequestGroup};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::body::JsonBody;
use crate::dialect::{ErrorResponse, OpenAi};
use crate::error::HttpError;
use crate::inputs::InputList;
use crate::options::{Options, refuse_unknown};
use crate::service::{ANY, EMBEDS, HttpService, headers, tokens};

type OpenAiResult = Result<Response, ErrorResponse<OpenAi>>;

pub(crate) fn routes() -> Router<Arc<HttpService>> {
    Router::new()
        .route("/v1/embeddings", post(embeddings))
        .route("/embeddings", post(embeddings))
        .route("/v1/models", get(models))
        .route("/v1/models/{*model}", get(model))
}

/// The body of `POST /v1/embeddings`.
#[derive(Deserialize)]
struct EmbeddingsRequest {
    input: InputList,
    model: Option<String>,
    #[serde(default)]
    encoding_format: EncodingFormat,
    /// A name of the end user, of no use here.
    #[serde(rename = "user")]
    _user: Option<IgnoredAny>,
    #[serde(flatten)]
    options: Options,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// The form of vectors.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    /// A list of numbers.
    #[default]
    Float,
    /// The little-endian bytes of f32 elements, in base64.
    Base64,
}

#[derive(Serialize)]
struct EmbeddingsResponse<'a> {
    object: &'static str,
    data: Vec<EmbeddingObject<'a>>,
    model: &'a str,
    usage: TokenUsage,
}

#[derive(Serialize)]
struct EmbeddingObject<'a> {
    object: &'static str,
    index: usize,
    embedding: Vector<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector<'a> {
    Float(&'a [f32]),
    Base64(String),
}

/// Tokens that were read; nothing is generated, so both are the same.
#[derive(Serialize)]
pub(crate) struct TokenUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl TokenUsage {
    pub(crate) fn of(answers: &[Answer]) -> Self {
        let tokens = tokens(answers);
        Self { prompt_tokens: tokens, total_tokens: tokens }
    }
}

async fn embeddings(
    State(service): State<Arc<HttpService>>,
    JsonBody(request, _): JsonBody<EmbeddingsRequest, OpenAi>,
) -> OpenAiResult {
    let EmbeddingsRequest { input, model, encoding_format, options, unknown, .. } = request;
    refuse_unknown(&unknown, &["input", "model", "encoding_format", "user"])?;
    let model = service.model(model.as_deref(), EMBEDS)?;
    if input.items.is_empty() {
        return Err(HttpError::empty("input").into());
    }
    let group = options.apply(RequestGroup::new(input.items))?;
    let answers = service.answers(model, group).await?;
    let data = answers.iter().enumerate().map(|(index, answer)| {
        let values = answer.output.embedding().unwrap_or_default();
        let embedding = match encoding_format {
            EncodingFormat::Float => Vector::Float(values),
            EncodingFormat::Base64 => Vector::Base64(base64_of(values)),
        };
        EmbeddingObject { object: "embedding", index, embedding }
    });
    let (data, usage) = (data.collect(), TokenUsage::of(&answers));
    let response = EmbeddingsResponse { object: "list", data, model: model.name(), usage };
    Ok((headers(&answers), Json(response)).into_response())
}

fn base64_of(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

#[derive(Serialize)]
struct ModelObject<'a> {
    id: &'a str,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    owned_by: &'static str,
}

impl<'a> ModelObject<'a> {
    fn of(model: &'a Model, service: &HttpService) -> Self {
        Self { id: model.name(), object: "model", created: service.started, owned_by: "sconce" }
    }
}

async fn models(State(service): State<Arc<HttpService>>) -> Response {
    let data: Vec<_> = service.runtime().models().map(|model| ModelObject::of(model, &service)).collect();
    Json(serde_json::json!({"object": "list", "data": data})).into_response()
}

async fn model(State(service): State<Arc<HttpService>>, Path(name): Path<String>) -> OpenAiResult {
    let model = service.model(Some(&name), ANY)?;
    Ok(Json(ModelObject::of(model, &service)).into_response())
}
