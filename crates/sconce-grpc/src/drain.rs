//! The draining of the server: its state, and the requests that are still to be answered.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sconce::Runtime;
use tokio::sync::Notify;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Announces that the server is leaving, and tells when the last request is answered. Clones share one state.
#[derive(Clone)]
pub struct Drain {
    shared: Arc<DrainState>,
}

/// The state that clones of a [`Drain`] share.
struct DrainState {
    draining: AtomicBool,
    /// Inferences in flight. An atomic, because every request counts itself, and the locks of a channel would cost more
    /// than the rest of the bookkeeping.
    in_flight: AtomicUsize,
    /// Notified when the last inference is answered.
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
        let shared = Arc::new(DrainState { draining, in_flight, idle, health, services });
        shared.report(ServingStatus::Serving).await;
        Self { shared }
    }

    /// Announces that the server is leaving: health becomes `NOT_SERVING`, `ServerReady` and `ModelReady` become false.
    /// Requests that still come are answered.
    pub async fn start(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.report(ServingStatus::NotServing).await;
    }

    /// Waits until no inference is in flight.
    pub async fn idle(&self) {
        loop {
            // Register for the notification before the count is read, so that a request that ends in between is not missed.
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

    /// Counts an inference until the returned guard is dropped, because it is answered or its client has gone.
    pub(crate) fn enter(&self) -> InFlight {
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight { shared: Arc::clone(&self.shared) }
    }
}

impl DrainState {
    async fn report(&self, status: ServingStatus) {
        for service in &self.services {
            self.health.set_service_status(service, status).await;
        }
    }
}

/// An inference that is not answered yet.
pub(crate) struct InFlight {
    shared: Arc<DrainState>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.shared.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}
