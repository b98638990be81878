//! The server around the service: health, reflection, limits, and an orderly shutdown.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sconce::{ConfigError, Runtime};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::server::NamedService as _;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::connections::Connections;
use crate::deadline::Arrival;
use crate::drain::Drain;
use crate::inference::Inference;
use crate::limits::{ServerLimits, max_open_files};
use crate::metered::{Meter, Metered};
use crate::proto::FILE_DESCRIPTOR_SET;
use crate::request_bytes::RequestBytes;
use crate::service::Service;
use crate::transport;

/// Time after the last answer for half-sent requests, and for streams that do not end by themselves (a health watch,
/// reflection); then they are cut.
const MAX_CLOSING_TIME: Duration = Duration::from_secs(2);

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
    listener: TcpListener,
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
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    limits.validate()?;
    let bytes = Arc::new(RequestBytes::new(limits.max_request_bytes_in_flight));
    let connections = Arc::new(Connections::new(limits.connections(max_open_files())?, Arc::clone(&bytes)));
    let meter = Meter { bytes, max_pause: limits.max_request_pause };
    let (routes, drain) = services(&meter, runtime.clone()).await;
    let (close, closed) = oneshot::channel::<()>();
    let server = transport::serve(routes, listener, &limits, connections, async {
        // Dropping the sender closes too.
        let _ = closed.await;
    });
    let leave = async {
        shutdown.await;
        drain.start().await;
        drop(close);
        drain.idle().await;
        tokio::time::sleep(MAX_CLOSING_TIME).await;
    };
    tokio::select! {
        () = server => {}
        () = leave => {}
    }
    runtime.shutdown().await;
    Ok(())
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
    limits.validate()?;
    let bytes = Arc::new(RequestBytes::new(limits.max_request_bytes_in_flight));
    Ok(services(&Meter { bytes, max_pause: limits.max_request_pause }, runtime).await)
}

async fn services(meter: &Meter, runtime: Runtime) -> (Routes, Drain) {
    let health = HealthReporter::new();
    let drain = Drain::new(&runtime, health.clone(), Inference::NAME).await;
    let inference = Metered::new(Inference::new(Service::new(runtime)), meter);
    let health = HealthServer::new(HealthService::from_health_reporter(health));
    let v1 = reflection().build_v1().expect("the build script made these descriptors");
    // grpcurl before 1.9 uses this version.
    let v1alpha = reflection().build_v1alpha().expect("the build script made these descriptors");
    let routes = Routes::new(InterceptedService::new(inference, Arrival::stamp))
        .add_service(Metered::new(health, meter))
        .add_service(Metered::new(v1, meter))
        .add_service(Metered::new(v1alpha, meter));
    (routes, drain)
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
