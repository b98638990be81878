//! What a caller of the cache gets.

use std::sync::Arc;

use crate::Value;

/// A value and where it came from; [`Value::precision`] says which precision made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// Where it came from.
    pub source: Source,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The tier of this name had it.
    Tier(&'static str),
    /// It was computed for this caller.
    Computed,
    /// Another caller of this process was at it already; whether that one computed it is not said.
    Shared,
    /// Another replica computed it while this one waited.
    Replica,
}

/// Why computing gave no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure<E> {
    /// The input is at fault and always will be: remembered for a short time.
    BadInput(E),
    /// It may go well next time: not remembered.
    Passing(E),
}

/// So that `?` works where computing calls what may fail: remembering a failure is said explicitly.
impl<E> From<E> for Failure<E> {
    fn from(error: E) -> Self {
        Self::Passing(error)
    }
}

/// There was not enough time to write all that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed before all was written")]
pub struct DeadlineExceeded;

/// What a flight lands.
pub(crate) type Outcome<E> = Result<Answer, Arc<E>>;
