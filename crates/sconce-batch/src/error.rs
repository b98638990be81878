//! Errors for which an item gets no output, named by what its caller can do about them.

use std::sync::Arc;
use std::time::Duration;

/// The error with which an item is answered that got no output.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Too many items are queued, those of the admission queue included. Retry later, or wait for room.
    #[error("the queue is full: at most {max} items may wait")]
    QueueFull {
        /// The bound on queued items.
        max: usize,
        /// Time until the next batch makes room; `None` until the cost of a batch is learned.
        retry_after: Option<Duration>,
    },
    /// The queued items weigh too much. Retry later, or wait for room.
    #[error("the queue is full: weight {queued} waits and {weight} more would pass its bound of {max}")]
    QueueTooHeavy {
        /// Weight of the queued items, those of the admission queue included.
        queued: usize,
        /// Weight of the refused item or group.
        weight: usize,
        /// The bound on queued weight.
        max: usize,
        /// Time until the next batch makes room; `None` until the cost of a batch is learned.
        retry_after: Option<Duration>,
    },
    /// The item alone is heavier than a batch may be. Make it smaller.
    #[error("the item weighs {weight}, but a batch holds at most {max}")]
    TooHeavy {
        /// Weight of the item.
        weight: usize,
        /// The bound on the weight of a batch.
        max: usize,
    },
    /// Items that are to be admitted together are more than the queue can hold. Offer them in smaller groups.
    #[error(
        "{items} items of weight {weight} are to be admitted together, but the queue holds at most {max_items} items of \
         weight {max_weight}"
    )]
    GroupTooLarge {
        /// Number of items.
        items: usize,
        /// Their weight.
        weight: usize,
        /// The bound on queued items.
        max_items: usize,
        /// The bound on queued weight.
        max_weight: usize,
    },
    /// So much is queued that the deadline would be missed. Retry later, or elsewhere.
    #[error("the queue is overloaded: an answer would take {wait:?}, more than the deadline allows")]
    Overloaded {
        /// Expected time until the answer.
        wait: Duration,
        /// Time until the same request would be admitted, if nothing more came until then.
        retry_after: Duration,
    },
    /// The deadline passed before the answer was ready, or could not be met any more.
    #[error("the deadline passed, or could not be met any more")]
    DeadlineExceeded {
        /// Time until the next batch makes room; `None` until the cost of a batch is learned.
        retry_after: Option<Duration>,
    },
    /// Every device that could run the item is lost. Retry when one is worth another try, or elsewhere.
    #[error("no device is left that could run the item{}", at_the_earliest(*retry_after))]
    DevicesLost {
        /// Time until the first of them is worth another try; `None` if none ever is.
        retry_after: Option<Duration>,
    },
    /// The queue takes no more work. Retry elsewhere.
    #[error("the queue is shutting down")]
    ShuttingDown,
    /// The executor failed on this item, and on every further try that [`Executor::retry`](crate::Executor::retry) allows.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
}

impl Error {
    /// Time after which to retry, where it is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after, .. }
            | Self::QueueTooHeavy { retry_after, .. }
            | Self::DeadlineExceeded { retry_after }
            | Self::DevicesLost { retry_after }
            | Self::Executor(ExecutorError::DeviceLost { retry_after, .. }) => *retry_after,
            Self::Overloaded { retry_after, .. } => Some(*retry_after),
            Self::TooHeavy { .. } | Self::GroupTooLarge { .. } | Self::ShuttingDown | Self::Executor(_) => None,
        }
    }
}

fn at_the_earliest(retry_after: Option<Duration>) -> String {
    retry_after.map(|after| format!("; one may be back in {after:?}")).unwrap_or_default()
}

/// The failure of an executor. Cheap to clone: a batch shares one cause.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The executor returned an error.
    #[error("the executor failed: {0}")]
    Failed(Arc<dyn std::error::Error + Send + Sync>),
    /// The executor panicked.
    #[error("the executor panicked: {message}")]
    Panicked {
        /// Message of the panic.
        message: Arc<str>,
    },
    /// The device has no memory for this batch, and nothing of it was run. It is halved, down to one item, and an item that
    /// does not fit alone goes to another device of its queue if there is one.
    #[error("the device is out of memory: {0}")]
    OutOfMemory(Arc<dyn std::error::Error + Send + Sync>),
    /// The executor cannot run anything any more. The items of its batch go to the other devices of its queue if there
    /// are any, and run there from the beginning.
    #[error("the device is lost: {cause}")]
    DeviceLost {
        /// The cause of the loss.
        cause: Arc<dyn std::error::Error + Send + Sync>,
        /// Time until it is worth another try; `None` if it never is.
        retry_after: Option<Duration>,
    },
    /// The executor did not give one output per item.
    #[error("the executor gave {got} outputs for {expected} items")]
    WrongOutputCount {
        /// Number of items of the batch.
        expected: usize,
        /// Number of outputs.
        got: usize,
    },
}

impl ExecutorError {
    /// Makes a [`Failed`](Self::Failed) with its cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(Arc::from(cause.into()))
    }

    /// Makes an [`OutOfMemory`](Self::OutOfMemory) with its cause.
    pub fn out_of_memory(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::OutOfMemory(Arc::from(cause.into()))
    }

    /// Makes a [`DeviceLost`](Self::DeviceLost) with its cause, for ever.
    pub fn device_lost(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::DeviceLost { cause: Arc::from(cause.into()), retry_after: None }
    }
}
