//! A runtime that is leaving: what it still has to answer.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Requests of servers, and whether the runtime is leaving.
#[derive(Debug, Default)]
pub(crate) struct Draining {
    started: AtomicBool,
    /// Counted by each request, so an atomic: a channel's locks would cost more than the rest of the bookkeeping.
    in_flight: AtomicUsize,
    /// Notified when the last request is answered.
    idle: Notify,
}

/// A request of a server that is not answered yet. It counts until this is dropped, with its answer or with its client.
#[derive(Debug)]
pub struct InFlight(Arc<Draining>);

impl Draining {
    pub(crate) fn start(&self) {
        self.started.store(true, Ordering::Release);
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
            // Listening before looking: a request that ends in between is not missed.
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
