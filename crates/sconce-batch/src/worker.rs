//! A device thread: sleeps, asks the batcher, runs the batch, answers. It decides nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_utils::sync::Parker;
use tokio::sync::oneshot;

use crate::batcher::{Entry, Ran, Step};
use crate::shared::{Answer, Completion, Idle, Job, Shared};
use crate::{Error, Executor, ExecutorError};

/// Runs batches until the queue is closed and empty.
pub(crate) fn drain<E: Executor>(shared: &Shared<E>, mut executor: E) {
    let parker = Parker::new();
    let thread = std::thread::current().id();
    let mut ran = None;
    loop {
        let step = {
            let mut state = shared.lock();
            let now = Instant::now();
            if let Some(ran) = ran.take() {
                state.batcher.completed(now, ran);
            }
            // A timeout leaves this thread on the list; an arrival took it off.
            state.idle.retain(|idle| idle.thread != thread);
            let step = state.batcher.poll(now);
            if matches!(step, Step::Wait | Step::WaitUntil(_)) {
                state.idle.push(Idle { thread, unparker: parker.unparker().clone() });
            }
            step
        };
        match step {
            Step::Run(batch) => {
                shared.room.notify_one();
                ran = Some(run(&mut executor, batch));
            }
            Step::Expire(entries) => {
                shared.room.notify_one();
                for entry in entries {
                    answer(entry.payload.reply, Err(Error::DeadlineExceeded));
                }
            }
            Step::WaitUntil(instant) => parker.park_deadline(instant),
            Step::Wait => parker.park(),
            Step::Finish => return,
        }
    }
}

/// Runs a batch and answers each entry exactly once.
fn run<E: Executor>(executor: &mut E, batch: Vec<Entry<Job<E>>>) -> Ran {
    let started = Instant::now();
    let mut items = Vec::with_capacity(batch.len());
    let mut callers = Vec::with_capacity(batch.len());
    let mut weight = 0;
    for Entry { payload: Job { item, reply }, weight: item_weight, arrived, deadline, .. } in batch {
        // Cancelled between leaving the queue and here.
        if !reply.is_closed() {
            items.push(item);
            weight += item_weight;
            callers.push(Caller { reply, queue_wait: started - arrived, deadline });
        }
    }
    let size = items.len();
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
    drop(reply.send(answer));
}
