//! A socket that notes when its peer has begun to speak, how much it has read, and that bounds the time of a head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::connections::Connection;
use crate::listener::Socket;

/// The preface with which clients of HTTP/2 begin; few requests of HTTP/1.1 are shorter.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A socket that tells its [`Connection`] when as many bytes as the preface has were received, and how many were sent.
///
/// Reading fails if the head of a request of HTTP/1.1 does not come whole in time. HTTP/2 has no such heads: its calls are
/// bounded by themselves once their first frame has come.
pub(crate) struct WatchedIo {
    stream: Socket,
    connection: Arc<Connection>,
    /// Bytes received, up to the length of the preface.
    received: usize,
    /// True while all bytes so far are those of the preface.
    is_http2: bool,
    max_head_time: Duration,
    head: Option<Head>,
}

/// The head of a request of which the first bytes have come.
struct Head {
    began: Instant,
    /// Calls of the connection before it.
    calls_before: u64,
    /// Set when the rest is waited for.
    ends: Option<Pin<Box<Sleep>>>,
}

impl WatchedIo {
    pub(crate) fn new(stream: Socket, connection: Arc<Connection>, max_head_time: Duration) -> Self {
        Self { stream, connection, received: 0, is_http2: true, max_head_time, head: None }
    }

    /// Notes bytes that were received.
    fn receive(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.received < PREFACE.len() {
            self.is_http2 &= PREFACE[self.received..].iter().zip(bytes).all(|(expected, byte)| expected == byte);
            self.received = PREFACE.len().min(self.received + bytes.len());
            if self.received == PREFACE.len() {
                self.connection.spoke();
            }
        }
        // During a call they are of its body.
        if self.is_http2 || self.connection.has_open_call() {
            return;
        }
        let calls_before = self.connection.calls();
        if self.head.as_ref().is_none_or(|head| head.calls_before != calls_before) {
            self.head = Some(Head { began: Instant::now(), calls_before, ends: None });
        }
    }

    /// Returns true if the head that has begun takes too long. Called when no bytes are there.
    fn is_head_late(&mut self, context: &mut Context<'_>) -> bool {
        let Some(head) = &mut self.head else { return false };
        if head.calls_before != self.connection.calls() {
            // It came whole.
            self.head = None;
            return false;
        }
        let until = head.began + self.max_head_time;
        let ends = head.ends.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ends.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buf)? {
            Poll::Ready(()) => {
                self.receive(&buf.filled()[before..]);
                Poll::Ready(Ok(()))
            }
            Poll::Pending if self.is_head_late(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.connection.sent(sent);
        Poll::Ready(Ok(sent))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, parts))?;
        self.connection.sent(sent);
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
