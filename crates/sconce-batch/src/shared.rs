//! What callers and devices share: the batcher, the devices that drain it, and who waits for room.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::device::Bell;
use crate::lane::{answer, drop_caught};
use crate::sync::{self, Mutex, MutexGuard};
use crate::{Batcher, Error, Executor};

/// An answer, and what it took.
#[derive(Debug, Clone)]
pub struct Completion<O> {
    /// What the executor gave for the item.
    pub output: O,
    /// From admission until the device took the item.
    pub queue_wait: Duration,
    /// How long the device ran the batch, and what of it ran again.
    pub run: Duration,
    /// Items that ran together.
    pub batch_size: usize,
    /// The place of the device that ran it among those of its queue.
    pub device: usize,
}

pub(crate) type Answer<E> = Result<Completion<<E as Executor>::Output>, Error>;

/// What an entry carries through the queue.
pub(crate) struct Job<E: Executor> {
    pub(crate) item: E::Item,
    pub(crate) reply: oneshot::Sender<Answer<E>>,
}

/// What callers and devices share.
pub(crate) struct Shared<E: Executor> {
    batcher: Mutex<Batcher<Job<E>>>,
    /// Devices that drain the queue, the one to be preferred first.
    devices: Vec<Arc<Bell>>,
    /// Told whenever an entry leaves the queue; holds one permit if nobody listens.
    pub(crate) room: Notify,
    /// Held by the one caller that waits for room.
    pub(crate) turnstile: tokio::sync::Mutex<()>,
}

impl<E: Executor> Shared<E> {
    pub(crate) fn new(batcher: Batcher<Job<E>>, devices: Vec<Arc<Bell>>) -> Self {
        Self { batcher: Mutex::new(batcher), devices, room: Notify::new(), turnstile: tokio::sync::Mutex::new(()) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Batcher<Job<E>>> {
        lock(&self.batcher)
    }

    /// Whom to wake for what waits, beside a device that has just looked.
    pub(crate) fn whom_to_wake(&self, batcher: &mut Batcher<Job<E>>, now: Instant, looked: Option<usize>) -> Wake {
        if self.devices.len() == 1 {
            return Wake::Any;
        }
        self.observe_load(batcher);
        batcher.whom_to_wake(now, looked).map_or(Wake::Nobody, Wake::One)
    }

    pub(crate) fn wake(&self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::One(device) => _ = self.devices[device].ring(),
            Wake::Any => _ = self.devices.iter().any(|device| device.ring()),
            Wake::All => self.devices.iter().for_each(|device| _ = device.ring()),
        }
    }

    /// Tells the batcher what its devices are busy with, for other queues, too.
    pub(crate) fn observe_load(&self, batcher: &mut Batcher<Job<E>>) {
        batcher.observe_load(self.devices.iter().map(|device| device.busy_until()));
    }

    /// The bell of one device.
    pub(crate) fn bell(&self, device: usize) -> &Bell {
        &self.devices[device]
    }

    pub(crate) fn has_several_devices(&self) -> bool {
        self.devices.len() > 1
    }

    pub(crate) fn close(&self) {
        self.lock().close();
        self.answer_stranded();
        self.wake(Wake::All);
        self.room.notify_one();
    }

    /// Answers what no device will run, after one was lost or the queue was closed. Callers that wait for room look again: they
    /// may be refused for the same reason.
    pub(crate) fn answer_stranded(&self) {
        let (stranded, retry_after) = {
            let now = sync::now();
            let mut batcher = self.lock();
            let stranded = batcher.stranded(now);
            (stranded, batcher.first_back_at(now).map(|at| at - now))
        };
        for entry in stranded {
            answer(entry.payload.reply, Err(Error::DevicesLost { retry_after }));
            drop_caught(entry.payload.item);
        }
        self.room.notify_one();
    }
}

/// Which devices are told that there is something to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wake {
    Nobody,
    One(usize),
    /// One that sleeps.
    Any,
    All,
}

/// Takes a lock whether or not a holder panicked: the short blocks under our locks leave no half-made state.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
