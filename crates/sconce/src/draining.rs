//! Draining of a runtime that is about to stop: counts the requests that are still to be answered.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Number of servers' requests in flight, and whether the runtime is about to stop.
#[derive(Debug, Default)]
pub(crate) struct Draining {
    started: AtomicBool,
    /// Number of requests in flight. Each request changes it, so it is an atomic: the locks of a channel would cost
    /// more than the rest of the bookkeeping.
    in_flight: AtomicUsize,
    /// Notified when the last request is answered.
    idle: Notify,
    /// Notified when the runtime is about to stop.
    begins: Notify,
}

/// Guard of a server's request. The request counts as in flight until the guard is dropped, when it is answered or its
/// client is gone.
#[derive(Debug)]
pub struct InFlight(Arc<Draining>);

impl Draining {
    pub(crate) fn start(&self) {
        self.started.store(true, Ordering::Release);
        self.begins.notify_waiters();
    }

    pub(crate) async fn started(&self) {
        // Register before reading, as in `idle`.
        let mut notified = pin!(self.begins.notified());
        notified.as_mut().enable();
        if !self.has_started() {
            notified.await;
        }
    }

    pub(crate) fn has_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }

    pub(crate) async fn idle(&self) {
        loop {
            // Register for the notification before reading the count, so that a request that ends in between is not
            // missed.
            let mut notified = pin!(self.idle.notified());
            notified.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
