//! What runs batches.

use crate::ExecutorError;

/// How an executor lays out items of different weight in one batch, which decides what the batch costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Side by side: a batch costs what its items weigh.
    #[default]
    Packed,
    /// Padded to the longest: a batch costs as many times its heaviest item as it has items. Items of like weight then run
    /// together, and shorter ones only where that is cheaper than a batch of their own.
    Padded,
}

impl Layout {
    /// What a batch of `size` items weighs whose weights sum to `sum` and of which the heaviest weighs `max`.
    #[must_use]
    pub fn batch_weight(self, size: usize, sum: usize, max: usize) -> usize {
        match self {
            Self::Packed => sum,
            Self::Padded => max.saturating_mul(size),
        }
    }
}

/// What runs again after a batch failed or panicked.
///
/// An executor that returns [`OutOfMemory`](ExecutorError::OutOfMemory) or [`DeviceLost`](ExecutorError::DeviceLost) says by
/// that error what is to be done; the choice here is for all other failures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Nothing: each item of the batch gets the error. The only safe choice for an executor with effects that outlive the
    /// call: a failed batch may have had some of them already.
    #[default]
    Never,
    /// The whole batch, once. For failures that pass, of an executor whose effects may happen twice.
    Whole,
    /// Each item alone, once, so that one bad item fails by itself. For executors that only compute.
    ItemByItem,
}

/// Runs batches on one device. Each executor lives on one device thread, so it needs no lock.
pub trait Executor: Send + 'static {
    /// One input.
    type Item: Send + 'static;
    /// The answer to one item.
    type Output: Send + 'static;
    /// How it lays out items of different weight in one batch.
    const LAYOUT: Layout = Layout::Packed;

    /// One output per item, in the same order. `batch` is never empty.
    ///
    /// A panic is caught and answered; afterwards the executor is used again, so it must leave itself in order.
    ///
    /// # Errors
    /// An error fails the whole batch; [`retry`](Self::retry) says what of it runs again.
    fn run(&mut self, batch: &[Self::Item]) -> Result<Vec<Self::Output>, ExecutorError>;

    /// What runs again after a batch failed. Items that were cancelled or are late by then do not.
    fn retry(&self) -> Retry {
        Retry::Never
    }

    /// The cost of an item in the unit that bounds batches and queues: tokens for text, say; 1 where all items cost
    /// alike. It is asked once, on the caller's thread, before the item is admitted.
    fn weight(item: &Self::Item) -> usize {
        let _ = item;
        1
    }
}

/// An [`Executor`] from a plain function over a slice of items that all weigh 1. After a failed batch nothing runs again,
/// unless [`FnExecutor::retry`] says so.
pub fn from_fn<I, O, F>(function: F) -> FnExecutor<I, O, F>
where
    I: Send + 'static,
    O: Send + 'static,
    F: FnMut(&[I]) -> Result<Vec<O>, ExecutorError> + Send + 'static,
{
    FnExecutor { function, retry: Retry::Never, items: std::marker::PhantomData }
}

/// An [`Executor`] made by [`from_fn`].
pub struct FnExecutor<I, O, F> {
    function: F,
    retry: Retry,
    // `fn` keeps the executor Send whatever the item is.
    items: std::marker::PhantomData<fn(I) -> O>,
}

impl<I, O, F> FnExecutor<I, O, F> {
    /// Says what runs again after a batch failed.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }
}

impl<I, O, F> Executor for FnExecutor<I, O, F>
where
    I: Send + 'static,
    O: Send + 'static,
    F: FnMut(&[I]) -> Result<Vec<O>, ExecutorError> + Send + 'static,
{
    type Item = I;
    type Output = O;

    fn run(&mut self, batch: &[I]) -> Result<Vec<O>, ExecutorError> {
        (self.function)(batch)
    }

    fn retry(&self) -> Retry {
        self.retry
    }
}
