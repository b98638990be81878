//! Counts the bytes of calls while they arrive.

use std::task::{Context, Poll};

use sconce_server::{Arrival, MessageLength, Meter};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::inference::MODEL_STREAM_INFER;
use crate::status::status;

/// A service whose requests are metered. Each request has its [`Charge`](sconce_server::Charge) among its extensions.
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

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Metered<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let (mut parts, body) = request.into_parts();
        let deadline = parts.extensions.get::<Arrival>().and_then(|arrival| arrival.deadline);
        let body = match parts.uri.path() {
            MODEL_STREAM_INFER => self.meter.begin_stream(&mut parts, body, deadline, status),
            _ => self.meter.begin(&mut parts, body, MessageLength::PREFIXED, deadline, status),
        };
        self.inner.call(http::Request::from_parts(parts, Body::new(body)))
    }
}
