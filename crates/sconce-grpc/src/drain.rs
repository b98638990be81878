//! Whether the server is leaving, and what it still has to answer.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sconce::Runtime;
use tokio::sync::Notify;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Announces that the server is leaving, and knows when its last request is answered. Clones share both.
#[derive(Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

struct Shared {
    draining: AtomicBool,
    /// Counted by each request, so an atomic: a channel's locks would cost more than the rest of the bookkeeping.
    in_flight: AtomicUsize,
    /// Told when the last one is answered.
    idle: Notify,
    health: HealthReporter,
    /// The services whose health is reported.
    services: Vec<String>,
}

impl Drain {
    /// Reports the server, the protocol's service and each model as `SERVING`.
    pub(crate) async fn new(runtime: &Runtime, health: HealthReporter, service: &str) -> Self {
        let models = runtime.models().map(sconce::Model::name);
        let services: Vec<String> = ["", service].into_iter().chain(models).map(String::from).collect();
        let (draining, in_flight, idle) = (AtomicBool::new(false), AtomicUsize::new(0), Notify::new());
        let shared = Arc::new(Shared { draining, in_flight, idle, health, services });
        shared.report(ServingStatus::Serving).await;
        Self { shared }
    }

    /// Tells everyone who asks that the server is leaving: health is `NOT_SERVING`, `ServerReady` and `ModelReady` are
    /// false. Requests that come all the same are still answered.
    pub async fn start(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.report(ServingStatus::NotServing).await;
    }

    /// Waits until no inference is in flight.
    pub async fn idle(&self) {
        loop {
            // Listening before looking: a request that ends in between is not missed.
            let mut told = pin!(self.shared.idle.notified());
            told.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            told.await;
        }
    }

    /// Inferences that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    pub(crate) fn has_started(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Counts an inference until the guard is dropped, with its answer or with its client.
    pub(crate) fn enter(&self) -> InFlight {
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight { shared: Arc::clone(&self.shared) }
    }
}

impl Shared {
    async fn report(&self, status: ServingStatus) {
        for service in &self.services {
            self.health.set_service_status(service, status).await;
        }
    }
}

/// An inference that is not answered yet.
pub(crate) struct InFlight {
    shared: Arc<Shared>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.shared.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}
