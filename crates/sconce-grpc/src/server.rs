//! The server around the service: health, reflection, limits, and an orderly shutdown.

use std::future::Future;

use sconce::{ConfigError, Runtime};
use sconce_server::{HttpVersions, ServerBounds, ServerLimits, ServerListener, serve_until};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::server::NamedService as _;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic_health::server::{HealthReporter, HealthService};

use crate::deadline;
use crate::drain::Drain;
use crate::health::ListedHealth;
use crate::inference::Inference;
use crate::metered::Metered;
use crate::proto::FILE_DESCRIPTOR_SET;
use crate::proto::health::health_server::HealthServer;
use crate::service::Service;
use crate::unserved;

/// The reason why a server cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A limit is out of bounds.
    #[error(transparent)]
    Limits(#[from] ConfigError),
}

/// Serves `runtime` on `listener` until `shutdown` resolves, then drains: clients are told, no connections are accepted
/// any more, requests in flight are answered, and the runtime is shut down. The [`ServerLimits`] are the default ones.
///
/// # Errors
/// [`ServeError`], only before it serves; a later failure of a connection ends that connection alone.
pub async fn serve(
    runtime: Runtime,
    listener: impl Into<ServerListener>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    serve_within(ServerLimits::default(), runtime, listener, shutdown).await
}

/// Does what [`serve`] does, within the given limits.
///
/// # Errors
/// [`ServeError`] if a limit is out of bounds.
pub async fn serve_within(
    limits: ServerLimits,
    runtime: Runtime,
    listener: impl Into<ServerListener>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    serve_beside(&ServerBounds::new(limits)?, runtime.clone(), listener, shutdown).await;
    runtime.shutdown().await;
    Ok(())
}

/// Does what [`serve`] does beside other servers, with which it shares the bounds and the runtime; the runtime is not shut
/// down.
pub async fn serve_beside(
    bounds: &ServerBounds,
    runtime: Runtime,
    listener: impl Into<ServerListener>,
    shutdown: impl Future<Output = ()>,
) {
    let (routes, drain) = services(bounds, runtime.clone()).await;
    let routes = routes.prepare();
    let answer = move |request: http::Request<_>| {
        let answer = routes.clone().call(request.map(Body::new));
        async move { answer.await.unwrap_or_else(|never| match never {}) }
    };
    let leave = async {
        shutdown.await;
        drain.start().await;
    };
    let serving = serve_until(answer, HttpVersions::Http2, listener.into(), bounds, &runtime, leave);
    tokio::select! {
        () = serving => {}
        // Health says so as soon as the runtime drains, which may be before `shutdown`.
        () = drain.follow() => {}
    }
}

/// The services of [`serve`] for a tonic server of the caller's own, and the handle to drain it. The services bound the
/// bytes of requests and the time between their pieces by the default [`ServerLimits`]; the server itself must bound its
/// connections.
///
/// To shut down: [`Drain::start`], stop accepting, [`Drain::idle`], [`Runtime::shutdown`].
#[expect(clippy::missing_panics_doc, reason = "the default limits are valid")]
pub async fn router(runtime: Runtime) -> (Routes, Drain) {
    router_within(&ServerLimits::default(), runtime).await.expect("the default limits are valid")
}

/// Does what [`router`] does, within the given limits.
///
/// # Errors
/// [`ConfigError`] if a limit is out of bounds.
pub async fn router_within(limits: &ServerLimits, runtime: Runtime) -> Result<(Routes, Drain), ConfigError> {
    Ok(services(&ServerBounds::new(limits.clone())?, runtime).await)
}

async fn services(bounds: &ServerBounds, runtime: Runtime) -> (Routes, Drain) {
    let meter = &bounds.meter();
    let health = HealthReporter::new();
    let drain = Drain::new(&runtime, health.clone(), Inference::NAME).await;
    let service = Service::new(runtime, bounds);
    let inference = Metered::new(Inference::new(service, bounds.limits().max_request_bytes), meter);
    let health = ListedHealth::new(HealthService::from_health_reporter(health), drain.clone());
    let health = HealthServer::new(health);
    let v1 = reflection().build_v1().expect("the build script made these descriptors");
    // grpcurl before 1.9 uses this version.
    let v1alpha = reflection().build_v1alpha().expect("the build script made these descriptors");
    let mut routes = Routes::new(InterceptedService::new(inference, deadline::stamp))
        .add_service(Metered::new(health, meter))
        .add_service(Metered::new(v1, meter))
        .add_service(Metered::new(v1alpha, meter));
    let table = routes.axum_router_mut();
    *table = std::mem::take(table).fallback(unserved::no_service);
    (routes, drain)
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
}
