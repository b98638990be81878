//! The routes of text-embeddings-inference. It serves one model; where a runtime has several, `/models/{model}` before a
//! route names one.

pub(crate) mod classify;
pub(crate) mod embed;
pub(crate) mod info;
pub(crate) mod rerank;
pub(crate) mod tokens;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use axum::routing::{get, post};
use sconce::{Answer, Task};
use sconce_server::{Parameters, RequestFault};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::body::UnparsedBody;
use crate::dialect::{ErrorResponse, Tei};
use crate::error::HttpError;
use crate::options::{OptionFields, Options};
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
    // `nest` answers its root without a slash at the end alone.
    of_one_model().route("/models/{model}/", post(by_task)).nest("/models/{model}", of_one_model())
}

/// The fields of a request beside its inputs, not read yet.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct TeiOptions(Map<String, Value>);

/// Options of a request, at its top or, as `huggingface_hub` sends some, in its field `parameters`.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct TeiOptionFields {
    truncation_direction: Option<TruncationDirection>,
    /// True: logits instead of probabilities.
    raw_scores: Option<bool>,
    /// True: each rank holds its text.
    return_text: Option<bool>,
    /// Further options, which count where both are set.
    #[schema(value_type = Option<Value>)]
    parameters: Option<Map<String, Value>>,
    #[serde(flatten)]
    #[schema(value_type = OptionFields)]
    options: Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
enum TruncationDirection {
    #[serde(alias = "left")]
    Left,
    #[serde(alias = "right")]
    Right,
}

impl TeiOptionFields {
    /// Reads `fields`; an error names the field behind `place`.
    fn read(fields: Map<String, Value>, place: &'static str) -> Result<Self, HttpError> {
        serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
            let path = error.path().to_string();
            let field = Some(if place.is_empty() { path.clone().into() } else { "parameters".into() });
            let message = format!("field '{place}{path}': {}", error.inner());
            HttpError { field, ..HttpError::new(RequestFault::Invalid, message) }
        })
    }
}

/// The parts that the answers of a route have, which say what options it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerShape {
    /// Vectors, or numbers made of them.
    Vectors,
    /// Labels with scores.
    Labels,
    /// Scores, with their texts.
    Ranks,
}

/// [`TeiOptions`], checked.
struct TeiTerms {
    parameters: Parameters,
    raw_scores: bool,
    return_text: bool,
}

impl TeiOptions {
    /// The options as a route takes them that has those of `shape`: those of `parameters` count where both are set.
    fn read(self, shape: AnswerShape) -> Result<TeiTerms, HttpError> {
        let mut options = TeiOptionFields::read(self.0, "")?;
        if let Some(nested) = options.parameters.take() {
            if nested.contains_key("parameters") {
                let message = "field 'parameters.parameters' is not known; put its fields into 'parameters'";
                return Err(HttpError::invalid("parameters", message));
            }
            let nested = TeiOptionFields::read(nested, "parameters.")?;
            options = TeiOptionFields {
                truncation_direction: nested.truncation_direction.or(options.truncation_direction),
                raw_scores: nested.raw_scores.or(options.raw_scores),
                return_text: nested.return_text.or(options.return_text),
                options: nested.options.or(options.options)?,
                parameters: None,
            };
        }
        for (field, is_there, is_known) in [
            ("raw_scores", options.raw_scores.is_some(), shape != AnswerShape::Vectors),
            ("return_text", options.return_text.is_some(), shape == AnswerShape::Ranks),
        ] {
            if is_there && !is_known {
                let message = format!("field '{field}' has no meaning for this route; leave it out");
                return Err(HttpError::invalid(field, message));
            }
        }
        if options.truncation_direction == Some(TruncationDirection::Left) {
            let field = "truncation_direction";
            let message = "field 'truncation_direction' is left, which is not served: the model's tokenizer says which end \
                           of a long text is cut; leave the field out, or cut the text yourself";
            return Err(HttpError::invalid(field, message));
        }
        let parameters = options.options.parameters()?;
        if parameters.partial {
            let message = "field 'partial' is true, but answers of this route have no index by which they could be told apart; \
                           leave it out, or call /v1/embeddings, /v1/rerank or /v2/models/{model}/infer";
            return Err(HttpError::invalid("partial", message));
        }
        Ok(TeiTerms {
            parameters,
            raw_scores: options.raw_scores.unwrap_or(false),
            return_text: options.return_text.unwrap_or(false),
        })
    }
}

/// Answers `POST /` as the route of the model's task: clients that are given only an address call it.
async fn by_task(state: State<Arc<HttpService>>, model: PathModel, body: UnparsedBody<Tei>) -> TeiResult {
    let named = model.as_ref().map(|Path(name)| name.as_str());
    let task = state.model(named, ANY)?.signature().task.clone();
    let body = body.counted()?;
    match task {
        Task::Embedding { .. } if embed::is_similarity(&body.bytes) => {
            embed::similarity(state, model, body.parse()?).await
        }
        Task::Embedding { .. } => embed::embed(state, model, body.parse()?).await,
        Task::SparseEmbedding { .. } => embed::embed_sparse(state, model, body.parse()?).await,
        Task::TokenEmbeddings { .. } => embed::embed_all(state, model, body.parse()?).await,
        Task::Score if rerank::is_rerank(&body.bytes) => rerank::rerank(state, model, body.parse()?).await,
        Task::Classification { .. } | Task::Score => classify::predict(state, model, body.parse()?).await,
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
