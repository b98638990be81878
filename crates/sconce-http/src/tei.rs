//! The routes of text-embeddings-inference. It serves one model; where a runtime has several, `/models/{model}` before a
//! route names one.

mod classify;
mod embed;
mod info;
mod rerank;
mod tokens;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use axum::routing::{get, post};
use sconce::{Answer, Task};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::dialect::{ErrorResponse, Tei};
use crate::error::HttpError;
use crate::options::{Options, refuse_unknown};
use crate::service::{ANY, HttpService, headers, tokens};

type TeiResult = Result<Response, ErrorResponse<Tei>>;

/// The model that the path names, if it names one.
type PathModel = Option<Path<String>>;

pub(crate) fn routes() -> Router<Arc<HttpService>> {
    let of_one_model = || {
        Router::new()
            .route("/embed", post(embed::embed))
            .route("/embed_all", post(embed::embed_all))
            .route("/embed_sparse", post(embed::embed_sparse))
            .route("/similarity", post(embed::similarity))
            .route("/predict", post(classify::predict))
            .route("/rerank", post(rerank::rerank))
            .route("/tokenize", post(tokens::tokenize))
            .route("/decode", post(tokens::decode))
            .route("/info", get(info::info))
            .route("/", post(by_task))
    };
    of_one_model().nest("/models/{model}", of_one_model())
}

/// Options of a request, at its top or, as `huggingface_hub` sends some, in its field `parameters`.
#[derive(Debug, Default, Deserialize)]
struct TeiOptions {
    #[serde(flatten)]
    options: Options,
    truncation_direction: Option<TruncationDirection>,
    /// True: logits instead of probabilities.
    raw_scores: Option<bool>,
    /// True: each rank holds its text.
    return_text: Option<bool>,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum TruncationDirection {
    #[serde(alias = "left")]
    Left,
    #[serde(alias = "right")]
    Right,
}

/// Fields of the API beside the inputs and the common options.
const FIELDS: [&str; 8] = [
    "inputs",
    "query",
    "texts",
    "parameters",
    "raw_scores",
    "return_text",
    "truncation_direction",
    "add_special_tokens",
];

impl TeiOptions {
    /// The options as the route takes them: those of `parameters` count where both are set.
    fn read(self) -> Result<Self, HttpError> {
        refuse_unknown(&self.unknown, &FIELDS)?;
        let mut options = self;
        if !options.parameters.is_empty() {
            let nested = Value::Object(std::mem::take(&mut options.parameters));
            let nested: Self = serde_path_to_error::deserialize(nested).map_err(|error| {
                HttpError::invalid("parameters", format!("field 'parameters.{}': {}", error.path(), error.inner()))
            })?;
            refuse_unknown(&nested.unknown, &FIELDS)?;
            options = Self {
                options: nested.options.or(options.options),
                truncation_direction: nested.truncation_direction.or(options.truncation_direction),
                raw_scores: nested.raw_scores.or(options.raw_scores),
                return_text: nested.return_text.or(options.return_text),
                ..Self::default()
            };
        }
        if options.truncation_direction == Some(TruncationDirection::Left) {
            let field = "truncation_direction";
            let message = "field 'truncation_direction' is left, which is not served: the model's tokenizer says which end \
                           of a long text is cut; leave the field out, or cut the text yourself";
            return Err(HttpError::invalid(field, message));
        }
        Ok(options)
    }
}

/// Answers `POST /` as the route of the model's task: clients that are given only an address call it.
async fn by_task(state: State<Arc<HttpService>>, model: PathModel, body: Bytes) -> TeiResult {
    let named = model.as_ref().map(|Path(name)| name.as_str());
    let task = state.model(named, ANY)?.signature().task.clone();
    match task {
        Task::Embedding { .. } if embed::is_similarity(&body) => {
            embed::similarity(state, model, crate::body::read(&body)?).await
        }
        Task::Embedding { .. } => embed::embed(state, model, crate::body::read(&body)?).await,
        Task::SparseEmbedding { .. } => embed::embed_sparse(state, model, crate::body::read(&body)?).await,
        Task::TokenEmbeddings { .. } => embed::embed_all(state, model, crate::body::read(&body)?).await,
        Task::Score if rerank::is_rerank(&body) => rerank::rerank(state, model, crate::body::read(&body)?).await,
        Task::Classification { .. } | Task::Score => classify::predict(state, model, crate::body::read(&body)?).await,
        other => {
            let message =
                format!("a model for {} has no route of this API; use /v2/models/{{model}}/infer", other.name());
            Err(HttpError::invalid("model", message).into())
        }
    }
}

/// The headers of an answer: how it was computed, how much was read, and how long it took in milliseconds.
fn compute_headers(answers: &[Answer], characters: usize, started: Instant) -> HeaderMap {
    let mut headers = headers(answers);
    let mean = |time: fn(&Answer) -> std::time::Duration| {
        answers.iter().map(time).sum::<std::time::Duration>().as_millis() / answers.len().max(1) as u128
    };
    let total = started.elapsed().as_millis();
    let numbers = [
        ("x-compute-time", total),
        ("x-compute-characters", characters as u128),
        ("x-compute-tokens", tokens(answers) as u128),
        ("x-total-time", total),
        ("x-tokenization-time", mean(|answer| answer.timing.prepare)),
        ("x-queue-time", mean(|answer| answer.timing.queue_wait)),
        ("x-inference-time", mean(|answer| answer.timing.run)),
    ];
    for (name, number) in numbers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(u64::try_from(number).unwrap_or(u64::MAX)));
    }
    if let Some(device) = headers.get("x-sconce-device").cloned() {
        headers.insert(HeaderName::from_static("x-compute-type"), device);
    }
    headers
}
