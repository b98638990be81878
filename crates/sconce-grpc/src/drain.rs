//! Health of the server and its models, and leaving, as gRPC's health protocol says them.

use std::collections::BTreeSet;
use std::sync::Arc;

use sconce::Runtime;
use tokio::sync::Mutex;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Announces that the server is leaving, and tells when the last request is answered. Clones share one state.
#[derive(Clone)]
pub struct Drain {
    runtime: Runtime,
    health: HealthReporter,
    /// The protocol's service.
    service: &'static str,
    /// The models whose health was reported. Locked while it is reported, so that the last report is the newest.
    reported: Arc<Mutex<BTreeSet<String>>>,
}

impl Drain {
    /// Reports the server, the protocol's service and each model as `SERVING`.
    pub(crate) async fn new(runtime: &Runtime, health: HealthReporter, service: &'static str) -> Self {
        let drain = Self { runtime: runtime.clone(), health, service, reported: Arc::default() };
        drain.report().await;
        drain
    }

    /// Announces that the server is leaving: health becomes `NOT_SERVING`, `ServerReady` and `ModelReady` become false.
    /// Requests that still come are answered.
    pub async fn start(&self) {
        self.runtime.start_draining();
        self.report().await;
    }

    /// Reports the health of models as they are loaded and unloaded, and of the server once the runtime drains. Never ends:
    /// [`serve`](crate::serve) does it, and a server of your own runs it beside itself.
    pub async fn follow(&self) {
        let mut changes = self.runtime.model_changes();
        let leaving = async {
            self.runtime.draining().await;
            self.start().await;
        };
        let changing = async {
            loop {
                self.report().await;
                // The runtime, and so the sender, is kept by `self`.
                let _ = changes.changed().await;
            }
        };
        tokio::join!(leaving, changing);
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
    pub(crate) async fn services(&self) -> Vec<String> {
        let models = self.reported.lock().await;
        ["", self.service].into_iter().chain(models.iter().map(String::as_str)).map(String::from).collect()
    }

    async fn report(&self) {
        let mut reported = self.reported.lock().await;
        let status = if self.runtime.is_draining() { ServingStatus::NotServing } else { ServingStatus::Serving };
        let models: BTreeSet<String> = self.runtime.models().iter().map(|model| model.name().to_owned()).collect();
        for service in ["", self.service].into_iter().chain(models.iter().map(String::as_str)) {
            self.health.set_service_status(service, status).await;
        }
        for gone in reported.difference(&models) {
            self.health.clone().clear_service_status(gone).await;
        }
        *reported = models;
    }
}
