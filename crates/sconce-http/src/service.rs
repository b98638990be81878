//! The runtime behind all routes: which model a request is for, and its answers.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use sconce::{Answer, Input, Model, Runtime, Task};
use sconce_server::{AnswerList, OpenInference, Parameters, RequestFault};

use crate::body::HttpCall;
use crate::error::HttpError;

/// The models of a runtime, as the routes answer by them.
pub(crate) struct HttpService {
    shared: Arc<OpenInference>,
    /// Seconds since 1970 at which the server started.
    pub(crate) started: u64,
    /// Bytes of a request at most.
    pub(crate) max_bytes: usize,
}

/// A task that a route needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needed {
    /// The task in words, after "no model": `gives embeddings`.
    pub(crate) does: &'static str,
    /// True for a model of the task.
    pub(crate) fits: fn(&Task) -> bool,
}

pub(crate) const EMBEDS: Needed =
    Needed { does: "gives one embedding for each text", fits: |task| matches!(task, Task::Embedding { .. }) };
pub(crate) const EMBEDS_TOKENS: Needed =
    Needed { does: "gives an embedding for each token", fits: |task| matches!(task, Task::TokenEmbeddings { .. }) };
pub(crate) const EMBEDS_SPARSELY: Needed =
    Needed { does: "gives sparse embeddings", fits: |task| matches!(task, Task::SparseEmbedding { .. }) };
pub(crate) const SCORES: Needed =
    Needed { does: "scores how well a document matches a query", fits: |task| matches!(task, Task::Score) };
pub(crate) const CLASSIFIES: Needed =
    Needed { does: "classifies texts", fits: |task| matches!(task, Task::Classification { .. } | Task::Score) };
pub(crate) const ANY: Needed = Needed { does: "is served", fits: |_| true };

impl HttpService {
    pub(crate) fn new(shared: Arc<OpenInference>, max_bytes: usize) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { shared, started, max_bytes }
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        self.shared.runtime()
    }

    /// The model of this name, or the one whose task fits.
    pub(crate) fn model(&self, name: Option<&str>, needed: Needed) -> Result<Model, HttpError> {
        if let Some(name) = name {
            let model = self.runtime().model(name)?;
            if (needed.fits)(&model.signature().task) {
                return Ok(model);
            }
            let task = model.signature().task.name();
            let message = format!("model '{name}' does {task}; the call needs one that {}", needed.does);
            return Err(HttpError::invalid("model", message));
        }
        let (mut fitting, others): (Vec<Model>, Vec<Model>) =
            self.runtime().models().into_iter().partition(|model| (needed.fits)(&model.signature().task));
        let does = needed.does;
        match (fitting.pop(), fitting.as_slice()) {
            (Some(only), []) => Ok(only),
            (Some(last), first) => {
                let names: Vec<&str> = first.iter().chain([&last]).map(Model::name).collect();
                let remedy = "name one in field 'model', or by /models/{model} before the route";
                Err(HttpError::invalid("model", format!("more than one model {does}: {}; {remedy}", names.join(", "))))
            }
            (None, _) => {
                let served = |model: &Model| format!("{} ({})", model.name(), model.signature().task.name());
                let served: Vec<String> = others.iter().map(served).collect();
                let message = format!("no model {does}; served are: {}", served.join(", "));
                Err(HttpError::new(RequestFault::NotFound, message))
            }
        }
    }

    /// Elements of a list at most.
    pub(crate) fn max_list(&self) -> usize {
        self.shared.max_list()
    }

    /// Items of one request to a model at most.
    pub(crate) fn max_items(&self, model: &Model) -> usize {
        self.shared.max_items(model)
    }

    /// Answers all inputs of a request, which come in `field`, or fails as a whole.
    pub(crate) async fn answers(
        &self,
        model: &Model,
        field: &'static str,
        inputs: Vec<Input>,
        parameters: Parameters,
        call: &HttpCall,
    ) -> Result<AnswerList, HttpError> {
        let max = self.max_items(model);
        match inputs.len() {
            0 => Err(HttpError::empty(field)),
            items if items > max => Err(HttpError::too_many(field, items, max)),
            _ => Ok(self.shared.answers(model, inputs, parameters, call.arrival.clone()).await?),
        }
    }
}

/// Pairs of a query with each document, which come in `field`.
pub(crate) fn pairs(
    service: &HttpService,
    model: &Model,
    field: &'static str,
    query: &str,
    documents: &[String],
    call: &HttpCall,
) -> Result<Vec<Input>, HttpError> {
    let max = service.max_items(model);
    if documents.len() > max {
        return Err(HttpError::too_many(field, documents.len(), max));
    }
    // Each pair has a query of its own.
    let bytes = query.len().saturating_mul(documents.len());
    if bytes > service.max_bytes {
        let max = service.max_bytes / query.len();
        return Err(HttpError::too_many(field, documents.len(), max));
    }
    call.grow(bytes)?;
    Ok(documents.iter().map(|document| (query.to_owned(), document.clone()).into()).collect())
}

/// Headers that say how answers were computed. A value that differs between the answers is left out.
pub(crate) fn headers(answers: &[Answer]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(first) = answers.first() else { return headers };
    let mut put = |name, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("x-sconce-precision", first.precision.to_string());
    if let Some(decision) = first.decision.as_ref().filter(|_| answers.iter().all(|it| it.decision == first.decision)) {
        put("x-sconce-decision", decision.to_string());
    }
    if answers.iter().all(|answer| answer.device == first.device) {
        put("x-sconce-device", first.device.to_string());
    }
    if answers.iter().all(|answer| answer.source == first.source) {
        put("x-sconce-source", first.source.name().to_owned());
    }
    if answers.iter().any(|answer| answer.truncated) {
        put("x-sconce-truncated", "true".to_owned());
    }
    headers
}

/// Tokens that the network read for all answers.
pub(crate) fn tokens(answers: &[Answer]) -> usize {
    answers.iter().filter_map(|answer| answer.tokens).sum()
}
