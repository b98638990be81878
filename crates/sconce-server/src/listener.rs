//! Listeners and their sockets: TCP, with or without TLS, and Unix sockets where there are any.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::tls::Tls;
use crate::transport::HttpVersions;

/// A listener whose connections a server serves.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerListener {
    /// TCP.
    Tcp(TcpListener),
    /// TLS over TCP.
    Tls(TcpListener, Tls),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixListener),
}

impl ServerListener {
    /// The listener with TLS. A Unix socket stays as it is: nobody between its peers can read along.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => Self::Tls(listener, tls),
            #[cfg(unix)]
            Self::Unix(listener) => Self::Unix(listener),
        }
    }

    /// Waits for the next connection.
    pub(crate) async fn accept(&self) -> io::Result<AcceptedSocket> {
        match self {
            Self::Tcp(listener) => AcceptedSocket::from_tcp(listener, None).await,
            Self::Tls(listener, tls) => AcceptedSocket::from_tcp(listener, Some(tls)).await,
            #[cfg(unix)]
            Self::Unix(listener) => {
                Ok(AcceptedSocket { socket: Socket::Unix(listener.accept().await?.0), peer: None, tls: None })
            }
        }
    }
}

impl From<TcpListener> for ServerListener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

#[cfg(unix)]
impl From<UnixListener> for ServerListener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// An accepted connection, before its handshake.
pub(crate) struct AcceptedSocket {
    socket: Socket,
    /// `None` on a Unix socket.
    pub(crate) peer: Option<IpAddr>,
    tls: Option<Tls>,
}

impl AcceptedSocket {
    async fn from_tcp(listener: &TcpListener, tls: Option<&Tls>) -> io::Result<Self> {
        let (stream, peer) = listener.accept().await?;
        // Small messages are sent at once. The first read notices a peer that has gone already.
        let _ = stream.set_nodelay(true);
        Ok(Self { socket: Socket::Tcp(stream), peer: Some(peer.ip()), tls: tls.cloned() })
    }

    /// The socket after the handshake of TLS, if there is one.
    pub(crate) async fn shake_hands(self, versions: HttpVersions) -> io::Result<Socket> {
        match (self.tls, self.socket) {
            (Some(tls), Socket::Tcp(stream)) => Ok(Socket::Tls(Box::new(tls.acceptor(versions).accept(stream).await?))),
            (_, socket) => Ok(socket),
        }
    }
}

/// The bytes of a connection.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Calls a method of the socket, whichever it is.
macro_rules! either {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($stream) => $call,
            Socket::Tls($stream) => $call,
            #[cfg(unix)]
            Socket::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}
