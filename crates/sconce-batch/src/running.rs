//! A running batch: each of its entries is answered exactly once, or given back for another device.
//!
//! After a failure parts of the batch may run again. A batch that does not fit the memory runs in halves; after any other
//! failure the executor's [`Retry`] decides.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::batcher::{DeviceFault, Entry, EntryId, ExcludedDevices, Ran};
use crate::queue_state::QueueState;
use crate::reply::{Completion, EntryResult, Job, answer, drop_caught};
use crate::{Error, Executor, ExecutorError, Priority, Retry, sync};

pub(crate) struct Running<'a, E: Executor> {
    state: &'a QueueState<E>,
    device: usize,
    started: Instant,
    /// Parts of the batch that are still to run, in order.
    parts: VecDeque<SubBatch<E>>,
    /// Weight of the heaviest part that ran without an error.
    managed: usize,
    outcome: BatchOutcome<E>,
}

/// The outcome of a batch, for the batcher.
pub(crate) struct BatchOutcome<E: Executor> {
    pub(crate) ran: Ran,
    /// Entries that this device could not run and another can.
    pub(crate) back: Vec<Entry<Job<E>>>,
    pub(crate) faults: Vec<DeviceFault>,
}

impl<E: Executor> BatchOutcome<E> {
    /// The outcome of a batch during which a user's code panicked outside of [`Executor::run`].
    pub(crate) fn unknown() -> Self {
        Self { ran: Ran { size: 0, weight: 0, run: None }, back: Vec::new(), faults: Vec::new() }
    }
}

impl<'a, E: Executor> Running<'a, E> {
    pub(crate) fn new(batch: Vec<Entry<Job<E>>>, device: usize, state: &'a QueueState<E>) -> Self {
        let (items, callers) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let mut part = SubBatch { items, callers, has_run: false, is_retry: false };
        for Entry { id, payload: Job { item, reply }, weight, arrived, deadline, priority, excluded } in batch {
            // A caller may have cancelled between the entry leaving the queue and here.
            if !reply.is_closed() {
                part.items.push(item);
                part.callers.push(Caller { id, reply, weight, arrived, deadline, priority, excluded });
            }
        }
        let ran = Ran { size: part.items.len(), weight: part.weight(), run: None };
        let outcome = BatchOutcome { ran, back: Vec::new(), faults: Vec::new() };
        Self { state, device, started: sync::now(), parts: VecDeque::from([part]), managed: 0, outcome }
    }

    pub(crate) fn run(mut self, executor: &mut E) -> BatchOutcome<E> {
        let mut out_of_memory = false;
        while let Some(mut part) = self.parts.pop_front() {
            if part.has_run {
                self.keep_wanted(&mut part);
            }
            if part.items.is_empty() {
                continue;
            }
            match attempt(executor, &part.items) {
                Ok(outputs) => self.succeed(part, outputs),
                Err(error @ ExecutorError::DeviceLost { .. }) => {
                    self.parts.push_front(part);
                    self.lose_device(&error);
                }
                Err(error @ ExecutorError::OutOfMemory(_)) => {
                    out_of_memory = true;
                    self.halve(part, &error);
                }
                Err(error) => self.fail(part, &error, retry(executor)),
            }
        }
        if out_of_memory {
            self.outcome.faults.push(DeviceFault::OutOfMemory { managed: self.managed });
        }
        self.outcome
    }

    fn succeed(&mut self, part: SubBatch<E>, outputs: Vec<E::Output>) {
        let run = sync::now().duration_since(self.started);
        let batch_size = part.items.len();
        self.managed = self.managed.max(part.weight());
        if !part.has_run {
            self.outcome.ran.run = Some(run);
        }
        let device = self.device;
        let mut batch_weight = (!part.has_run).then_some(self.outcome.ran.weight);
        for (caller, output) in part.callers.into_iter().zip(outputs) {
            let (queue_wait, batch_weight) = (self.started - caller.arrived, batch_weight.take());
            answer(caller.reply, Ok(Completion { output, queue_wait, run, batch_size, device, batch_weight }));
        }
        drop_caught(part.items);
    }

    fn fail(&mut self, mut part: SubBatch<E>, error: &ExecutorError, retry: Retry) {
        let batch_size = part.items.len();
        part.has_run = true;
        match retry {
            Retry::Whole if !part.is_retry => {
                tracing::warn!(batch_size, %error, "a batch failed; it runs once more");
                self.parts.push_front(SubBatch { is_retry: true, ..part });
            }
            Retry::ItemByItem if batch_size > 1 => {
                tracing::warn!(batch_size, %error, "a batch failed; its items run once more, one by one");
                for alone in part.into_single_items().rev() {
                    self.parts.push_front(alone);
                }
            }
            _ => part.answer_all(error),
        }
    }

    /// Halves a part for which the device has no memory; gives a single item back.
    fn halve(&mut self, mut part: SubBatch<E>, error: &ExecutorError) {
        tracing::warn!(device = self.device, batch_size = part.items.len(), %error, "a batch does not fit");
        part.has_run = true;
        if part.items.len() == 1 {
            return self.give_back(part, error);
        }
        let behind = part.split_off(part.items.len() / 2);
        self.parts.push_front(behind);
        self.parts.push_front(part);
    }

    /// Ends the batch here: gives back every part that is left.
    fn lose_device(&mut self, error: &ExecutorError) {
        let ExecutorError::DeviceLost { retry_after, .. } = error else { return };
        self.outcome.faults.push(DeviceFault::Lost { retry_after: *retry_after });
        tracing::error!(device = self.device, %error, "a device is lost");
        for part in std::mem::take(&mut self.parts) {
            self.give_back(part, error);
        }
    }

    /// Gives back the items that another device can run, and answers the rest with the error. No item is tried twice on
    /// one device: an item that makes devices fail would go round for ever.
    fn give_back(&mut self, mut part: SubBatch<E>, error: &ExecutorError) {
        self.keep_wanted(&mut part);
        for (item, mut caller) in part.items.into_iter().zip(part.callers) {
            caller.excluded = caller.excluded.with(self.device);
            if self.state.lock().has_another(sync::now(), self.device, caller.excluded) {
                self.outcome.back.push(caller.entry(item));
            } else {
                answer(caller.reply, Err(error.clone().into()));
                drop_caught(item);
            }
        }
    }

    /// Removes cancelled items, and answers items whose deadline has passed: neither runs again.
    fn keep_wanted(&self, part: &mut SubBatch<E>) {
        let now = sync::now();
        let (items, callers) = (std::mem::take(&mut part.items), std::mem::take(&mut part.callers));
        for (item, caller) in items.into_iter().zip(callers) {
            if caller.reply.is_closed() {
                drop_caught(item);
            } else if caller.deadline.is_some_and(|deadline| deadline <= now) {
                let retry_after = self.state.lock().retry_after(now);
                answer(caller.reply, Err(Error::DeadlineExceeded { retry_after }));
                drop_caught(item);
            } else {
                part.items.push(item);
                part.callers.push(caller);
            }
        }
    }
}

/// Items that run together, and their callers in the same order.
struct SubBatch<E: Executor> {
    items: Vec<E::Item>,
    callers: Vec<Caller<E>>,
    /// True if the items ran before, in this part or in a larger one.
    has_run: bool,
    /// True if the items run again, as a whole.
    is_retry: bool,
}

impl<E: Executor> SubBatch<E> {
    fn weight(&self) -> usize {
        let weights = || self.callers.iter().map(|caller| caller.weight);
        E::LAYOUT.batch_weight(self.items.len(), weights().sum(), weights().max().unwrap_or_default())
    }

    fn split_off(&mut self, at: usize) -> Self {
        let Self { items, callers, has_run, is_retry } = self;
        let (items, callers) = (items.split_off(at), callers.split_off(at));
        Self { items, callers, has_run: *has_run, is_retry: *is_retry }
    }

    fn into_single_items(self) -> impl DoubleEndedIterator<Item = Self> {
        let Self { items, callers, has_run, is_retry } = self;
        let pairs = items.into_iter().zip(callers);
        pairs.map(move |(item, caller)| Self { items: vec![item], callers: vec![caller], has_run, is_retry })
    }

    fn answer_all(self, error: &ExecutorError) {
        for caller in self.callers {
            answer(caller.reply, Err(error.clone().into()));
        }
        drop_caught(self.items);
    }
}

/// The caller of a running item: its entry without the item.
struct Caller<E: Executor> {
    id: EntryId,
    reply: oneshot::Sender<EntryResult<E>>,
    weight: usize,
    arrived: Instant,
    deadline: Option<Instant>,
    priority: Priority,
    excluded: ExcludedDevices,
}

impl<E: Executor> Caller<E> {
    fn entry(self, item: E::Item) -> Entry<Job<E>> {
        let Self { id, reply, weight, arrived, deadline, priority, excluded } = self;
        Entry { id, payload: Job { item, reply }, weight, arrived, deadline, priority, excluded }
    }
}

/// Calls the executor once. A panic or a wrong number of outputs becomes an error.
fn attempt<E: Executor>(executor: &mut E, items: &[E::Item]) -> Result<Vec<E::Output>, ExecutorError> {
    // Unwind safety: only the executor's own state can be left half-done, and its contract covers that.
    let outputs = catch_unwind(AssertUnwindSafe(|| executor.run(items))).unwrap_or_else(|panic| {
        let message = panic_message(&*panic);
        drop_caught(panic);
        Err(ExecutorError::Panicked { message })
    })?;
    if outputs.len() == items.len() {
        Ok(outputs)
    } else {
        Err(ExecutorError::WrongOutputCount { expected: items.len(), got: outputs.len() })
    }
}

/// Asks the executor what to retry; [`Retry::Never`] if it panics.
fn retry<E: Executor>(executor: &E) -> Retry {
    catch_unwind(AssertUnwindSafe(|| executor.retry())).unwrap_or_else(|panic| {
        drop_caught(panic);
        Retry::Never
    })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> Arc<str> {
    if let Some(message) = panic.downcast_ref::<&str>() {
        Arc::from(*message)
    } else if let Some(message) = panic.downcast_ref::<String>() {
        Arc::from(message.as_str())
    } else {
        Arc::from("no message")
    }
}
