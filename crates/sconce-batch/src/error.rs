//! Why an item got no output, named by what its caller can do about it.

use std::sync::Arc;
use std::time::Duration;

/// Why an item got no output.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Too many items wait, callers in line for room included. Come back later, or wait for room.
    #[error("the queue is full: at most {max} items may wait")]
    QueueFull {
        /// The bound on waiting items.
        max: usize,
        /// When the next batch will make room, as far as it is learned.
        retry_after: Option<Duration>,
    },
    /// The waiting items weigh too much. Come back later, or wait for room.
    #[error("the queue is full: weight {queued} waits and {weight} more would pass its bound of {max}")]
    QueueTooHeavy {
        /// Weight that waits, that of callers in line for room included.
        queued: usize,
        /// Weight of what was refused.
        weight: usize,
        /// The bound on waiting weight.
        max: usize,
        /// When the next batch will make room, as far as it is learned.
        retry_after: Option<Duration>,
    },
    /// The item alone is heavier than a batch may be. Make it smaller.
    #[error("the item weighs {weight}, but a batch holds at most {max}")]
    TooHeavy {
        /// Weight of the item.
        weight: usize,
        /// The bound on a batch.
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
        /// The bound on waiting items.
        max_items: usize,
        /// The bound on waiting weight.
        max_weight: usize,
    },
    /// So much waits that the deadline would be missed. Come back later, or go elsewhere.
    #[error("the queue is overloaded: an answer would take {wait:?}, more than the deadline allows")]
    Overloaded {
        /// How long the answer is expected to take.
        wait: Duration,
        /// When the same request would be let in, if nothing more came until then.
        retry_after: Duration,
    },
    /// The deadline passed before the answer was there, or could not be met any more.
    #[error("the deadline passed, or could not be met any more")]
    DeadlineExceeded {
        /// When the queue will have caught up, as far as it is learned; `None` if nothing waits.
        retry_after: Option<Duration>,
    },
    /// Every device that could run the item is lost. Come back when one is worth another try, or go elsewhere.
    #[error("no device is left that could run the item{}", at_the_earliest(*retry_after))]
    DevicesLost {
        /// When the first of them is worth another try; `None`: never.
        retry_after: Option<Duration>,
    },
    /// The queue takes no more work. Go elsewhere.
    #[error("the queue is shutting down")]
    ShuttingDown,
    /// The executor failed on this item, and on every further try that [`Executor::retry`](crate::Executor::retry) allows.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
}

impl Error {
    /// When to come back, where that can be told.
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

/// What went wrong in an executor. Cheap to clone: a batch shares one cause.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The executor said so.
    #[error("the executor failed: {0}")]
    Failed(Arc<dyn std::error::Error + Send + Sync>),
    /// The executor panicked.
    #[error("the executor panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: Arc<str>,
    },
    /// The device has no memory for this batch, and nothing of it was run. It is halved, down to one item, and an item that
    /// does not fit alone goes to another device of its queue if there is one.
    #[error("the device is out of memory: {0}")]
    OutOfMemory(Arc<dyn std::error::Error + Send + Sync>),
    /// The executor cannot run anything any more. What it was given goes to the other devices of its queue if there are any,
    /// and is run there from the beginning.
    #[error("the device is lost: {cause}")]
    DeviceLost {
        /// What happened.
        cause: Arc<dyn std::error::Error + Send + Sync>,
        /// When it is worth another try; `None`: never.
        retry_after: Option<Duration>,
    },
    /// The executor did not give one output per item.
    #[error("the executor gave {got} outputs for {expected} items")]
    WrongOutputCount {
        /// Items of the batch.
        expected: usize,
        /// Outputs that came.
        got: usize,
    },
}

impl ExecutorError {
    /// A failure with its cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(Arc::from(cause.into()))
    }

    /// [`OutOfMemory`](Self::OutOfMemory) with its cause.
    pub fn out_of_memory(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::OutOfMemory(Arc::from(cause.into()))
    }

    /// [`DeviceLost`](Self::DeviceLost) with its cause, for ever.
    pub fn device_lost(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::DeviceLost { cause: Arc::from(cause.into()), retry_after: None }
    }
}
