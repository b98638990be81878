//! Wakes a device thread that sleeps, and hands it new queues.

use std::time::{Duration, Instant};

use crate::queue_handle::QueueHandle;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{self, Mutex, Unparker, lock};

/// Shared by a device thread and everybody who has work for it.
pub(crate) struct DeviceWaker {
    unparker: Unparker,
    /// Set while the device sleeps and nobody has woken it yet.
    asleep: AtomicBool,
    began: Instant,
    /// Expected end of the running batch, in nanoseconds since `began` and at least 1; 0 if no batch runs.
    busy_until: AtomicU64,
    arrivals: Mutex<Arrivals>,
}

/// Queues that the device thread has not taken in yet.
#[derive(Default)]
struct Arrivals {
    handles: Vec<Box<dyn QueueHandle>>,
    /// True once no more queues will come.
    closed: bool,
}

impl DeviceWaker {
    pub(crate) fn new(unparker: Unparker) -> Self {
        Self {
            unparker,
            asleep: AtomicBool::new(false),
            began: sync::now(),
            busy_until: AtomicU64::new(0),
            arrivals: Mutex::default(),
        }
    }

    /// Wakes the device if it sleeps; returns true if it did.
    pub(crate) fn wake(&self) -> bool {
        let slept = self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst);
        if slept {
            self.unparker.unpark();
        }
        slept
    }

    /// Marks the device as asleep or awake. Called by the device thread alone.
    pub(crate) fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::SeqCst);
    }

    /// Expected end of the running batch; `None` if no batch runs.
    pub(crate) fn busy_until(&self) -> Option<Instant> {
        let until = self.busy_until.load(Ordering::Relaxed);
        (until > 0).then(|| self.began + Duration::from_nanos(until))
    }

    /// Sets the expected end of the running batch. Called by the device thread alone.
    pub(crate) fn set_busy_until(&self, until: Option<Instant>) {
        let nanoseconds = |until: Instant| until.saturating_duration_since(self.began).as_nanos();
        let until = until.map_or(0, |until| u64::try_from(nanoseconds(until)).unwrap_or(u64::MAX).max(1));
        self.busy_until.store(until, Ordering::Relaxed);
    }

    /// Gives the device one more queue whose batches it runs.
    pub(crate) fn add(&self, handle: Box<dyn QueueHandle>) {
        lock(&self.arrivals).handles.push(handle);
        self.wake();
    }

    /// Tells the device that no more queues will come.
    pub(crate) fn close(&self) {
        lock(&self.arrivals).closed = true;
        self.wake();
    }

    /// Passes each new queue to `take`; returns true if no more will come. Called by the device thread alone.
    pub(crate) fn take_arrivals(&self, take: impl FnMut(Box<dyn QueueHandle>)) -> bool {
        let mut arrivals = lock(&self.arrivals);
        arrivals.handles.drain(..).for_each(take);
        arrivals.closed
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sync::Parker;

    #[test]
    fn a_waker_tells_until_when_its_device_is_busy() {
        let waker = DeviceWaker::new(Parker::new().unparker().clone());
        assert_eq!(waker.busy_until(), None);
        let until = waker.began + Duration::from_millis(5);
        waker.set_busy_until(Some(until));
        assert_eq!(waker.busy_until(), Some(until));
        waker.set_busy_until(waker.began.checked_sub(Duration::from_millis(5)));
        assert_eq!(waker.busy_until(), Some(waker.began + Duration::from_nanos(1)), "what is overdue still runs");
        waker.set_busy_until(None);
        assert_eq!(waker.busy_until(), None);
    }
}
