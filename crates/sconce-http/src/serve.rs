//! The server around the routes: bounds, health while it leaves, an orderly shutdown.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, header};
use axum::response::Response;
use http_body::Body as _;
use hyper::body::Incoming;
use sconce::{ConfigError, Runtime};
use sconce_server::{
    Arrival, Call, Charge, HttpVersions, MessageLength, Meter, RequestFault, ServerBounds, ServerLimits,
    ServerListener, serve_until,
};
use tower::Service as _;

use crate::ServedRoutes;
use crate::dialect::response_at;
use crate::error::HttpError;
use crate::received::{ReceiveError, Received, decompressed, whole};

/// Serves `runtime` on `listener` until `shutdown` resolves, then drains: clients are told, no connections are accepted
/// any more, requests in flight are answered, and the runtime is shut down. The [`ServerLimits`] are the default ones.
///
/// # Errors
/// [`ConfigError`], only before it serves; a later failure of a connection ends that connection alone.
pub async fn serve(
    runtime: Runtime,
    listener: impl Into<ServerListener>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ConfigError> {
    serve_within(ServerLimits::default(), runtime, listener, shutdown).await
}

/// Does what [`serve`] does, within the given limits.
///
/// # Errors
/// [`ConfigError`] if a limit is out of bounds.
pub async fn serve_within(
    limits: ServerLimits,
    runtime: Runtime,
    listener: impl Into<ServerListener>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ConfigError> {
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
    serve_routes_beside(ServedRoutes::All, bounds, runtime, listener, shutdown).await;
}

/// Does what [`serve_beside`] does with some of the routes, such as [`ServedRoutes::Monitoring`] on an address of their own.
pub async fn serve_routes_beside(
    routes: ServedRoutes,
    bounds: &ServerBounds,
    runtime: Runtime,
    listener: impl Into<ServerListener>,
    shutdown: impl Future<Output = ()>,
) {
    let (handler, meter) = (routes.router(runtime.clone(), bounds), bounds.meter());
    let answer = move |request| answer(handler.clone(), meter.clone(), request);
    let leave = async {
        shutdown.await;
        runtime.start_draining();
    };
    serve_until(answer, HttpVersions::Both, listener.into(), bounds, &runtime, leave).await;
}

/// Routes that are answered without a token: probes of health and the parts of the dashboard's page, with which none can be
/// sent. They name no model; the page asks for a token, and with it for the figures.
const OPEN: [&str; 10] = [
    "/",
    "/dashboard",
    "/dashboard.css",
    "/dashboard.js",
    "/health",
    "/healthz",
    "/livez",
    "/readyz",
    "/v2/health/live",
    "/v2/health/ready",
];

fn is_open(parts: &Parts) -> bool {
    matches!(parts.method, Method::GET | Method::HEAD) && OPEN.contains(&parts.uri.path())
}

/// Admits a request, reads it whole, has the routes answer it, and counts the bytes of both.
async fn answer(mut router: Router, meter: Meter, request: Request<Incoming>) -> Response {
    let (mut parts, body) = request.into_parts();
    let traceparent = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let mut arrival = Arrival::new(Instant::now(), None).traced(traceparent);
    let body = Received(body);
    let length = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let length = length.map_or(MessageLength::Unknown, MessageLength::Known);
    let has_come = body.is_end_stream();
    let body = meter.begin(&mut parts, body, length, None, ReceiveError::Refused);
    let call = parts.extensions.get::<Arc<Call>>().cloned();
    // Held until there is an answer.
    let charge = parts.extensions.get::<Arc<Charge>>().cloned();
    let received = async {
        if !is_open(&parts) {
            arrival.client = meter.access().admit(&mut parts).await?;
        }
        let max = meter.max_request_bytes();
        let body = whole(body, max).await?;
        match &charge {
            Some(charge) => Ok(decompressed(&mut parts.headers, body, charge, max)?),
            None => Ok(body),
        }
    };
    let response = match received.await {
        Ok(body) => {
            parts.extensions.insert(arrival);
            let request = Request::from_parts(parts, Body::from(body));
            router.call(request).await.unwrap_or_else(|never| match never {})
        }
        Err(ReceiveError::Refused(error)) => {
            let mut response = response_at(parts.uri.path(), error.into());
            if !has_come {
                // The rest of the body is not read.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
        Err(ReceiveError::Broken(error)) => {
            let message = format!("the body cannot be read: {error}");
            response_at(parts.uri.path(), HttpError::new(RequestFault::Malformed, message))
        }
    };
    if let (Some(call), Some(bytes)) = (call, response.body().size_hint().exact()) {
        call.answered(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    response
}
