//! Answers to callers, and the end of values that come from a user's code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::{Error, Executor};

/// An answer, with its timing.
#[derive(Debug, Clone)]
pub struct Completion<O> {
    /// The executor's output for the item.
    pub output: O,
    /// Time from admission until the device took the item.
    pub queue_wait: Duration,
    /// Time for which the device ran the batch, retries included.
    pub run: Duration,
    /// Number of items that ran together.
    pub batch_size: usize,
    /// Index of the device that ran it, among the devices of its queue.
    pub device: usize,
    /// Weight of the batch, padding included, for the first item of a batch that ran at the first try; `None` for all
    /// other items. So each batch is counted once, and a time with retries in it never.
    pub batch_weight: Option<usize>,
}

pub(crate) type EntryResult<E> = Result<Completion<<E as Executor>::Output>, Error>;

/// The payload of an entry: the item and the way to answer its caller.
pub(crate) struct Job<E: Executor> {
    pub(crate) item: E::Item,
    pub(crate) reply: oneshot::Sender<EntryResult<E>>,
}

/// Sends an answer to its caller.
pub(crate) fn answer<A>(reply: oneshot::Sender<A>, answer: A) {
    // A caller that went away while its item ran wants no answer.
    if let Err(unwanted) = reply.send(answer) {
        drop_caught(unwanted);
    }
}

/// Drops a user's value, whose `Drop` may panic, on a thread that others need.
pub(crate) fn drop_caught<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Dropping the panic's payload may panic as well.
        std::mem::forget(panic);
        tracing::error!("{} panicked when it was dropped", std::any::type_name::<T>());
    }
}
