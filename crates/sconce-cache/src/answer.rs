//! Answers of the cache, and failures of computing.

use std::sync::Arc;

use crate::Value;

/// A value and its source; [`Value::precision`] is the precision that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcedValue {
    /// The value.
    pub value: Value,
    /// The source.
    pub source: Source,
}

/// The source of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The tier of this name had it.
    Tier(&'static str),
    /// This caller computed it.
    Computed,
    /// Another caller of this process looked it up or computed it while this one waited.
    Shared,
    /// Another replica computed it while this one waited.
    Replica,
}

/// The failure of a computation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure<E> {
    /// The input is at fault and always fails: remembered for a short time.
    BadInput(E),
    /// The computation may succeed next time: not remembered.
    Passing(E),
}

/// Makes a [`Failure::Passing`], so that `?` works in `compute`; a failure to be remembered must be made explicitly.
impl<E> From<E> for Failure<E> {
    fn from(error: E) -> Self {
        Self::Passing(error)
    }
}

/// The error of [`flush`](crate::Cache::flush): there was not enough time to write all queued entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed before all was written")]
pub struct DeadlineExceeded;

/// The outcome that a flight lands.
pub(crate) type FlightResult<E> = Result<SourcedValue, Arc<E>>;
