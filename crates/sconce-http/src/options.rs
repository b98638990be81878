//! Options that every API takes beside its own, by the names that the gRPC server gives them.

use std::time::Duration;

use sconce::models::excerpt;
use sconce::{Priority, RequestGroup, Truncation};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Fault, HttpError};

/// Options of a request. OpenAI's clients send them as `extra_body`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Options {
    /// False: a text of too many tokens is refused, rather than cut.
    truncate: Option<bool>,
    /// Name of the prompt before each text.
    #[serde(alias = "prompt")]
    prompt_name: Option<String>,
    /// Scales vectors to length 1, or leaves them as they are.
    normalize: Option<bool>,
    /// Elements of vectors that are kept.
    dimensions: Option<usize>,
    /// False: the runtime's cache is not asked for the answers.
    cache: Option<bool>,
    /// 1 (high), 2 (normal) or 3 (low).
    priority: Option<usize>,
    /// Microseconds from arrival for which the answers are wanted.
    timeout: Option<u64>,
}

impl Options {
    /// These options, and others where they are not set.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            truncate: self.truncate.or(others.truncate),
            prompt_name: self.prompt_name.or(others.prompt_name),
            normalize: self.normalize.or(others.normalize),
            dimensions: self.dimensions.or(others.dimensions),
            cache: self.cache.or(others.cache),
            priority: self.priority.or(others.priority),
            timeout: self.timeout.or(others.timeout),
        }
    }

    /// Puts the options into a group of requests.
    pub(crate) fn apply(self, group: RequestGroup) -> Result<RequestGroup, HttpError> {
        let Self { truncate, prompt_name, normalize, dimensions, cache, priority, timeout } = self;
        let mut group = group;
        if truncate == Some(false) {
            group.truncation = Truncation::Refuse;
        }
        group.prompt = prompt_name;
        (group.vectors.normalize, group.vectors.dimensions) = (normalize, dimensions);
        group.cache = cache.unwrap_or(true);
        group.timeout = timeout.filter(|timeout| *timeout > 0).map(Duration::from_micros);
        group.priority = match priority {
            None | Some(0) => Priority::default(),
            Some(level) => *Priority::ALL.get(level - 1).ok_or_else(|| {
                let allowed = "must be 1 (high), 2 (normal), 3 (low) or 0 (the default)";
                HttpError::invalid("priority", format!("field 'priority' is {level}, but {allowed}"))
            })?,
        };
        Ok(group)
    }
}

/// Names of the options.
const NAMES: [&str; 8] =
    ["cache", "dimensions", "normalize", "priority", "prompt", "prompt_name", "timeout", "truncate"];

/// Refuses fields that are not known, so that a misspelled one does not go unnoticed.
pub(crate) fn refuse_unknown(unknown: &Map<String, Value>, own: &[&'static str]) -> Result<(), HttpError> {
    let Some(name) = unknown.keys().next() else { return Ok(()) };
    let mut known: Vec<&str> = own.iter().chain(&NAMES).copied().collect();
    known.sort_unstable();
    let message = format!("field '{}' is not known; known are: {}", excerpt(name), known.join(", "));
    Err(HttpError::new(Fault::Invalid, message))
}
