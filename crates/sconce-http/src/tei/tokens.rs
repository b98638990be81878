//! `/tokenize` and `/decode`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use sconce::{InferError, Model, TextToken};
use sconce_server::{RequestError, RequestFault};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PathModel, TeiResult};
use crate::body::{HttpCall, JsonBody};
use crate::dialect::Tei;
use crate::error::HttpError;
use crate::service::{ANY, HttpService};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenizeRequest {
    inputs: Texts,
    #[serde(default = "yes")]
    add_special_tokens: bool,
    #[serde(alias = "prompt")]
    prompt_name: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or a list of texts")]
enum Texts {
    One(String),
    Many(Vec<String>),
}

#[derive(Serialize, ToSchema)]
pub(crate) struct SimpleToken {
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

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecodeRequest {
    ids: Ids,
    #[serde(default = "yes")]
    skip_special_tokens: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "a list of token numbers, or a list of such lists")]
enum Ids {
    One(Vec<u32>),
    Many(Vec<Vec<u32>>),
}

fn yes() -> bool {
    true
}

#[utoipa::path(
    post,
    path = "/tokenize",
    tag = "text-embeddings-inference",
    description = "The tokens of each text. `/models/{model}/tokenize` is the same of one model.",
    request_body = TokenizeRequest,
    responses(
        (status = 200, body = Vec<Vec<SimpleToken>>),
        (status = 400, description = "The list is empty"),
        (status = 422, description = "The request is not of this form, or the model does not do what it asks for"),
        (status = 429, description = "The queue is full; the header retry-after-ms says when to come back"),
    )
)]
pub(crate) async fn tokenize(
    State(service): State<Arc<HttpService>>,
    model: PathModel,
    JsonBody { value: request, call, .. }: JsonBody<TokenizeRequest, Tei>,
) -> TeiResult {
    let TokenizeRequest { inputs, add_special_tokens: special, prompt_name } = request;
    let texts = match inputs {
        Texts::One(text) => vec![text],
        Texts::Many(texts) => texts,
    };
    check_size("inputs", "bytes", texts.iter().map(String::len).sum())?;
    let tokens = each(&service, model, "inputs", texts, call, move |model, text| {
        let tokens = model.tokenize(&text, special, prompt_name.as_deref())?;
        Ok(tokens.into_iter().map(SimpleToken::from).collect::<Vec<_>>())
    });
    Ok(Json(tokens.await?).into_response())
}

#[utoipa::path(
    post,
    path = "/decode",
    tag = "text-embeddings-inference",
    description = "The text that each list of tokens stands for. `/models/{model}/decode` is the same of one model.",
    request_body = DecodeRequest,
    responses(
        (status = 200, body = Vec<String>),
        (status = 400, description = "The list is empty"),
        (status = 422, description = "The request is not of this form, or the model does not do what it asks for"),
        (status = 429, description = "The queue is full; the header retry-after-ms says when to come back"),
    )
)]
pub(crate) async fn decode(
    State(service): State<Arc<HttpService>>,
    model: PathModel,
    JsonBody { value: request, call, .. }: JsonBody<DecodeRequest, Tei>,
) -> TeiResult {
    let DecodeRequest { ids, skip_special_tokens } = request;
    let lists = match ids {
        Ids::One(ids) if ids.is_empty() => Vec::new(),
        Ids::One(ids) => vec![ids],
        Ids::Many(lists) => lists,
    };
    check_size("ids", "tokens", lists.iter().map(Vec::len).sum())?;
    let texts =
        each(&service, model, "ids", lists, call, move |model, ids| model.detokenize(&ids, !skip_special_tokens));
    Ok(Json(texts.await?).into_response())
}

/// Refuses more than is turned into tokens, or back, at a time: each takes a hundred bytes in the answer.
fn check_size(field: &'static str, unit: &str, size: usize) -> Result<(), HttpError> {
    let max = crate::MAX_TOKENIZED;
    if size <= max {
        return Ok(());
    }
    let message = format!("field '{field}' has {size} {unit}, but at most {max} are read at a time; send fewer");
    Err(HttpError { field: Some(field.into()), ..HttpError::new(RequestFault::TooLarge, message) })
}

/// Applies `of` to each item on a thread that may block.
async fn each<T: Send + 'static, A: Send + 'static>(
    service: &HttpService,
    model: PathModel,
    field: &'static str,
    items: Vec<T>,
    call: HttpCall,
    of: impl Fn(&Model, T) -> Result<A, InferError> + Send + 'static,
) -> Result<Vec<A>, HttpError> {
    let model = service.model(model.as_ref().map(|Path(name)| name.as_str()), ANY)?;
    if items.is_empty() {
        return Err(HttpError::empty(field));
    }
    let max = service.max_list();
    if items.len() > max {
        return Err(HttpError::too_many(field, items.len(), max));
    }
    let all = move || {
        // The thread goes on if the client leaves, and what it holds counts until it ends.
        let _call = call;
        items.into_iter().map(|item| of(&model, item)).collect::<Result<Vec<A>, InferError>>()
    };
    let answers = tokio::task::spawn_blocking(all).await;
    let panicked = |error: tokio::task::JoinError| {
        tracing::error!("tokenising failed: {error}");
        HttpError::new(RequestFault::Internal, format!("tokenising failed: {error}"))
    };
    let failed = |source| HttpError::from(RequestError::Refused { source });
    answers.map_err(panicked)?.map_err(failed)
}
