//! A batch that runs: each of its entries is answered exactly once, or given back for another device.
//!
//! What fails is run again in smaller parts, so that no item fails for another's sake: a batch that does not fit the memory in
//! halves, one that fails otherwise item by item.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batcher::{Barred, Entry, EntryId, Ran, Trouble};
use crate::lane::{answer, drop_caught};
use crate::shared::{Answer, Completion, Job};
use crate::{Error, Executor, ExecutorError, Priority, sync};

pub(crate) struct Running<E: Executor> {
    items: Vec<E::Item>,
    /// Who waits for each item; `None` once it is answered.
    callers: Vec<Option<Caller<E>>>,
    device: usize,
    started: Instant,
    /// Parts of the batch that are still to run, in order.
    parts: VecDeque<Range<usize>>,
    out_of_memory: bool,
    /// Weight of the heaviest part that ran.
    managed: usize,
    lost: Option<Trouble>,
}

/// What became of a batch, for the batcher.
pub(crate) struct Outcome<E: Executor> {
    pub(crate) ran: Ran,
    /// What this device could not run and another can.
    pub(crate) back: Vec<Entry<Job<E>>>,
    pub(crate) trouble: Vec<Trouble>,
}

impl<E: Executor> Running<E> {
    pub(crate) fn new(batch: Vec<Entry<Job<E>>>, device: usize) -> Self {
        let mut items = Vec::with_capacity(batch.len());
        let mut callers = Vec::with_capacity(batch.len());
        for Entry { id, payload: Job { item, reply }, weight, arrived, deadline, priority, barred } in batch {
            // Cancelled between leaving the queue and here.
            if !reply.is_closed() {
                items.push(item);
                callers.push(Some(Caller { id, reply, weight, arrived, deadline, priority, barred }));
            }
        }
        let (started, parts) = (sync::now(), VecDeque::new());
        Self { items, callers, device, started, parts, out_of_memory: false, managed: 0, lost: None }
    }

    /// Runs it. `has_another` says whether another device can run an entry that does not fit on some.
    pub(crate) fn run(mut self, executor: &mut E, has_another: impl Fn(Barred) -> bool) -> Outcome<E> {
        let (size, weight) = (self.items.len(), self.weight(&(0..self.items.len())));
        let mut run = None;
        if size > 0 {
            self.parts.push_back(0..size);
        }
        while let Some(part) = self.parts.pop_front() {
            let is_whole = part.len() == size;
            if !is_whole && part.len() == 1 && !self.is_still_wanted(part.start) {
                continue;
            }
            match attempt(executor, &self.items[part.clone()]) {
                Ok(outputs) => {
                    let took = sync::now().duration_since(self.started);
                    run = is_whole.then_some(took);
                    self.managed = self.managed.max(self.weight(&part));
                    self.succeed(part, outputs, took);
                }
                Err(error) => self.failed(part, error, &has_another),
            }
            if self.lost.is_some() {
                break;
            }
        }
        self.end(Ran { size, weight, run })
    }

    /// What becomes of a part that failed.
    fn failed(&mut self, part: Range<usize>, error: ExecutorError, has_another: impl Fn(Barred) -> bool) {
        match error {
            ExecutorError::DeviceLost { retry_after, .. } => {
                self.lost = Some(Trouble::Lost { retry_after });
                tracing::error!(device = self.device, %error, "a device is lost");
                // The others are given back.
                for caller in self.callers.iter_mut().filter_map(|caller| caller.take_if(|it| !has_another(it.barred)))
                {
                    answer(caller.reply, Err(error.clone().into()));
                }
            }
            ExecutorError::OutOfMemory(_) => {
                self.out_of_memory = true;
                tracing::warn!(device = self.device, batch_size = part.len(), %error, "a batch does not fit");
                if part.len() > 1 {
                    let middle = part.start + part.len() / 2;
                    self.parts.push_front(middle..part.end);
                    self.parts.push_front(part.start..middle);
                } else if let Some(caller) = &mut self.callers[part.start] {
                    caller.barred = caller.barred.with(self.device);
                    if !has_another(caller.barred) {
                        self.answer(part.start, Err(error.into()));
                    }
                }
            }
            _ if part.len() == 1 => self.answer(part.start, Err(error.into())),
            _ => {
                tracing::warn!(batch_size = part.len(), %error, "a batch failed; its items run once more, one by one");
                for at in part.rev() {
                    self.parts.push_front(at..at + 1);
                }
            }
        }
    }

    /// Whether an item that runs again has a caller that waits and has time; else it is answered.
    fn is_still_wanted(&mut self, at: usize) -> bool {
        let Some(caller) = &self.callers[at] else { return false };
        if caller.reply.is_closed() {
            self.callers[at] = None;
            return false;
        }
        let late = caller.deadline.is_some_and(|deadline| deadline <= sync::now());
        if late {
            self.answer(at, Err(Error::DeadlineExceeded));
        }
        !late
    }

    fn succeed(&mut self, part: Range<usize>, outputs: Vec<E::Output>, run: Duration) {
        let (batch_size, device) = (part.len(), self.device);
        for (at, output) in part.zip(outputs) {
            let Some(arrived) = self.callers[at].as_ref().map(|caller| caller.arrived) else { continue };
            let queue_wait = self.started - arrived;
            self.answer(at, Ok(Completion { output, queue_wait, run, batch_size, device }));
        }
    }

    fn answer(&mut self, at: usize, with: Answer<E>) {
        if let Some(caller) = self.callers[at].take() {
            answer(caller.reply, with);
        }
    }

    fn weight(&self, part: &Range<usize>) -> usize {
        let weights = || self.callers[part.clone()].iter().flatten().map(|caller| caller.weight);
        E::LAYOUT.batch_weight(part.len(), weights().sum(), weights().max().unwrap_or_default())
    }

    /// Whoever has no answer yet goes back into the queue.
    fn end(self, ran: Ran) -> Outcome<E> {
        let Self { items, callers, out_of_memory, managed, lost, .. } = self;
        let (mut back, mut done) = (Vec::new(), Vec::with_capacity(items.len()));
        for (item, caller) in items.into_iter().zip(callers) {
            match caller {
                Some(caller) if !caller.reply.is_closed() => back.push(caller.entry(item)),
                _ => done.push(item),
            }
        }
        drop_caught(done);
        let out_of_memory = out_of_memory.then_some(Trouble::OutOfMemory { managed });
        Outcome { ran, back, trouble: out_of_memory.into_iter().chain(lost).collect() }
    }
}

/// Who waits for an item that is running: all of its entry but the item.
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
    let outputs = catch_unwind(AssertUnwindSafe(|| executor.run(items)))
        .unwrap_or_else(|panic| Err(ExecutorError::Panicked { message: panic_message(&*panic) }))?;
    if outputs.len() == items.len() {
        Ok(outputs)
    } else {
        Err(ExecutorError::WrongOutputCount { expected: items.len(), got: outputs.len() })
    }
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
