//! A device: one thread that runs the batches of the queues that share it, one batch at a time. It decides nothing.

use std::sync::Arc;
use std::time::Instant;

use crate::deficit_round_robin::{DeficitRoundRobin, QueueTurn, Want};
use crate::device_waker::DeviceWaker;
use crate::queue_handle::{Outlook, QueueHandle, Taken};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{self, Parker};

/// One thread on which queues run their batches, in turns of fair length ([`DeficitRoundRobin`]).
///
/// Dropping it lets the thread end once the last of its queues is closed and empty.
pub struct DeviceThread {
    waker: Arc<DeviceWaker>,
    thread: Option<JoinHandle<()>>,
}

impl DeviceThread {
    /// Starts the thread, called `sconce-` and `name`.
    ///
    /// # Errors
    /// Errors of the operating system, if it gives no thread.
    pub fn spawn(name: &str) -> std::io::Result<Self> {
        let parker = Parker::new();
        let waker = Arc::new(DeviceWaker::new(parker.unparker().clone()));
        let loop_waker = Arc::clone(&waker);
        let thread =
            thread::Builder::new().name(format!("sconce-{name}")).spawn(move || Loop::new(loop_waker, parker).run())?;
        Ok(Self { waker, thread: Some(thread) })
    }

    pub(crate) fn waker(&self) -> &Arc<DeviceWaker> {
        &self.waker
    }

    /// Waits until the thread has ended, which it does when its queues are closed and empty. Blocks.
    pub(crate) fn join(mut self) {
        self.waker.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a device thread ended by a panic");
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.waker.close();
    }
}

/// State of the device thread.
struct Loop {
    waker: Arc<DeviceWaker>,
    parker: Parker,
    handles: Vec<Box<dyn QueueHandle>>,
    robin: DeficitRoundRobin,
    // Kept between rounds to reuse their memory.
    wants: Vec<Option<Want>>,
    order: Vec<QueueTurn>,
    /// Queues that linger in this round.
    lingers: Vec<usize>,
}

impl Loop {
    fn new(waker: Arc<DeviceWaker>, parker: Parker) -> Self {
        Self {
            waker,
            parker,
            handles: Vec::new(),
            robin: DeficitRoundRobin::default(),
            wants: Vec::new(),
            order: Vec::new(),
            lingers: Vec::new(),
        }
    }

    /// Runs batches until no more queues will come and the last is closed and empty.
    fn run(mut self) {
        loop {
            let mut next = self.next_action();
            if matches!(next, DeviceAction::Sleep(_)) {
                // Set before the last look at the queues: an arrival after that look finds the device asleep and wakes it.
                self.waker.set_asleep(true);
                next = self.next_action();
                if let DeviceAction::Sleep(until) = next {
                    match until {
                        Some(until) => self.parker.park_deadline(until),
                        None => self.parker.park(),
                    }
                }
                self.waker.set_asleep(false);
            }
            match next {
                DeviceAction::Run { queue, in_turn } => {
                    let started = sync::now();
                    self.handles[queue].run();
                    if in_turn {
                        self.robin.charge(queue, sync::now().duration_since(started));
                    }
                }
                DeviceAction::Sleep(_) => {}
                DeviceAction::End => return,
            }
        }
    }

    /// Chooses the next action. For [`DeviceAction::Run`] the queue has already taken its batch.
    fn next_action(&mut self) -> DeviceAction {
        let closed = self.take_arrivals();
        if let [only] = &mut *self.handles {
            // A single queue needs no turns.
            match only.take() {
                Taken::Batch { .. } => return DeviceAction::Run { queue: 0, in_turn: false },
                Taken::NothingUntil(at) => return DeviceAction::Sleep(Some(at)),
                Taken::Nothing => return DeviceAction::Sleep(None),
                Taken::Over => self.end(0),
            }
        }
        let mut wake_at = self.look();
        if closed && self.handles.is_empty() {
            return DeviceAction::End;
        }
        self.robin.order(&self.wants, &mut self.order);
        self.lingers.clear();
        for &turn in &self.order {
            match self.handles[turn.queue].take() {
                Taken::Batch { leaves_work } => {
                    self.robin.begin(turn, &self.wants, leaves_work);
                    for &queue in &self.lingers {
                        self.handles[queue].stop_lingering();
                    }
                    return DeviceAction::Run { queue: turn.queue, in_turn: true };
                }
                Taken::NothingUntil(at) => {
                    wake_at = [wake_at, Some(at)].into_iter().flatten().min();
                    self.lingers.push(turn.queue);
                }
                // The next look drops queues that are over.
                Taken::Nothing | Taken::Over => {}
            }
        }
        DeviceAction::Sleep(wake_at)
    }

    /// Takes in new queues; returns true if no more will come.
    fn take_arrivals(&mut self) -> bool {
        self.waker.take_arrivals(|handle| {
            self.handles.push(handle);
            self.robin.add();
        })
    }

    /// Asks each queue for its work and drops the queues that are over. Returns when to look again at queues that cannot run
    /// here now.
    fn look(&mut self) -> Option<Instant> {
        let mut look_again_at = None;
        self.wants.clear();
        while let Some(handle) = self.handles.get(self.wants.len()) {
            match handle.outlook() {
                Outlook::Work(want) => self.wants.push(Some(want)),
                Outlook::Nothing(until) => {
                    self.wants.push(None);
                    look_again_at = [look_again_at, until].into_iter().flatten().min();
                }
                Outlook::Over => {
                    self.end(self.wants.len());
                }
            }
        }
        look_again_at
    }

    fn end(&mut self, queue: usize) {
        self.robin.remove(queue);
        self.handles.remove(queue).end();
    }
}

/// The next thing that the device thread does.
enum DeviceAction {
    Run {
        queue: usize,
        /// True if the queue waited for its turn, so that the batch is charged to its account.
        in_turn: bool,
    },
    /// Sleep until this instant, or until the waker wakes the thread.
    Sleep(Option<Instant>),
    End,
}

#[cfg(all(test, loom))]
mod orders;
