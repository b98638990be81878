//! A queue as a device sees it: takes a batch, runs it, answers. It decides nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_utils::sync::WaitGroup;
use tokio::sync::oneshot;

use crate::batcher::{Entry, Ran, Step};
use crate::shared::{Answer, Completion, Job, Shared};
use crate::{Error, Executor, ExecutorError, Want};

/// A queue and the executor that runs its batches on one device, whatever their types.
pub(crate) trait Lane: Send {
    /// What there is to do, at a glance.
    fn outlook(&self) -> Outlook;
    /// Takes the next batch, to be run at once.
    fn take(&mut self) -> Taken;
    /// Runs the batch that was taken, and answers.
    fn run(&mut self);
    /// Lets go of the executor.
    fn end(self: Box<Self>);
}

pub(crate) enum Outlook {
    Work(Want),
    Nothing,
    /// The queue is closed and empty.
    Over,
}

pub(crate) enum Taken {
    Batch {
        /// Behind it, in the queue.
        leaves_work: bool,
    },
    /// Ask again then, or after the next arrival.
    NothingUntil(Instant),
    Nothing,
    /// The queue is closed and empty.
    Over,
}

pub(crate) struct QueueLane<E: Executor> {
    shared: Arc<Shared<E>>,
    executor: E,
    batch: Vec<Entry<Job<E>>>,
    /// Dropped last: who waits for it finds that the executor is gone.
    _running: WaitGroup,
}

impl<E: Executor> QueueLane<E> {
    pub(crate) fn new(shared: Arc<Shared<E>>, executor: E, running: WaitGroup) -> Self {
        Self { shared, executor, batch: Vec::new(), _running: running }
    }
}

impl<E: Executor> Lane for QueueLane<E> {
    fn outlook(&self) -> Outlook {
        let batcher = self.shared.lock();
        match batcher.want() {
            Some(want) => Outlook::Work(want),
            None if batcher.is_closed() => Outlook::Over,
            None => Outlook::Nothing,
        }
    }

    fn take(&mut self) -> Taken {
        loop {
            let (step, leaves_work) = {
                let mut batcher = self.shared.lock();
                (batcher.poll(Instant::now()), !batcher.is_empty())
            };
            match step {
                Step::Run(batch) => {
                    self.shared.room.notify_one();
                    self.batch = batch;
                    return Taken::Batch { leaves_work };
                }
                Step::Expire(entries) => {
                    self.shared.room.notify_one();
                    for entry in entries {
                        answer(entry.payload.reply, Err(Error::DeadlineExceeded));
                    }
                }
                Step::WaitUntil(instant) => return Taken::NothingUntil(instant),
                Step::Wait => return Taken::Nothing,
                Step::Finish => return Taken::Over,
            }
        }
    }

    fn run(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let ran = run(&mut self.executor, batch);
        self.shared.lock().completed(Instant::now(), ran);
    }

    fn end(self: Box<Self>) {
        // The queues that share the device live on, whatever the end of an executor does.
        drop_caught(*self);
    }
}

/// Runs a batch and answers each entry exactly once.
fn run<E: Executor>(executor: &mut E, batch: Vec<Entry<Job<E>>>) -> Ran {
    let started = Instant::now();
    let mut items = Vec::with_capacity(batch.len());
    let mut callers = Vec::with_capacity(batch.len());
    let (mut sum, mut max) = (0, 0);
    for Entry { payload: Job { item, reply }, weight: item_weight, arrived, deadline, .. } in batch {
        // Cancelled between leaving the queue and here.
        if !reply.is_closed() {
            items.push(item);
            sum += item_weight;
            max = item_weight.max(max);
            callers.push(Caller { reply, queue_wait: started - arrived, deadline });
        }
    }
    let size = items.len();
    let weight = E::LAYOUT.batch_weight(size, sum, max);
    if size == 0 {
        return Ran { size, weight, run: None };
    }
    let outcome = attempt(executor, &items);
    let run = started.elapsed();
    let ran = Ran { size, weight, run: outcome.is_ok().then_some(run) };
    match outcome {
        Ok(outputs) => {
            for (caller, output) in callers.into_iter().zip(outputs) {
                caller.succeed(output, run, size);
            }
        }
        Err(error) if size == 1 => {
            for caller in callers {
                answer(caller.reply, Err(error.clone().into()));
            }
        }
        Err(error) => {
            tracing::warn!(batch_size = size, %error, "a batch failed; its items run once more, one by one");
            run_one_by_one(executor, &items, callers, started);
        }
    }
    drop_caught(items);
    ran
}

/// So that one bad item fails alone.
fn run_one_by_one<E: Executor>(executor: &mut E, items: &[E::Item], callers: Vec<Caller<E>>, started: Instant) {
    for (item, caller) in items.iter().zip(callers) {
        if caller.reply.is_closed() {
            continue;
        }
        if caller.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            answer(caller.reply, Err(Error::DeadlineExceeded));
            continue;
        }
        match attempt(executor, std::slice::from_ref(item)) {
            Ok(outputs) => {
                let output = outputs.into_iter().next().expect("an attempt gives one output per item");
                caller.succeed(output, started.elapsed(), 1);
            }
            Err(error) => answer(caller.reply, Err(error.into())),
        }
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

/// Who waits for an item that is running.
struct Caller<E: Executor> {
    reply: oneshot::Sender<Answer<E>>,
    queue_wait: Duration,
    deadline: Option<Instant>,
}

impl<E: Executor> Caller<E> {
    fn succeed(self, output: E::Output, run: Duration, batch_size: usize) {
        answer(self.reply, Ok(Completion { output, queue_wait: self.queue_wait, run, batch_size }));
    }
}

fn answer<A>(reply: oneshot::Sender<A>, answer: A) {
    // A caller that went away while its item ran wants no answer.
    if let Err(unwanted) = reply.send(answer) {
        drop_caught(unwanted);
    }
}

/// Drops what is a user's, whose end may panic, on a thread that others need.
fn drop_caught<T>(value: T) {
    if catch_unwind(AssertUnwindSafe(|| drop(value))).is_err() {
        tracing::error!("{} panicked when it was dropped", std::any::type_name::<T>());
    }
}
