//! What runs batches.

use crate::ExecutorError;

/// Runs batches on one device. Each executor lives on one device thread, so it needs no lock.
pub trait Executor: Send + 'static {
    /// One input.
    type Item: Send + 'static;
    /// The answer to one item.
    type Output: Send + 'static;

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
