//! Admits calls, counts their bytes while they arrive, and says in the answer to one that there is not which there are.

use std::task::{Context, Poll};

use sconce_server::{Arrival, MessageLength, Meter};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use crate::inference::MODEL_STREAM_INFER;
use crate::status::status;
use crate::unserved::explain;

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

impl<S, B> Service<http::Request<Body>> for Metered<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + NamedService + Clone + Send + 'static,
    S::Future: Send,
    B: Default,
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
        let body = match parts.uri.path() {
            MODEL_STREAM_INFER => self.meter.begin_stream(&mut parts, body, deadline, status),
            _ => self.meter.begin(&mut parts, body, MessageLength::PREFIXED, deadline, status),
        };
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
            let answer = inner.call(http::Request::from_parts(parts, Body::new(body))).await?;
            Ok(explain(S::NAME, answer))
        })
    }
}
