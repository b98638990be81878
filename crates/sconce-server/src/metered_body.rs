//! Counts the bytes of requests while they arrive.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::access::ClientAccess;
use crate::connections::Call;
use crate::error::RequestError;
use crate::request_bytes::{Charge, MessageLength, RequestBytes};

/// Bounds on the memory, the pauses and the clients of requests while they arrive.
#[derive(Clone)]
pub struct Meter {
    pub(crate) bytes: Arc<RequestBytes>,
    pub(crate) max_pause: Duration,
    pub(crate) max_request_bytes: usize,
    pub(crate) access: ClientAccess,
}

impl Meter {
    /// Bytes of one request at most, also decompressed.
    #[must_use]
    pub fn max_request_bytes(&self) -> usize {
        self.max_request_bytes
    }

    /// The terms on which requests are admitted.
    #[must_use]
    pub fn access(&self) -> &ClientAccess {
        &self.access
    }

    /// Begins to count a request whose headers have come. The extensions then hold its [`Charge`], which must live until the
    /// request is answered. `refuse` makes an error of the body; `deadline` is the time at which the client stops waiting.
    pub fn begin<B: http_body::Body>(
        &self,
        parts: &mut http::request::Parts,
        body: B,
        length: MessageLength,
        deadline: Option<Instant>,
        refuse: fn(RequestError) -> B::Error,
    ) -> MeteredBody<B> {
        let charge = self.bytes.begin(header_bytes(parts), length, Instant::now());
        self.metered(charge, parts, body, deadline, refuse)
    }

    /// Begins to count a stream of messages with the prefixes of gRPC, which may pause between two messages. Each that came
    /// whole is [taken](Charge::take_message) out of the stream's charge by its reader.
    pub fn begin_stream<B: http_body::Body>(
        &self,
        parts: &mut http::request::Parts,
        body: B,
        deadline: Option<Instant>,
        refuse: fn(RequestError) -> B::Error,
    ) -> MeteredBody<B> {
        let charge = self.bytes.begin_stream(header_bytes(parts), Instant::now());
        self.metered(charge, parts, body, deadline, refuse)
    }

    fn metered<B: http_body::Body>(
        &self,
        charge: Charge,
        parts: &mut http::request::Parts,
        body: B,
        deadline: Option<Instant>,
        refuse: fn(RequestError) -> B::Error,
    ) -> MeteredBody<B> {
        let charge = Arc::new(charge);
        let call = parts.extensions.get::<Arc<Call>>().cloned();
        parts.extensions.insert(Arc::clone(&charge));
        let body = MeteredBody { inner: body, charge, call, deadline, max_pause: self.max_pause, pause: None, refuse };
        if body.inner.is_end_stream() {
            body.came_whole();
        }
        body
    }
}

fn header_bytes(parts: &http::request::Parts) -> usize {
    parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// The body of a request, whose bytes are counted as they arrive. It fails if there is no room for them, or if they
/// stop coming.
pub struct MeteredBody<B: http_body::Body> {
    inner: B,
    charge: Arc<Charge>,
    /// `None` on a server other than this crate's.
    call: Option<Arc<Call>>,
    /// Time at which the client stops waiting.
    deadline: Option<Instant>,
    max_pause: Duration,
    /// Timer of the next pause that is too long; set at the first wait for the rest of the request.
    pause: Option<Pin<Box<Sleep>>>,
    refuse: fn(RequestError) -> B::Error,
}

impl<B: http_body::Body> MeteredBody<B> {
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
        let until = |charge: &Charge, max_pause| charge.pause_ends(max_pause).into_iter().chain(self.deadline).min();
        let Some(first) = until(&self.charge, self.max_pause) else { return Ok(()) };
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first.into())));
        while pause.as_mut().poll(context).is_ready() {
            let (now, until) = (Instant::now(), until(&self.charge, self.max_pause));
            if let Some(late) = self.deadline.and_then(|deadline| now.checked_duration_since(deadline)) {
                return Err(RequestError::TooLate { late });
            }
            let Some(until) = until else {
                self.pause = None;
                break;
            };
            if until <= now {
                return Err(RequestError::Stalled { pause: self.max_pause });
            }
            pause.as_mut().reset(until.into());
        }
        Ok(())
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for MeteredBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
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
            return Poll::Ready(Some(Err((self.refuse)(error))));
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
