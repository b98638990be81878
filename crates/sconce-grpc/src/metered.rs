//! Counts the bytes of requests while they arrive.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::connections::Call;
use crate::deadline::Arrival;
use crate::error::RequestError;
use crate::request_bytes::{Charge, RequestBytes};

/// Bounds on the memory and the pauses of requests while they arrive.
#[derive(Clone)]
pub(crate) struct Meter {
    pub(crate) bytes: Arc<RequestBytes>,
    pub(crate) max_pause: Duration,
}

/// A service whose requests are metered. Each request has its [`Charge`] among its extensions.
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
        let (mut parts, inner) = request.into_parts();
        let header_bytes = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let charge = Arc::new(self.meter.bytes.begin(header_bytes, Instant::now()));
        let call = parts.extensions.get::<Arc<Call>>().cloned();
        parts.extensions.insert(Arc::clone(&charge));
        let deadline = parts.extensions.get::<Arrival>().and_then(|arrival| arrival.deadline);
        let body = MeteredBody { inner, charge, call, deadline, max_pause: self.meter.max_pause, pause: None };
        self.inner.call(http::Request::from_parts(parts, Body::new(body)))
    }
}

/// The body of a request, whose bytes are counted as they arrive. It fails if there is no room for them, or if they
/// stop coming.
struct MeteredBody {
    inner: Body,
    charge: Arc<Charge>,
    /// `None` on a server other than this crate's.
    call: Option<Arc<Call>>,
    /// Time at which the client stops waiting.
    deadline: Option<Instant>,
    max_pause: Duration,
    /// Timer of the next pause that is too long; set at the first wait for the rest of the request.
    pause: Option<Pin<Box<Sleep>>>,
}

impl MeteredBody {
    fn came_whole(&self) {
        self.charge.came_whole();
        if let Some(call) = &self.call {
            call.came_whole();
        }
    }

    /// Waits for the next piece, for the request to give way to others, or for the end of the time between two pieces.
    fn wait(&mut self, context: &mut Context<'_>) -> Result<(), RequestError> {
        self.charge.wait(context.waker());
        // Check after the waker is registered, so that no refusal is missed.
        self.charge.check()?;
        // The timer is reset when it fires, rather than at each piece.
        let until = |charge: &Charge, max_pause| {
            let pause_ends = charge.last_piece() + max_pause;
            self.deadline.map_or(pause_ends, |deadline| deadline.min(pause_ends))
        };
        let pause = self
            .pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until(&self.charge, self.max_pause).into())));
        while pause.as_mut().poll(context).is_ready() {
            let (now, until) = (Instant::now(), until(&self.charge, self.max_pause));
            if let Some(late) = self.deadline.and_then(|deadline| now.checked_duration_since(deadline)) {
                return Err(RequestError::TooLate { late });
            }
            if until <= now {
                return Err(RequestError::Stalled { pause: self.max_pause });
            }
            pause.as_mut().reset(until.into());
        }
        Ok(())
    }
}

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        let outcome = match &polled {
            Poll::Pending => self.wait(context),
            Poll::Ready(Some(Ok(frame))) => match frame.data_ref() {
                Some(piece) => self.charge.receive(piece, Instant::now()),
                None => Ok(()),
            },
            Poll::Ready(_) => Ok(()),
        };
        if let Err(error) = outcome {
            return Poll::Ready(Some(Err(error.into())));
        }
        if matches!(polled, Poll::Ready(None)) || self.inner.is_end_stream() {
            self.came_whole();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
