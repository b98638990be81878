//! A server around the service: health, reflection, limits, and leaving in order.

use std::future::Future;
use std::time::Duration;

use sconce::Runtime;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::deadline::Arrival;
use crate::drain::Drain;
use crate::proto::FILE_DESCRIPTOR_SET;
use crate::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::service::Service;

/// The largest message that is read, decompressed. tonic names it and the message's size when it refuses one.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Calls at once on one connection; more wait in the client. Beyond what one client needs to fill batches, they
/// would only hold memory.
const MAX_STREAMS_PER_CONNECTION: u32 = 1024;

/// A client that is gone without a word is noticed after this time, and its items leave the queue.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Streams that do not end by themselves (a health watch, reflection) and half-sent requests are left to this
/// much time after the last answer, then cut.
const MAX_CLOSING_TIME: Duration = Duration::from_secs(2);

/// The server stopped before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC server failed: {0}")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves `runtime` on `listener` until `shutdown` resolves, then leaves: clients are told, connections are no longer
/// accepted, what is in flight is answered, and the runtime is shut down.
///
/// # Errors
/// [`ServeError`] if the transport fails.
pub async fn serve(
    runtime: Runtime,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (routes, drain) = router(runtime.clone()).await;
    let (close, closed) = oneshot::channel::<()>();
    let server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_routes(routes)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async {
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
    let outcome = tokio::select! {
        outcome = server => outcome,
        () = leave => Ok(()),
    };
    runtime.shutdown().await;
    Ok(outcome?)
}

/// The services of [`serve`] for a tonic server of one's own, and the handle to drain it.
///
/// On the way out: [`Drain::start`], stop accepting, [`Drain::idle`], [`Runtime::shutdown`].
#[expect(clippy::missing_panics_doc, reason = "the descriptors that it could panic on are compiled in")]
pub async fn router(runtime: Runtime) -> (Routes, Drain) {
    type Inference = GrpcInferenceServiceServer<Service>;
    let health = HealthReporter::new();
    let drain = Drain::new(&runtime, health.clone(), Inference::NAME).await;
    let inference = Inference::new(Service::new(runtime, drain.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate);
    let routes = Routes::new(InterceptedService::new(inference, Arrival::stamp))
        .add_service(HealthServer::new(HealthService::from_health_reporter(health)))
        .add_service(reflection().build_v1().expect("the build script made these descriptors"))
        // grpcurl before 1.9 asks this version.
        .add_service(reflection().build_v1alpha().expect("the build script made these descriptors"));
    (routes, drain)
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
