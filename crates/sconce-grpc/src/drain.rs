//! Leaving, as gRPC's health protocol says it.

use std::sync::Arc;

use sconce::Runtime;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Announces that the server is leaving, and tells when the last request is answered. Clones share one state.
#[derive(Clone)]
pub struct Drain {
    runtime: Runtime,
    health: HealthReporter,
    /// The services whose health is reported.
    services: Arc<[String]>,
}

impl Drain {
    /// Reports the server, the protocol's service and each model as `SERVING`.
    pub(crate) async fn new(runtime: &Runtime, health: HealthReporter, service: &str) -> Self {
        let models = runtime.models().map(sconce::Model::name);
        let services = ["", service].into_iter().chain(models).map(String::from).collect();
        let drain = Self { runtime: runtime.clone(), health, services };
        drain.report(ServingStatus::Serving).await;
        drain
    }

    /// Announces that the server is leaving: health becomes `NOT_SERVING`, `ServerReady` and `ModelReady` become false.
    /// Requests that still come are answered.
    pub async fn start(&self) {
        self.runtime.start_draining();
        self.report(ServingStatus::NotServing).await;
    }

    /// Waits until no inference is in flight.
    pub async fn idle(&self) {
        self.runtime.idle().await;
    }

    /// Inferences that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.runtime.in_flight()
    }

    /// The services whose health is reported.
    pub(crate) fn services(&self) -> &[String] {
        &self.services
    }

    async fn report(&self, status: ServingStatus) {
        for service in &*self.services {
            self.health.set_service_status(service, status).await;
        }
    }
}
