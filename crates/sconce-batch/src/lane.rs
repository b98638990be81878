//! A queue as a device sees it: takes a batch, has it run, answers. It decides nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batcher::{Entry, Step};
use crate::running::{Outcome, Running};
use crate::shared::{Job, Shared, Wake};
use crate::sync::{self, WaitGroup};
use crate::{Error, Executor, Want};

/// A queue and the executor that runs its batches on one device, whatever their types.
pub(crate) trait Lane: Send {
    /// What there is to do, at a glance.
    fn outlook(&self) -> Outlook;
    /// Takes the next batch, to be run at once.
    fn take(&mut self) -> Taken;
    /// Runs the batch that was taken, and answers.
    fn run(&mut self);
    /// The device runs another queue's batch, though it waited for company here: wakes another for what waits.
    fn stop_lingering(&self);
    /// Lets go of the executor.
    fn end(self: Box<Self>);
}

pub(crate) enum Outlook {
    Work(Want),
    /// There is nothing to run, at least until this instant if one is given.
    Nothing(Option<Instant>),
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
    /// The place of the device among those of the queue.
    device: usize,
    executor: E,
    batch: Vec<Entry<Job<E>>>,
    /// Dropped last: who waits for it finds that the executor is gone.
    _running: WaitGroup,
}

impl<E: Executor> QueueLane<E> {
    pub(crate) fn new(shared: Arc<Shared<E>>, device: usize, executor: E, running: WaitGroup) -> Self {
        Self { shared, device, executor, batch: Vec::new(), _running: running }
    }

    /// Asks the batcher for the next step, and which other device to wake.
    fn poll(&self) -> Polled<E> {
        let now = sync::now();
        let mut batcher = self.shared.lock();
        let several = self.shared.has_several_devices();
        if several {
            self.shared.observe_load(&mut batcher);
        }
        let step = batcher.poll_on(now, self.device);
        if matches!(step, Step::Run(_)) {
            self.shared.bell(self.device).set_busy_until(batcher.expected_end(self.device));
        }
        let retry_after = matches!(step, Step::Expire(_)).then(|| batcher.retry_after(now)).flatten();
        let leaves_work = !batcher.is_empty();
        // Who lingers is to be left alone, not to be outrun.
        let wake = if several && leaves_work && !batcher.is_lingering() {
            self.shared.whom_to_wake(&mut batcher, now, Some(self.device))
        } else {
            Wake::Nobody
        };
        Polled { step, retry_after, leaves_work, wake }
    }
}

struct Polled<E: Executor> {
    step: Step<Job<E>>,
    /// For callers whose entries expire: when the queue will have caught up.
    retry_after: Option<Duration>,
    leaves_work: bool,
    wake: Wake,
}

impl<E: Executor> Lane for QueueLane<E> {
    fn outlook(&self) -> Outlook {
        let now = sync::now();
        let batcher = self.shared.lock();
        match batcher.want_on(now, self.device) {
            Some(want) => Outlook::Work(want),
            None if batcher.is_over() => Outlook::Over,
            None => Outlook::Nothing(batcher.back_at(now, self.device)),
        }
    }

    fn take(&mut self) -> Taken {
        loop {
            let Polled { step, retry_after, leaves_work, wake } = self.poll();
            self.shared.wake(wake);
            match step {
                Step::Run(batch) => {
                    self.shared.room.notify_one();
                    self.batch = batch;
                    return Taken::Batch { leaves_work };
                }
                Step::Expire(entries) => {
                    self.shared.room.notify_one();
                    for entry in entries {
                        answer(entry.payload.reply, Err(Error::DeadlineExceeded { retry_after }));
                        drop_caught(entry.payload.item);
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
        let running = || Running::new(batch, self.device, &self.shared).run(&mut self.executor);
        // What an executor's own code may do beyond running: its errors and items are dropped in there, too.
        let Outcome { ran, back, trouble } = catch_unwind(AssertUnwindSafe(running)).unwrap_or_else(|panic| {
            drop_caught(panic);
            Outcome::unknown()
        });
        let is_troubled = !trouble.is_empty();
        let wake = {
            let now = sync::now();
            let mut batcher = self.shared.lock();
            self.shared.bell(self.device).set_busy_until(None);
            for trouble in trouble {
                batcher.trouble(now, self.device, trouble);
            }
            batcher.give_back(back);
            batcher.completed_on(now, self.device, ran);
            match self.shared.has_several_devices() {
                false => Wake::Nobody,
                // A closing queue keeps its devices awake only for returned batches: wake them all.
                true if batcher.is_closed() => Wake::All,
                true if batcher.is_empty() => Wake::Nobody,
                // It looks again by itself.
                true => self.shared.whom_to_wake(&mut batcher, now, Some(self.device)),
            }
        };
        self.shared.wake(wake);
        if is_troubled {
            self.shared.answer_stranded();
        }
    }

    fn stop_lingering(&self) {
        let wake = {
            let mut batcher = self.shared.lock();
            batcher.stop_lingering();
            if batcher.is_empty() {
                Wake::Nobody
            } else {
                self.shared.whom_to_wake(&mut batcher, sync::now(), Some(self.device))
            }
        };
        self.shared.wake(wake);
    }

    fn end(self: Box<Self>) {
        // The queues that share the device live on, whatever the end of an executor does.
        drop_caught(*self);
    }
}

pub(crate) fn answer<A>(reply: oneshot::Sender<A>, answer: A) {
    // A caller that went away while its item ran wants no answer.
    if let Err(unwanted) = reply.send(answer) {
        drop_caught(unwanted);
    }
}

/// Drops what is a user's, whose end may panic, on a thread that others need.
pub(crate) fn drop_caught<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // Its own end may panic as well.
        std::mem::forget(panic);
        tracing::error!("{} panicked when it was dropped", std::any::type_name::<T>());
    }
}
