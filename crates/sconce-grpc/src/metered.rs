//! Counts the bytes of calls while they arrive, and says in the answer to one that there is not which there are.

use std::task::{Context, Poll};

use futures_util::TryFutureExt as _;
use futures_util::future::MapOk;
use sconce_server::{Arrival, MessageLength, Meter};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::inference::MODEL_STREAM_INFER;
use crate::status::status;
use crate::unserved::explain;

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

impl<S, B> Service<http::Request<Body>> for Metered<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + NamedService,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MapOk<S::Future, fn(S::Response) -> S::Response>;

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
        let answer = self.inner.call(http::Request::from_parts(parts, Body::new(body)));
        answer.map_ok(|answer| explain(S::NAME, answer))
    }
}
