//! `/rerank`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AnswerShape, PathModel, TeiOptionFields, TeiOptions, TeiResult, TeiTerms, compute_headers};
use crate::body::JsonBody;
use crate::dialect::Tei;
use crate::rerank::{logit, ranked, relevance};
use crate::service::{HttpService, SCORES, pairs};

#[derive(Deserialize, ToSchema)]
#[serde(expecting = "a JSON object")]
pub(crate) struct TeiRerankRequest {
    query: String,
    texts: Vec<String>,
    #[serde(flatten)]
    #[schema(value_type = TeiOptionFields)]
    options: TeiOptions,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RankedText<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    score: f32,
}

/// True if a body is that of a reranking, which clients may send to `/`.
pub(super) fn is_rerank(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "query")]
        _query: IgnoredAny,
    }
    serde_json::from_slice::<Probe>(body).is_ok()
}

#[utoipa::path(
    post,
    path = "/rerank",
    tag = "text-embeddings-inference",
    description = "How well each text matches a query, the best first. `/models/{model}/rerank` is the same of one model.",
    request_body = TeiRerankRequest,
    responses(
        (status = 200, body = Vec<RankedText>),
        (status = 400, description = "The list is empty"),
        (status = 422, description = "The request is not of this form, or the model does not do what it asks for"),
        (status = 429, description = "The queue is full; the header retry-after-ms says when to come back"),
    )
)]
pub(crate) async fn rerank(
    State(service): State<Arc<HttpService>>,
    model: PathModel,
    JsonBody { value: request, call, .. }: JsonBody<TeiRerankRequest, Tei>,
) -> TeiResult {
    let started = Instant::now();
    let TeiRerankRequest { query, texts, options } = request;
    let model = &service.model(model.as_ref().map(|Path(name)| name.as_str()), SCORES)?;
    let TeiTerms { parameters, raw_scores, return_text } = options.read(AnswerShape::Ranks)?;
    let pairs = pairs(&service, model, "texts", &query, &texts, &call)?;
    let answers = service.answers(model, "texts", pairs, parameters, &call).await?;
    let score = if raw_scores { logit } else { relevance };
    let rank = |(index, score): (usize, f32)| {
        let text = return_text.then(|| texts[index].as_str());
        RankedText { index, text, score }
    };
    let ranks: Vec<_> = ranked(&answers, score).into_iter().map(rank).collect();
    let pairs = texts.iter().map(|text| query.chars().count() + text.chars().count());
    Ok((compute_headers(&answers, pairs.sum(), started), Json(ranks)).into_response())
}
