//! What a caller asks and what comes back.

use std::time::Duration;

use sconce_batch::Priority;
use sconce_models::{DeviceName, Input, Output, Precision, Truncation};

use crate::AnswerSource;

/// One item to infer, with its terms. Made from anything that is an [`Input`].
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The input.
    pub input: Input,
    /// How long the caller wants to wait, preparing included; `None` waits as long as it takes.
    pub timeout: Option<Duration>,
    /// How soon it runs among others for the same model.
    pub priority: Priority,
    /// What to do with a text of too many tokens.
    pub truncation: Truncation,
    /// Whether the runtime's cache, if it has one, may answer and keep the answer.
    pub cache: bool,
}

impl Request {
    /// A request with no time limit and of normal priority, that truncates a text of too many tokens.
    pub fn new(input: impl Into<Input>) -> Self {
        Self {
            input: input.into(),
            timeout: None,
            priority: Priority::default(),
            truncation: Truncation::default(),
            cache: true,
        }
    }

    /// Gives up after `timeout`.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Says how soon it runs among others for the same model.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Has it computed whatever the cache holds, and not kept.
    #[must_use]
    pub fn uncached(self) -> Self {
        Self { cache: false, ..self }
    }

    /// Says what to do with a text of too many tokens.
    #[must_use]
    pub fn truncation(self, truncation: Truncation) -> Self {
        Self { truncation, ..self }
    }
}

impl<I: Into<Input>> From<I> for Request {
    fn from(input: I) -> Self {
        Self::new(input)
    }
}

/// Several items to infer together, on the same terms. Made from a list of anything that is an [`Input`].
#[derive(Debug, Clone, PartialEq)]
pub struct RequestGroup {
    /// The inputs.
    pub inputs: Vec<Input>,
    /// How long the caller wants to wait for all answers, preparing included; `None` waits as long as it takes.
    pub timeout: Option<Duration>,
    /// How soon they run among others for the same model.
    pub priority: Priority,
    /// What to do with a text of too many tokens.
    pub truncation: Truncation,
    /// Whether the runtime's cache, if it has one, may answer and keep the answers.
    pub cache: bool,
}

impl RequestGroup {
    /// A group with no time limit and of normal priority, that truncates a text of too many tokens.
    pub fn new(inputs: impl IntoIterator<Item = impl Into<Input>>) -> Self {
        Self {
            inputs: inputs.into_iter().map(Into::into).collect(),
            timeout: None,
            priority: Priority::default(),
            truncation: Truncation::default(),
            cache: true,
        }
    }

    /// Gives up after `timeout`.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Says how soon they run among others for the same model.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Has them computed whatever the cache holds, and not kept.
    #[must_use]
    pub fn uncached(self) -> Self {
        Self { cache: false, ..self }
    }

    /// Says what to do with a text of too many tokens.
    #[must_use]
    pub fn truncation(self, truncation: Truncation) -> Self {
        Self { truncation, ..self }
    }
}

impl<I: Into<Input>> From<Vec<I>> for RequestGroup {
    fn from(inputs: Vec<I>) -> Self {
        Self::new(inputs)
    }
}

/// The answer to one item.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// What the model says.
    pub output: Output,
    /// Tokens that the model read, special ones included; `None` if it reads no tokens.
    pub tokens: Option<usize>,
    /// True if the text had more tokens than the model takes, and its end was left out.
    pub truncated: bool,
    /// What the network was computed in.
    pub precision: Precision,
    /// The device that computed it, whether for this request or before.
    pub device: DeviceName,
    /// Whether it was computed for this request, or where else it came from.
    pub source: AnswerSource,
    /// Where the time went; all zero if it was not computed for this request.
    pub timing: Timing,
}

/// Where the time of one item went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// Checking and preparing the input, the wait for the preparing pool included.
    pub prepare: Duration,
    /// From admission to the queue until a device took the item.
    pub queue_wait: Duration,
    /// The forward pass of the batch it was in.
    pub run: Duration,
    /// Items that ran together.
    pub batch_size: usize,
}
