//! A queue's worker on one device: takes a batch, has it run, answers its callers. It decides nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::batcher::{Entry, Step};
use crate::queue_handle::{Outlook, QueueHandle, Taken};
use crate::queue_state::{QueueState, Wake};
use crate::reply::{Job, answer, drop_caught};
use crate::running::{BatchOutcome, Running};
use crate::sync::{self, WaitGroup};
use crate::{Error, Executor};

/// The [`QueueHandle`] of a queue whose items and executor have these types.
pub(crate) struct QueueWorker<E: Executor> {
    state: Arc<QueueState<E>>,
    /// Index of the device among those of the queue.
    device: usize,
    executor: E,
    batch: Vec<Entry<Job<E>>>,
    /// Dropped last, so that a shutdown that waits for it finds the executor gone.
    _running: WaitGroup,
}

impl<E: Executor> QueueWorker<E> {
    pub(crate) fn new(state: Arc<QueueState<E>>, device: usize, executor: E, running: WaitGroup) -> Self {
        Self { state, device, executor, batch: Vec::new(), _running: running }
    }

    /// Asks the batcher for the next step, and for another device to wake.
    fn poll(&self) -> Polled<E> {
        let now = sync::now();
        let mut batcher = self.state.lock();
        let several = self.state.has_several_devices();
        if several {
            self.state.observe_load(&mut batcher);
        }
        let step = batcher.poll_on(now, self.device);
        if matches!(step, Step::Run(_)) {
            self.state.waker(self.device).set_busy_until(batcher.expected_end(self.device));
        }
        let retry_after = matches!(step, Step::Expire(_)).then(|| batcher.retry_after(now)).flatten();
        let leaves_work = !batcher.is_empty();
        // While a device lingers no other is woken: it would take the batch before its company came.
        let wake = if several && leaves_work && !batcher.is_lingering() {
            self.state.whom_to_wake(&mut batcher, now, Some(self.device))
        } else {
            Wake::Nobody
        };
        Polled { step, retry_after, leaves_work, wake }
    }
}

struct Polled<E: Executor> {
    step: Step<Job<E>>,
    /// Time until the next batch makes room, for callers whose entries expire.
    retry_after: Option<Duration>,
    leaves_work: bool,
    wake: Wake,
}

impl<E: Executor> QueueHandle for QueueWorker<E> {
    fn outlook(&self) -> Outlook {
        let now = sync::now();
        let batcher = self.state.lock();
        match batcher.want_on(now, self.device) {
            Some(want) => Outlook::Work(want),
            None if batcher.is_over() => Outlook::Over,
            None => Outlook::Nothing(batcher.back_at(now, self.device)),
        }
    }

    fn take(&mut self) -> Taken {
        loop {
            let Polled { step, retry_after, leaves_work, wake } = self.poll();
            self.state.wake(wake);
            match step {
                Step::Run(batch) => {
                    self.state.room.notify_one();
                    self.batch = batch;
                    return Taken::Batch { leaves_work };
                }
                Step::Expire(entries) => {
                    self.state.room.notify_one();
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
        let running = || Running::new(batch, self.device, &self.state).run(&mut self.executor);
        // A user's code may also panic where its errors and items are dropped.
        let BatchOutcome { ran, back, faults } = catch_unwind(AssertUnwindSafe(running)).unwrap_or_else(|panic| {
            drop_caught(panic);
            BatchOutcome::unknown()
        });
        let has_faults = !faults.is_empty();
        let wake = {
            let now = sync::now();
            let mut batcher = self.state.lock();
            self.state.waker(self.device).set_busy_until(None);
            for fault in faults {
                batcher.report_fault(now, self.device, fault);
            }
            batcher.give_back(back);
            batcher.completed_on(now, self.device, ran);
            match self.state.has_several_devices() {
                false => Wake::Nobody,
                // A closing queue keeps idle devices only for batches that may come back: wake them all to look again.
                true if batcher.is_closed() => Wake::All,
                true if batcher.is_empty() => Wake::Nobody,
                // This device looks again by itself.
                true => self.state.whom_to_wake(&mut batcher, now, Some(self.device)),
            }
        };
        self.state.wake(wake);
        if has_faults {
            self.state.answer_stranded();
        }
    }

    fn stop_lingering(&self) {
        let wake = {
            let mut batcher = self.state.lock();
            batcher.stop_lingering();
            if batcher.is_empty() {
                Wake::Nobody
            } else {
                self.state.whom_to_wake(&mut batcher, sync::now(), Some(self.device))
            }
        };
        self.state.wake(wake);
    }

    fn end(self: Box<Self>) {
        // A panic in the executor's drop must not end the device, which other queues may share.
        drop_caught(*self);
    }
}
