//! `/rerank`.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use sconce::RequestGroup;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{PathModel, TeiOptions, TeiResult, compute_headers};
use crate::body::JsonBody;
use crate::dialect::Tei;
use crate::error::HttpError;
use crate::rerank::{logit, ranked, relevance};
use crate::service::{HttpService, SCORES};

#[derive(Deserialize)]
pub(super) struct TeiRerankRequest {
    query: String,
    texts: Vec<String>,
    #[serde(flatten)]
    options: TeiOptions,
}

#[derive(Serialize)]
struct RankedText<'a> {
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

pub(super) async fn rerank(
    State(service): State<Arc<HttpService>>,
    model: PathModel,
    JsonBody(request, _): JsonBody<TeiRerankRequest, Tei>,
) -> TeiResult {
    let started = Instant::now();
    let TeiRerankRequest { query, texts, options } = request;
    let model = service.model(model.as_ref().map(|Path(name)| name.as_str()), SCORES)?;
    if texts.is_empty() {
        return Err(HttpError::empty("texts").into());
    }
    let TeiOptions { options, raw_scores, return_text, .. } = options.read()?;
    let group = options.apply(RequestGroup::pairs(&query, texts.clone()))?;
    let answers = service.answers(model, group).await?;
    let score = if raw_scores == Some(true) { logit } else { relevance };
    let rank = |(index, score): (usize, f32)| {
        let text = (return_text == Some(true)).then(|| texts[index].as_str());
        RankedText { index, text, score }
    };
    let ranks: Vec<_> = ranked(&answers, score).into_iter().map(rank).collect();
    let pairs = texts.iter().map(|text| query.chars().count() + text.chars().count());
    Ok((compute_headers(&answers, pairs.sum(), started), Json(ranks)).into_response())
}
