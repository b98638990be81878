//! Reranking as Cohere's API and Jina's have it: one answer has the fields of both.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use sconce::Answer;
use sconce_server::AnswerList;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::JsonBody;
use crate::dialect::{Cohere, ErrorResponse};
use crate::error::HttpError;
use crate::openai::{FailedObject, TokenUsage};
use crate::options::{OptionFields, Options};
use crate::service::{HttpService, SCORES, headers, pairs};

pub(crate) fn routes() -> Router<Arc<HttpService>> {
    Router::new().route("/v1/rerank", post(rerank)).route("/v2/rerank", post(rerank))
}

/// The body of `POST /v1/rerank` and `POST /v2/rerank`.
#[derive(Deserialize, ToSchema)]
#[serde(expecting = "a JSON object")]
pub(crate) struct CohereRerankRequest {
    model: Option<String>,
    query: String,
    documents: Vec<Document>,
    /// Number of results, the best first.
    top_n: Option<usize>,
    /// True: results hold their documents.
    return_documents: Option<bool>,
    #[serde(flatten)]
    #[schema(value_type = OptionFields)]
    options: Options,
}

/// A document: its text, or an object with it.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or an object with field 'text'")]
enum Document {
    Text(String),
    Object { text: String },
}

impl Document {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { text } => text,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RerankResponse<'a> {
    model: &'a str,
    results: Vec<RerankResult<'a>>,
    usage: TokenUsage,
    meta: Meta,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<FailedObject<'a>>,
}

#[derive(Serialize, ToSchema)]
struct RerankResult<'a> {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<TextObject<'a>>,
}

#[derive(Serialize, ToSchema)]
struct TextObject<'a> {
    text: &'a str,
}

#[derive(Serialize, ToSchema)]
struct Meta {
    billed_units: BilledUnits,
}

#[derive(Serialize, ToSchema)]
struct BilledUnits {
    search_units: usize,
}

#[utoipa::path(
    post,
    path = "/v1/rerank",
    operation_id = "rerank_documents",
    tag = "Cohere and Jina",
    request_body = CohereRerankRequest,
    responses(
        (status = 200, body = RerankResponse),
        (status = 400, description = "The request is not of this form"),
        (status = 404, description = "No model has the name, or none reranks"),
        (status = 429, description = "The queue is full; the header retry-after-ms says when to come back"),
    )
)]
pub(crate) async fn rerank(
    State(service): State<Arc<HttpService>>,
    JsonBody { value: request, call, .. }: JsonBody<CohereRerankRequest, Cohere>,
) -> Result<Response, ErrorResponse<Cohere>> {
    let CohereRerankRequest { model, query, documents, top_n, return_documents, options } = request;
    let model = &service.model(model.as_deref(), SCORES)?;
    if top_n == Some(0) {
        return Err(HttpError::invalid("top_n", "field 'top_n' is 0, but must be at least 1").into());
    }
    let documents: Vec<String> = documents.into_iter().map(Document::into_text).collect();
    let pairs = pairs(&service, model, "documents", &query, &documents, &call)?;
    let answers = service.answers(model, "documents", pairs, options.parameters()?, &call).await?;
    let result = |(index, relevance_score): (usize, f32)| {
        let document = (return_documents == Some(true)).then(|| TextObject { text: documents[index].as_str() });
        RerankResult { index, relevance_score, document }
    };
    let results = ranked(&answers, relevance).into_iter().take(top_n.unwrap_or(usize::MAX)).map(result);
    let response = RerankResponse {
        model: model.name(),
        results: results.collect(),
        usage: TokenUsage::of(&answers),
        meta: Meta { billed_units: BilledUnits { search_units: 1 } },
        failed: FailedObject::all(&answers),
    };
    Ok((headers(&answers), Json(response)).into_response())
}

/// Places of items and scores of their answers, the best first; equal ones stay in their order.
pub(crate) fn ranked(answers: &AnswerList, score: fn(&Answer) -> f32) -> Vec<(usize, f32)> {
    let mut ranked: Vec<_> = answers.indices().zip(answers.iter().map(score)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

/// How well a document matches, between 0 and 1: the sigmoid of the logit, whatever the model's files say.
pub(crate) fn relevance(answer: &Answer) -> f32 {
    1.0 / (1.0 + (-logit(answer)).exp())
}

/// The output of the model's last layer.
pub(crate) fn logit(answer: &Answer) -> f32 {
    answer.output.score().expect("the model gives scores").logit
}
