//! A batch that runs: each of its entries is answered exactly once, or given back for another device.
//!
//! After a failure parts of the batch may run again. A batch that does not fit the memory runs in halves; after any other
//! failure the executor's [`Retry`] decides.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::batcher::{Barred, Entry, EntryId, Ran, Trouble};
use crate::lane::{answer, drop_caught};
use crate::shared::{Answer, Completion, Job, Shared};
use crate::{Error, Executor, ExecutorError, Priority, Retry, sync};

pub(crate) struct Running<'a, E: Executor> {
    shared: &'a Shared<E>,
    device: usize,
    started: Instant,
    /// Parts of the batch that are still to run, in order.
    parts: VecDeque<Part<E>>,
    /// Weight of the heaviest part that ran.
    managed: usize,
    outcome: Outcome<E>,
}

/// What became of a batch, for the batcher.
pub(crate) struct Outcome<E: Executor> {
    pub(crate) ran: Ran,
    /// Entries that this device could not run and another can.
    pub(crate) back: Vec<Entry<Job<E>>>,
    pub(crate) trouble: Vec<Trouble>,
}

impl<E: Executor> Outcome<E> {
    /// Of a batch whose end panicked.
    pub(crate) fn unknown() -> Self {
        Self { ran: Ran { size: 0, weight: 0, run: None }, back: Vec::new(), trouble: Vec::new() }
    }
}

impl<'a, E: Executor> Running<'a, E> {
    pub(crate) fn new(batch: Vec<Entry<Job<E>>>, device: usize, shared: &'a Shared<E>) -> Self {
        let (items, callers) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let mut part = Part { items, callers, has_run: false, is_retry: false };
        for Entry { id, payload: Job { item, reply }, weight, arrived, deadline, priority, barred } in batch {
            // Cancelled between leaving the queue and here.
            if !reply.is_closed() {
                part.items.push(item);
                part.callers.push(Caller { id, reply, weight, arrived, deadline, priority, barred });
            }
        }
        let ran = Ran { size: part.items.len(), weight: part.weight(), run: None };
        let outcome = Outcome { ran, back: Vec::new(), trouble: Vec::new() };
        Self { shared, device, started: sync::now(), parts: VecDeque::from([part]), managed: 0, outcome }
    }

    pub(crate) fn run(mut self, executor: &mut E) -> Outcome<E> {
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
            self.outcome.trouble.push(Trouble::OutOfMemory { managed: self.managed });
        }
        self.outcome
    }

    fn succeed(&mut self, part: Part<E>, outputs: Vec<E::Output>) {
        let run = sync::now().duration_since(self.started);
        let batch_size = part.items.len();
        self.managed = self.managed.max(part.weight());
        if !part.has_run {
            self.outcome.ran.run = Some(run);
        }
        for (caller, output) in part.callers.into_iter().zip(outputs) {
            let queue_wait = self.started - caller.arrived;
            answer(caller.reply, Ok(Completion { output, queue_wait, run, batch_size, device: self.device }));
        }
        drop_caught(part.items);
    }

    fn fail(&mut self, mut part: Part<E>, error: &ExecutorError, retry: Retry) {
        let batch_size = part.items.len();
        part.has_run = true;
        match retry {
            Retry::Whole if !part.is_retry => {
                tracing::warn!(batch_size, %error, "a batch failed; it runs once more");
                self.parts.push_front(Part { is_retry: true, ..part });
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

    /// The device has no memory for this part.
    fn halve(&mut self, mut part: Part<E>, error: &ExecutorError) {
        tracing::warn!(device = self.device, batch_size = part.items.len(), %error, "a batch does not fit");
        part.has_run = true;
        if part.items.len() == 1 {
            return self.give_back(part, error);
        }
        let behind = part.split_off(part.items.len() / 2);
        self.parts.push_front(behind);
        self.parts.push_front(part);
    }

    /// Ends the batch: nothing more of it runs here.
    fn lose_device(&mut self, error: &ExecutorError) {
        let ExecutorError::DeviceLost { retry_after, .. } = error else { return };
        self.outcome.trouble.push(Trouble::Lost { retry_after: *retry_after });
        tracing::error!(device = self.device, %error, "a device is lost");
        for part in std::mem::take(&mut self.parts) {
            self.give_back(part, error);
        }
    }

    /// Gives back what another device can run, and answers the rest. Nothing is tried twice on one device: an item that makes it
    /// fail would go round for ever.
    fn give_back(&mut self, mut part: Part<E>, error: &ExecutorError) {
        self.keep_wanted(&mut part);
        for (item, mut caller) in part.items.into_iter().zip(part.callers) {
            caller.barred = caller.barred.with(self.device);
            if self.shared.lock().has_another(sync::now(), self.device, caller.barred) {
                self.outcome.back.push(caller.entry(item));
            } else {
                answer(caller.reply, Err(error.clone().into()));
                drop_caught(item);
            }
        }
    }

    /// Leaves out items that were cancelled, and answers those whose time is over: neither runs again.
    fn keep_wanted(&self, part: &mut Part<E>) {
        let now = sync::now();
        let (items, callers) = (std::mem::take(&mut part.items), std::mem::take(&mut part.callers));
        for (item, caller) in items.into_iter().zip(callers) {
            if caller.reply.is_closed() {
                drop_caught(item);
            } else if caller.deadline.is_some_and(|deadline| deadline <= now) {
                let retry_after = self.shared.lock().retry_after(now);
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
struct Part<E: Executor> {
    items: Vec<E::Item>,
    callers: Vec<Caller<E>>,
    /// Whether they ran before, in this part or in a larger one.
    has_run: bool,
    /// Whether they run again as a whole.
    is_retry: bool,
}

impl<E: Executor> Part<E> {
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

/// The caller of an item that is running: all of its entry but the item.
struct Caller<E: Executor> {
    id: EntryId,
    reply: oneshot::Sender<Answer<E>>,
    weight: usize,
    arrived: Instant,
    deadline: Option<Instant>,
    priority: Priority,
    barred: Barred,
}

impl<E: Executor> Caller<E> {
    fn entry(self, item: E::Item) -> Entry<Job<E>> {
        let Self { id, reply, weight, arrived, deadline, priority, barred } = self;
        Entry { id, payload: Job { item, reply }, weight, arrived, deadline, priority, barred }
    }
}

/// One call of the executor: a panic becomes an error, and there is one output per item.
fn attempt<E: Executor>(executor: &mut E, items: &[E::Item]) -> Result<Vec<E::Output>, ExecutorError> {
    // Unwind safety: what a panic may leave half-done belongs to the executor, whose contract covers it.
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

/// The executor's choice; nothing runs again where asking it panics.
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
