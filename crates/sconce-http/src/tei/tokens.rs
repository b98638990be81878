//! `/tokenize` and `/decode`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use sconce::{InferError, Model, TextToken};
use serde::{Deserialize, Serialize};

use super::{PathModel, TeiResult};
use crate::body::JsonBody;
use crate::dialect::Tei;
use crate::error::{Fault, HttpError};
use crate::service::{ANY, HttpService};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenizeRequest {
    inputs: Texts,
    #[serde(default = "yes")]
    add_special_tokens: bool,
    #[serde(alias = "prompt")]
    prompt_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, or a list of texts")]
enum Texts {
    One(String),
    Many(Vec<String>),
}

#[derive(Serialize)]
struct SimpleToken {
    id: u32,
    text: String,
    special: bool,
    /// The place in the text, in bytes.
    start: Option<usize>,
    stop: Option<usize>,
}

impl From<TextToken> for SimpleToken {
    fn from(TextToken { id, text, bytes }: TextToken) -> Self {
        let (start, stop) = bytes.map(|bytes| (bytes.start, bytes.end)).unzip();
        Self { id, text, special: start.is_none(), start, stop }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DecodeRequest {
    ids: Ids,
    #[serde(default = "yes")]
    skip_special_tokens: bool,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a list of token numbers, or a list of such lists")]
enum Ids {
    One(Vec<u32>),
    Many(Vec<Vec<u32>>),
}

fn yes() -> bool {
    true
}

pub(super) async fn tokenize(
    State(service): State<Arc<HttpService>>,
    model: PathModel,
    JsonBody(request, _): JsonBody<TokenizeRequest, Tei>,
) -> TeiResult {
    let TokenizeRequest { inputs, add_special_tokens: special, prompt_name } = request;
    let texts = match inputs {
        Texts::One(text) => vec![text],
        Texts::Many(texts) => texts,
    };
    let tokens = each(&service, model, "inputs", texts, move |model, text| {
        let tokens = model.tokenize(&text, special, prompt_name.as_deref())?;
        Ok(tokens.into_iter().map(SimpleToken::from).collect::<Vec<_>>())
    });
    Ok(Json(tokens.await?).into_response())
}

pub(super) async fn decode(
    State(service): State<Arc<HttpService>>,
    model: PathModel,
    JsonBody(request, _): JsonBody<DecodeRequest, Tei>,
) -> TeiResult {
    let DecodeRequest { ids, skip_special_tokens } = request;
    let lists = match ids {
        Ids::One(ids) => vec![ids],
        Ids::Many(lists) => lists,
    };
    let texts = each(&service, model, "ids", lists, move |model, ids| model.detokenize(&ids, !skip_special_tokens));
    Ok(Json(texts.await?).into_response())
}

/// Applies `of` to each item on a thread that may block.
async fn each<T: Send + 'static, A: Send + 'static>(
    service: &HttpService,
    model: PathModel,
    field: &'static str,
    items: Vec<T>,
    of: impl Fn(&Model, T) -> Result<A, InferError> + Send + 'static,
) -> Result<Vec<A>, HttpError> {
    let _in_flight = service.runtime().enter();
    let model = service.model(model.as_ref().map(|Path(name)| name.as_str()), ANY)?.clone();
    if items.is_empty() {
        return Err(HttpError::empty(field));
    }
    let all = move || items.into_iter().map(|item| of(&model, item)).collect::<Result<Vec<A>, InferError>>();
    let answers = tokio::task::spawn_blocking(all).await;
    let panicked =
        |error: tokio::task::JoinError| HttpError::new(Fault::Internal, format!("tokenising failed: {error}"));
    Ok(answers.map_err(panicked)??)
}
