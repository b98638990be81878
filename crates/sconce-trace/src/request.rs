//! One request of a trace.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One request: its arrival, its size and its terms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordedRequest {
    /// Time from the beginning of the trace to the arrival.
    pub at: Duration,
    /// The model that was asked; `None` in traces of one model.
    pub model: Option<Arc<str>>,
    /// Number of items; at least 1.
    pub items: u32,
    /// Weight of all items together: tokens of text. `None` if it is not known, for instance of a request that was refused.
    pub weight: Option<u32>,
    /// The priority.
    pub priority: RecordedPriority,
    /// The time for which the caller waits; `None` for no limit.
    pub deadline: Option<Duration>,
    /// The inputs, one for each item; empty if they were not recorded.
    pub inputs: Vec<RecordedInput>,
}

/// The priority of a request among others for the same model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordedPriority {
    /// The highest priority.
    High,
    /// The default.
    #[default]
    Normal,
    /// The lowest priority.
    Low,
}

/// The content of one item. Inputs of other kinds, such as images, are not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RecordedInput {
    /// A text.
    Text(String),
    /// Two texts that are read together.
    Pair([String; 2]),
    /// Numbers of tokens.
    Tokens(Vec<u32>),
}

impl RecordedRequest {
    /// A request of one item that arrives `at` this time and has this weight.
    #[must_use]
    pub fn one(at: Duration, weight: u32) -> Self {
        Self { at, items: 1, weight: Some(weight), ..Self::default() }
    }
}
