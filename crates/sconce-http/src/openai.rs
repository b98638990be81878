//! OpenAI's API: embeddings, and the list of models.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sconce::models::excerpt;
use sconce::{Answer, Model};
use sconce_server::AnswerList;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::JsonBody;
use crate::dialect::{ErrorResponse, OpenAi};
use crate::error::HttpError;
use crate::inputs::{InputForms, InputList};
use crate::numbers::Numbers;
use crate::options::{OptionFields, Options};
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
#[derive(Deserialize, ToSchema)]
#[serde(expecting = "a JSON object")]
pub(crate) struct EmbeddingsRequest {
    #[schema(value_type = InputForms)]
    input: InputList,
    /// The model's name; may be left out where only one model embeds.
    model: Option<String>,
    /// `float`, the default, or `base64`.
    encoding_format: Option<String>,
    /// A name of the end user, of no use here.
    #[serde(rename = "user")]
    #[schema(value_type = Option<String>)]
    _user: Option<IgnoredAny>,
    #[serde(flatten)]
    #[schema(value_type = OptionFields)]
    options: Options,
}

/// The form of vectors.
#[derive(Debug, Clone, Copy)]
enum EncodingFormat {
    /// A list of numbers.
    Float,
    /// The little-endian bytes of f32 elements, in base64.
    Base64,
}

impl EncodingFormat {
    fn named(name: Option<&str>) -> Result<Self, HttpError> {
        match name {
            None | Some("float") => Ok(Self::Float),
            Some("base64") => Ok(Self::Base64),
            Some(other) => {
                let message = format!("field 'encoding_format' is '{}', but must be float or base64", excerpt(&other));
                Err(HttpError::invalid("encoding_format", message))
            }
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingsResponse<'a> {
    object: &'static str,
    data: Vec<EmbeddingObject<'a>>,
    model: &'a str,
    usage: TokenUsage,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<FailedObject<'a>>,
}

/// An item that got no answer, of a request with `partial`.
#[derive(Serialize, ToSchema)]
pub(crate) struct FailedObject<'a> {
    index: usize,
    error: &'a str,
}

impl<'a> FailedObject<'a> {
    pub(crate) fn all(answers: &'a AnswerList) -> Vec<Self> {
        answers.failed().iter().map(|item| Self { index: item.index, error: &item.message }).collect()
    }
}

#[derive(Serialize, ToSchema)]
struct EmbeddingObject<'a> {
    object: &'static str,
    index: usize,
    embedding: EncodedVector<'a>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum EncodedVector<'a> {
    #[schema(value_type = Vec<f32>)]
    Numbers(Numbers<'a>),
    Base64(String),
}

/// Tokens that were read; nothing is generated, so both are the same.
#[derive(Serialize, ToSchema)]
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

#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "OpenAI",
    request_body = EmbeddingsRequest,
    responses(
        (status = 200, body = EmbeddingsResponse),
        (status = 400, description = "The request is not of this form, or the model does not do what it asks for"),
        (status = 404, description = "No model has the name"),
        (status = 429, description = "The queue is full; the header retry-after-ms says when to come back"),
    )
)]
pub(crate) async fn embeddings(
    State(service): State<Arc<HttpService>>,
    JsonBody { value: request, call, .. }: JsonBody<EmbeddingsRequest, OpenAi>,
) -> OpenAiResult {
    let EmbeddingsRequest { input, model, encoding_format, options, .. } = request;
    let encoding_format = EncodingFormat::named(encoding_format.as_deref())?;
    let model = &service.model(model.as_deref(), EMBEDS)?;
    let answers = service.answers(model, "input", input.items, options.parameters()?, &call).await?;
    let data = answers.indices().zip(&*answers).map(|(index, answer)| {
        let numbers = Numbers::of(&answer.output);
        let embedding = match encoding_format {
            EncodingFormat::Float => EncodedVector::Numbers(numbers),
            EncodingFormat::Base64 => EncodedVector::Base64(BASE64_STANDARD.encode(numbers.bytes())),
        };
        EmbeddingObject { object: "embedding", index, embedding }
    });
    let (data, usage) = (data.collect(), TokenUsage::of(&answers));
    let failed = FailedObject::all(&answers);
    let response = EmbeddingsResponse { object: "list", data, model: model.name(), usage, failed };
    Ok((headers(&answers), Json(response)).into_response())
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ModelObject<'a> {
    id: &'a str,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    owned_by: &'static str,
}

/// The models of the server.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList<'a> {
    object: &'static str,
    data: Vec<ModelObject<'a>>,
}

impl<'a> ModelObject<'a> {
    fn of(model: &'a Model, service: &HttpService) -> Self {
        Self { id: model.name(), object: "model", created: service.started, owned_by: "sconce" }
    }
}

#[utoipa::path(get, path = "/v1/models", tag = "OpenAI", responses((status = 200, body = ModelList)))]
pub(crate) async fn models(State(service): State<Arc<HttpService>>) -> Response {
    let models = service.runtime().models();
    let data = models.iter().map(|model| ModelObject::of(model, &service)).collect();
    Json(ModelList { object: "list", data }).into_response()
}

#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "OpenAI",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, body = ModelObject), (status = 404, description = "No model has the name"))
)]
pub(crate) async fn model(State(service): State<Arc<HttpService>>, Path(name): Path<String>) -> OpenAiResult {
    let model = &service.model(Some(&name), ANY)?;
    Ok(Json(ModelObject::of(model, &service)).into_response())
}
