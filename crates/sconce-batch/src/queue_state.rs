//! State that callers and devices of a queue share: the batcher, the devices' wakers, and the admission queue.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::device_waker::DeviceWaker;
use crate::reply::{Job, answer, drop_caught};
use crate::sync::{self, Mutex, MutexGuard, lock};
use crate::{Batcher, Error, Executor};

/// Shared by the callers and the devices of one queue.
pub(crate) struct QueueState<E: Executor> {
    batcher: Mutex<Batcher<Job<E>>>,
    /// Devices that drain the queue, the preferred one first.
    wakers: Vec<Arc<DeviceWaker>>,
    /// Notified whenever an entry leaves the queue; holds one permit if nobody listens.
    pub(crate) room: Notify,
    /// Held by the caller at the head of the admission queue, the only one that waits for `room`.
    pub(crate) admission_head: tokio::sync::Mutex<()>,
}

impl<E: Executor> QueueState<E> {
    pub(crate) fn new(batcher: Batcher<Job<E>>, wakers: Vec<Arc<DeviceWaker>>) -> Self {
        Self { batcher: Mutex::new(batcher), wakers, room: Notify::new(), admission_head: tokio::sync::Mutex::new(()) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Batcher<Job<E>>> {
        lock(&self.batcher)
    }

    /// Chooses the device to wake for the queued entries; the device that `looked` just now is awake.
    pub(crate) fn whom_to_wake(&self, batcher: &mut Batcher<Job<E>>, now: Instant, looked: Option<usize>) -> Wake {
        if self.wakers.len() == 1 {
            return Wake::Any;
        }
        self.observe_load(batcher);
        batcher.whom_to_wake(now, looked).map_or(Wake::Nobody, Wake::One)
    }

    pub(crate) fn wake(&self, wake: Wake) {
        match wake {
            Wake::Nobody => {}
            Wake::One(device) => _ = self.wakers[device].wake(),
            Wake::Any => _ = self.wakers.iter().any(|waker| waker.wake()),
            Wake::All => self.wakers.iter().for_each(|waker| _ = waker.wake()),
        }
    }

    /// Tells the batcher until when each of its devices is busy, with other queues' batches too.
    pub(crate) fn observe_load(&self, batcher: &mut Batcher<Job<E>>) {
        batcher.observe_load(self.wakers.iter().map(|waker| waker.busy_until()));
    }

    /// The waker of one device.
    pub(crate) fn waker(&self, device: usize) -> &DeviceWaker {
        &self.wakers[device]
    }

    pub(crate) fn has_several_devices(&self) -> bool {
        self.wakers.len() > 1
    }

    pub(crate) fn close(&self) {
        self.lock().close();
        self.answer_stranded();
        self.wake(Wake::All);
        self.room.notify_one();
    }

    /// Answers the entries that no device will run, after a device was lost or the queue was closed. Also lets callers
    /// that wait for room look again: they may be refused for the same reason.
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

/// The devices to wake.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wake {
    Nobody,
    One(usize),
    /// The first device that sleeps.
    Any,
    All,
}
