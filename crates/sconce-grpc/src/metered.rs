//! Admits calls, and counts their bytes while they arrive.

use std::task::{Context, Poll};

use sconce_server::{Arrival, MessageLength, Meter};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use crate::status::status;

/// Calls that are answered without a token: probes of health, which cannot send one. They name no model.
const OPEN: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

/// A service whose requests are admitted and metered. Each request has its [`Charge`](sconce_server::Charge) among its extensions.
#[derive(Clone)]
pub(crate) struct Metered<S> {
    inner: S,
    meter: Meter,
}

impl<S> Metered<S> {
    pub(crate) fn new(inner: S, meter: &Meter) -> Self {
        Self { inner, meter: meter.clone() }
    }
}

impl<S: NamedService> NamedService for Metered<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Metered<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let deadline = parts.extensions.get::<Arrival>().and_then(|arrival| arrival.deadline);
        let body = self.meter.begin(&mut parts, body, MessageLength::PREFIXED, deadline, status);
        // The one that is ready stays with the call.
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        let access = self.meter.access().clone();
        Box::pin(async move {
            if !OPEN.contains(&parts.uri.path()) {
                match access.admit(&mut parts).await {
                    Ok(client) => {
                        if let Some(arrival) = parts.extensions.get_mut::<Arrival>() {
                            arrival.client = client;
                        }
                    }
                    Err(error) => return Ok(status(error).into_http()),
                }
            }
            inner.call(http::Request::from_parts(parts, Body::new(body))).await
        })
    }
}
