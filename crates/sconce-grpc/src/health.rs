//! The service `grpc.health.v1.Health`, with the call `List`, which tonic's does not have.

use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::Health as Checks;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::HealthService;

use crate::drain::Drain;
use crate::proto::health::health_server::Health;
use crate::proto::health::{HealthListRequest, HealthListResponse};

/// Services at most that are listed, by the health checking protocol.
const MAX_LISTED: usize = 100;

/// Health of the server, the protocol's service and each model.
pub(crate) struct ListedHealth {
    checks: HealthService,
    drain: Drain,
}

impl ListedHealth {
    pub(crate) fn new(checks: HealthService, drain: Drain) -> Self {
        Self { checks, drain }
    }
}

#[tonic::async_trait]
impl Health for ListedHealth {
    type WatchStream = <HealthService as Checks>::WatchStream;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.checks.check(request).await
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let services = self.drain.services().await;
        if services.len() > MAX_LISTED {
            let message = format!("{} services are too many to list: at most {MAX_LISTED}; check each", services.len());
            return Err(Status::resource_exhausted(message));
        }
        let mut response = HealthListResponse::default();
        for service in services {
            let check = Request::new(HealthCheckRequest { service: service.clone() });
            // A model that was unloaded meanwhile is left out.
            if let Ok(status) = self.checks.check(check).await {
                response.statuses.insert(service, status.into_inner());
            }
        }
        Ok(Response::new(response))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.checks.watch(request).await
    }
}
