//! Addresses that `sconce serve` listens on: HOST:PORT, or `unix:PATH`.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use sconce_grpc::{ServerListener, Tls};
use tokio::net::TcpListener;

use crate::error::Error;

/// The value of a flag that turns a server off.
const NONE: &str = "none";
/// The beginning of the address of a Unix socket.
const UNIX: &str = "unix:";

/// A listener, and the address that clients have for it.
pub(crate) struct BoundAddress {
    pub(crate) listener: ServerListener,
    pub(crate) address: Address,
    /// Removes the socket's file when the server ends.
    pub(crate) file: Option<SocketFile>,
}

/// An address as it is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Address {
    /// Returns true if only clients of this machine reach the address.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl BoundAddress {
    /// Checks that other machines do not reach the address.
    pub(crate) fn check_local(&self, flag: &'static str) -> Result<(), Error> {
        if !self.address.is_local() {
            return Err(Error::Unguarded { flag, address: self.address.to_string() });
        }
        Ok(())
    }

    /// Has clients speak TLS, if there is a certificate.
    pub(crate) fn with_tls(self, tls: Option<&Tls>) -> Self {
        match tls {
            Some(tls) => Self { listener: self.listener.with_tls(tls.clone()), ..self },
            None => self,
        }
    }

    /// Listens on the address that `flag` gives; `None` if it is `none`.
    pub(crate) async fn new(flag: &'static str, address: &str) -> Result<Option<Self>, Error> {
        if address == NONE {
            return Ok(None);
        }
        let bound = match address.strip_prefix(UNIX) {
            Some(path) => unix(Path::new(path)).await,
            None => tcp(address).await,
        };
        bound.map(Some).map_err(|source| listen_error(flag, address, source))
    }
}

async fn tcp(address: &str) -> io::Result<BoundAddress> {
    let listener = TcpListener::bind(address).await?;
    let address = Address::Tcp(listener.local_addr()?);
    Ok(BoundAddress { listener: listener.into(), address, file: None })
}

#[cfg(unix)]
async fn unix(path: &Path) -> io::Result<BoundAddress> {
    use std::os::unix::fs::FileTypeExt as _;
    use tokio::net::{UnixListener, UnixStream};
    if path.as_os_str().is_empty() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            // Only a socket is ever removed. Nobody answers at that of a server that was killed.
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(ErrorKind::AlreadyExists.into());
            }
            match UnixStream::connect(path).await {
                Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                _ => return Err(error),
            }
        }
        bound => bound?,
    };
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    Ok(BoundAddress { listener: listener.into(), address: Address::Unix(path.to_owned()), file: Some(file) })
}

#[cfg(not(unix))]
async fn unix(_: &Path) -> io::Result<BoundAddress> {
    Err(ErrorKind::Unsupported.into())
}

/// The file of a Unix socket, removed on drop unless another has taken its place.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // Fails if someone removes it at the same time.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The numbers by which the system knows a file, whatever its name.
#[cfg(unix)]
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> io::Result<(u64, u64)> {
    Err(ErrorKind::Unsupported.into())
}

fn listen_error(flag: &'static str, address: &str, source: io::Error) -> Error {
    let remedy = match source.kind() {
        ErrorKind::AlreadyExists => "a file that is no socket is there: give another path",
        ErrorKind::AddrInUse if address.starts_with(UNIX) => {
            "another server listens there: stop it, or give another path"
        }
        ErrorKind::AddrInUse => "another process listens there: stop it, or give another port (0 takes a free one)",
        ErrorKind::AddrNotAvailable => {
            "no interface of this machine has that address: 0.0.0.0 takes all, 127.0.0.1 none but its own callers"
        }
        ErrorKind::PermissionDenied if address.starts_with(UNIX) => "give a path in a directory that may be written",
        ErrorKind::PermissionDenied => "ports below 1024 are reserved: give a higher one, for instance 8001",
        _ if address.starts_with(UNIX) => {
            "give unix: and the path of a file that does not exist yet, in a directory that does"
        }
        _ => "give HOST:PORT, for instance 127.0.0.1:8001, or unix:PATH",
    };
    Error::Listen { flag, address: address.to_owned(), source, remedy }
}
