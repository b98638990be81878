//! Executors: the code that runs batches.

use crate::ExecutorError;

/// The layout of items of different weight in one batch, which decides the weight of the batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum BatchLayout {
    /// Side by side: a batch weighs as much as its items together.
    #[default]
    Packed,
    /// Padded to the longest: a batch weighs its number of items times the weight of the heaviest. Items of like weight
    /// then run together, and shorter ones join only where that is cheaper than a batch of their own.
    Padded,
}

impl BatchLayout {
    /// Weight of a batch of `size` items whose weights sum to `sum` and of which the heaviest weighs `max`.
    #[must_use]
    pub fn batch_weight(self, size: usize, sum: usize, max: usize) -> usize {
        match self {
            Self::Packed => sum,
            Self::Padded => max.saturating_mul(size),
        }
    }
}

/// The retry after a batch failed or panicked.
///
/// Applies to every error but [`OutOfMemory`](ExecutorError::OutOfMemory) and [`DeviceLost`](ExecutorError::DeviceLost):
/// after these, items run again in smaller batches or on another device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Retry {
    /// No retry: each item of the batch gets the error. The only safe choice for an executor with effects that outlive the
    /// call: a failed batch may have had some of them already.
    #[default]
    Never,
    /// The whole batch runs once more. For failures that pass, of an executor whose effects may happen twice.
    Whole,
    /// Each item runs once more, alone, so that one bad item fails by itself. For executors that only compute.
    ItemByItem,
}

/// Runs batches on one device. Each executor lives on one device thread, so it needs no lock.
pub trait Executor: Send + 'static {
    /// One input.
    type Item: Send + 'static;
    /// The answer to one item.
    type Output: Send + 'static;
    /// The layout of items of different weight in one batch.
    const LAYOUT: BatchLayout = BatchLayout::Packed;

    /// Runs a batch, which is never empty. Returns one output per item, in the same order.
    ///
    /// A panic is caught and answered; afterwards the executor is used again, so a panic must leave it usable.
    ///
    /// # Errors
    /// An error fails the whole batch; [`retry`](Self::retry) decides what runs again.
    fn run(&mut self, batch: &[Self::Item]) -> Result<Vec<Self::Output>, ExecutorError>;

    /// Chooses the retry after a batch failed. Items that are cancelled or late by then do not run again.
    fn retry(&self) -> Retry {
        Retry::Never
    }

    /// The weight of an item, in the unit that bounds batches and queues: tokens for text, say; 1 where all items cost
    /// alike. Called once, on the caller's thread, before the item is admitted.
    fn weight(item: &Self::Item) -> usize {
        let _ = item;
        1
    }
}

/// Makes an [`Executor`] of a function over a slice of items that all weigh 1. After a failed batch nothing runs again,
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
    /// Sets the retry after a batch failed.
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
