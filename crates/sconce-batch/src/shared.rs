//! What callers and device threads share: the batcher, the threads that sleep, and who waits for room.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_utils::sync::Unparker;
use tokio::sync::{Notify, oneshot};

use crate::{Batcher, Error, Executor};

/// An answer, and what it took.
#[derive(Debug, Clone)]
pub struct Completion<O> {
    /// What the executor gave for the item.
    pub output: O,
    /// From admission until the device took the item.
    pub queue_wait: Duration,
    /// How long the device ran the batch (and, if the batch failed, the item alone).
    pub run: Duration,
    /// Items that ran together.
    pub batch_size: usize,
}

pub(crate) type Answer<E> = Result<Completion<<E as Executor>::Output>, Error>;

/// What an entry carries through the queue.
pub(crate) struct Job<E: Executor> {
    pub(crate) item: E::Item,
    pub(crate) reply: oneshot::Sender<Answer<E>>,
}

/// What callers and device threads share.
pub(crate) struct Shared<E: Executor> {
    state: Mutex<State<E>>,
    /// Told whenever an entry leaves the queue; holds one permit if nobody listens.
    pub(crate) room: Notify,
    /// Held by the one caller that waits for room.
    pub(crate) turnstile: tokio::sync::Mutex<()>,
}

pub(crate) struct State<E: Executor> {
    pub(crate) batcher: Batcher<Job<E>>,
    /// Device threads that sleep, the last to fall asleep on top: its caches are the warmest.
    pub(crate) idle: Vec<Idle>,
}

impl<E: Executor> Shared<E> {
    pub(crate) fn new(batcher: Batcher<Job<E>>) -> Self {
        Self {
            state: Mutex::new(State { batcher, idle: Vec::new() }),
            room: Notify::new(),
            turnstile: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<E>> {
        lock(&self.state)
    }

    pub(crate) fn close(&self) {
        let idle = {
            let mut state = self.lock();
            state.batcher.close();
            std::mem::take(&mut state.idle)
        };
        idle.iter().for_each(Idle::wake);
        self.room.notify_one();
    }
}

/// Takes a lock whether or not a holder panicked: the short blocks under our locks leave no half-made state.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device thread that sleeps until there is work.
pub(crate) struct Idle {
    pub(crate) thread: std::thread::ThreadId,
    pub(crate) unparker: Unparker,
}

impl Idle {
    pub(crate) fn wake(&self) {
        self.unparker.unpark();
    }
}
