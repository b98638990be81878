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
    /// An error fails the whole batch; each of its items is then run once more alone, so that one bad item fails by
    /// itself.
    fn run(&mut self, batch: &[Self::Item]) -> Result<Vec<Self::Output>, ExecutorError>;

    /// The cost of an item in the unit that bounds batches and queues: tokens for text, say; 1 where all items cost
    /// alike. It is asked once, on the caller's thread, before the item is admitted.
    fn weight(item: &Self::Item) -> usize {
        let _ = item;
        1
    }
}

/// An [`Executor`] from a plain function over a slice of items that all weigh 1.
pub fn from_fn<I, O, F>(function: F) -> impl Executor<Item = I, Output = O>
where
    I: Send + 'static,
    O: Send + 'static,
    F: FnMut(&[I]) -> Result<Vec<O>, ExecutorError> + Send + 'static,
{
    FnExecutor { function, items: std::marker::PhantomData }
}

struct FnExecutor<I, O, F> {
    function: F,
    // `fn` keeps the executor Send whatever the item is.
    items: std::marker::PhantomData<fn(I) -> O>,
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
}
