//! Whether the server is leaving, and what it still has to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sconce::Runtime;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Announces that the server is leaving, and knows when its last request is answered. Clones share both.
#[derive(Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

struct Shared {
    draining: AtomicBool,
    in_flight: watch::Sender<usize>,
    health: HealthReporter,
    /// The services whose health is reported.
    services: Vec<String>,
}

impl Drain {
    /// Reports the server, the protocol's service and each model as `SERVING`.
    pub(crate) async fn new(runtime: &Runtime, health: HealthReporter, service: &str) -> Self {
        let models = runtime.models().map(sconce::Model::name);
        let services: Vec<String> = ["", service].into_iter().chain(models).map(String::from).collect();
        let (in_flight, _) = watch::channel(0);
        let shared = Arc::new(Shared { draining: AtomicBool::new(false), in_flight, health, services });
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
        let mut in_flight = self.shared.in_flight.subscribe();
        // An error means that the sender is gone, but it is in `self`.
        let _ = in_flight.wait_for(|in_flight| *in_flight == 0).await;
    }

    /// Inferences that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        *self.shared.in_flight.borrow()
    }

    pub(crate) fn has_started(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Counts an inference until the guard is dropped, with its answer or with its client.
    pub(crate) fn enter(&self) -> InFlight {
        self.shared.in_flight.send_modify(|in_flight| *in_flight += 1);
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
        self.shared.in_flight.send_modify(|in_flight| *in_flight -= 1);
    }
}
