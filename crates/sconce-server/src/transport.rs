//! Accepts connections within bounds, serves them, and ends those that are idle for too long.

use std::error::Error;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use sconce::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::access::PeerAddress;
use crate::bounds::ServerBounds;
use crate::connections::{ConnectionPermit, Connections, Due};
use crate::limits::ServerLimits;
use crate::listener::{AcceptedSocket, ServerListener, Socket};
use crate::ration::Ration;
use crate::watched_io::WatchedIo;

/// Calls at a time on one connection; further calls wait in the client. More than one client needs to fill batches
/// would only hold memory.
const MAX_STREAMS_PER_CONNECTION: u32 = 1024;
/// Bytes of the headers of a call at most.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Calls that a peer may reset before they are read; beyond this the connection ends ("rapid reset", CVE-2023-44487).
/// In a storm the deadlines of many calls pass at once, and a client then resets them all: h2's own bound of 20 cut off
/// such clients.
const MAX_PENDING_RESETS: usize = 256;
/// Calls that may break the protocol; beyond this the connection ends.
const MAX_PROTOCOL_ERRORS: usize = 1024;
/// Interval of pings, by which a client that disappeared is noticed, so that its items leave the queue.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Pause before the next try to accept when the process can open no more files, or has no memory for a socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time after the last answer for half-sent requests, and for streams that do not end by themselves (a health watch,
/// reflection); then they are cut.
const MAX_CLOSING_TIME: Duration = Duration::from_secs(2);

/// The versions of HTTP that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersions {
    /// HTTP/2 with prior knowledge, as gRPC needs it.
    Http2,
    /// HTTP/1.1, or HTTP/2 with prior knowledge.
    Both,
}

/// Serves `answer` on `listener` until `leave` resolves, which first tells clients that the server leaves. Then no
/// connection is accepted any more, peers are told to connect elsewhere, and the requests in flight of `runtime` are
/// answered. The runtime is not shut down. Each request has its [`Call`](crate::Call) and its [`PeerAddress`] among its
/// extensions.
pub async fn serve_until<A, F, B>(
    answer: A,
    versions: HttpVersions,
    listener: ServerListener,
    bounds: &ServerBounds,
    runtime: &Runtime,
    leave: impl Future<Output = ()>,
) where
    A: Fn(http::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = http::Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let server = serve(answer, versions, listener, bounds, async {
        // Dropping the sender closes too.
        let _ = closed.await;
    });
    let leave = async {
        leave.await;
        drop(close);
        runtime.idle().await;
        tokio::time::sleep(MAX_CLOSING_TIME).await;
    };
    tokio::select! {
        () = server => {}
        () = leave => {}
    }
}

/// Serves until `closed` resolves; then the listener is closed, peers are told, and calls in flight are answered.
/// Dropping the future ends all connections.
async fn serve<A, F, B>(
    answer: A,
    versions: HttpVersions,
    listener: ServerListener,
    bounds: &ServerBounds,
    closed: impl Future<Output = ()>,
) where
    A: Fn(http::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = http::Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let builder = builder(versions);
    let (tell, told) = watch::channel(());
    let mut tasks = JoinSet::new();
    let connections = Arc::clone(&bounds.connections);
    let mut acceptor = Acceptor { listener, connections, full: Ration::default(), failed: Ration::default() };
    let mut closed = pin!(closed);
    loop {
        tokio::select! {
            () = &mut closed => break,
            accepted = acceptor.accept() => if let Some((stream, permit)) = accepted {
                let serving = Serving { permit, versions, limits: bounds.limits.clone(), told: told.clone() };
                tasks.spawn(serving.run(stream, answer.clone(), builder.clone()));
            }
        }
        // Not an arm of the select: that would drop a connection that is being accepted.
        while tasks.try_join_next().is_some() {}
    }
    // Free the port before peers are told, so that a client that connects anew reaches the next server.
    drop(acceptor);
    drop(tell);
    while tasks.join_next().await.is_some() {}
}

fn builder(versions: HttpVersions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_PROTOCOL_ERRORS)
        .keep_alive_interval(KEEPALIVE);
    // Idle connections end by `max_idle_time`, and `WatchedIo` bounds the time of a head; hyper's own bound of it would also end
    // connections that wait for their next request.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEADER_BYTES as usize);
    match versions {
        HttpVersions::Http2 => builder.http2_only(),
        HttpVersions::Both => builder,
    }
}

/// Accepts connections from the listener, each with a permit.
struct Acceptor {
    listener: ServerListener,
    connections: Arc<Connections>,
    full: Ration,
    failed: Ration,
}

impl Acceptor {
    /// Accepts the next connection and takes a permit for it; `None` if there is none, or accepting failed.
    async fn accept(&mut self) -> Option<(AcceptedSocket, ConnectionPermit)> {
        let stream = match self.listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                self.failed(&error).await;
                return None;
            }
        };
        let permit = self.connections.acquire().await;
        if permit.is_none()
            && let Some(count) = self.full.take(Instant::now())
        {
            let max = self.connections.max();
            tracing::warn!(
                count,
                "refused connections: all {max} have a call that is being computed; raise max_connections if they are \
                 of good clients"
            );
        }
        Some((stream, permit?))
    }

    async fn failed(&mut self, error: &io::Error) {
        if is_of_the_peer(error) {
            return;
        }
        if let Some(count) = self.failed.take(Instant::now()) {
            tracing::warn!(count, %error, "cannot accept connections: the process may have too few files (ulimit -n)");
        }
        // Free a file for the next connection.
        self.connections.replace();
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Returns true for errors of one peer, after which the next connection can be accepted at once.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
            | ErrorKind::WouldBlock
            | ErrorKind::TimedOut
    )
}

/// One connection that is served: its permit, its limits, and the server's shutdown.
struct Serving {
    permit: ConnectionPermit,
    versions: HttpVersions,
    limits: ServerLimits,
    /// Closed when the server shuts down.
    told: watch::Receiver<()>,
}

impl Serving {
    async fn run<A, F, B>(mut self, accepted: AcceptedSocket, answer: A, builder: Builder<TokioExecutor>)
    where
        A: Fn(http::Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = http::Response<B>> + Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let peer = PeerAddress(accepted.peer);
        let Some(stream) = self.shake_hands(accepted).await else { return };
        let connection = &self.permit.connection;
        let io = TokioIo::new(WatchedIo::new(stream, Arc::clone(connection), self.limits.max_request_pause));
        let service = service_fn(|mut request: http::Request<Incoming>| {
            let call = connection.begin_call();
            request.extensions_mut().insert(Arc::clone(&call));
            request.extensions_mut().insert(peer);
            let answer = answer(request);
            async move {
                let answer = answer.await;
                drop(call);
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let mut http = pin!(builder.serve_connection(io, service));
        let mut timer = pin!(tokio::time::sleep(self.first_look()));
        let (mut told_at, mut leaving) = (None, false);
        loop {
            tokio::select! {
                outcome = http.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "a connection failed");
                    }
                    return;
                }
                () = connection.gives_way() => return,
                _ = self.told.changed(), if !leaving => {
                    leaving = true;
                    http.as_mut().graceful_shutdown();
                    connection.leave();
                }
                () = timer.as_mut() => {
                    let now = Instant::now();
                    match connection.activity().due(now, told_at, &self.limits) {
                        Due::Nothing { until } => timer.as_mut().reset(until.into()),
                        Due::End => return,
                        Due::Tell => {
                            told_at = Some(now);
                            http.as_mut().graceful_shutdown();
                            connection.leave();
                            timer.as_mut().reset(now.into());
                        }
                    }
                }
            }
        }
    }

    /// The socket after its handshake; `None` if the handshake fails, takes too long, or the connection must make room.
    async fn shake_hands(&mut self, accepted: AcceptedSocket) -> Option<Socket> {
        let first_look = self.first_look();
        tokio::select! {
            outcome = accepted.shake_hands(self.versions) => match outcome {
                Ok(socket) => Some(socket),
                Err(error) => {
                    tracing::debug!(%error, "a handshake failed");
                    None
                }
            },
            () = self.permit.connection.gives_way() => None,
            _ = self.told.changed() => None,
            () = tokio::time::sleep(first_look) => None,
        }
    }

    /// Time after which the connection is first looked at.
    fn first_look(&self) -> Duration {
        self.limits.max_handshake_time.min(self.limits.max_idle_time)
    }
}
