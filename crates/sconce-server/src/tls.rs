//! TLS: certificates from PEM files, which may be renewed while the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::small_files;
use crate::transport::HttpVersions;

/// The files of a server's identity, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by those of intermediate authorities.
    pub certificate: PathBuf,
    /// The certificate's private key as PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: PathBuf,
    /// Certificates of authorities, one of which must have signed the certificate of every client. `None`, the default of
    /// most servers, asks clients for no certificate.
    pub client_authorities: Option<PathBuf>,
}

/// The reason why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; give a file that this process may read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file has no certificate.
    #[error("{} has no certificate; give one in PEM, which begins with -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file has no key that can be used.
    #[error(
        "{} has no private key that can be read; give one in PEM without a passphrase (openssl pkey -in KEY -out PLAIN removes it)",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A file has a damaged certificate.
    #[error("{} has a certificate that cannot be used: {message}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reason.
        message: String,
    },
    /// The certificate and the key are not of each other.
    #[error(
        "the certificate of {} and the key of {} cannot be used together: {source}; give the certificate's own key",
        certificate.display(), key.display()
    )]
    Unlike {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The reason.
        source: rustls::Error,
    },
}

/// TLS for [`ServerListener::with_tls`](crate::ServerListener::with_tls). Clones share their certificates.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    loaded: Arc<RwLock<LoadedTls>>,
}

/// The contents of the files, ready for handshakes.
struct LoadedTls {
    digest: blake3::Hash,
    for_http2: Arc<ServerConfig>,
    for_both: Arc<ServerConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let loaded = TlsFileContents::read(&files)?.load(&files)?;
        Ok(Self { files: Arc::new(files), loaded: Arc::new(RwLock::new(loaded)) })
    }

    /// Reads the files anew, and returns true if they have changed: from then on handshakes use them. Open connections stay.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used; the certificates of before stay in use.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let contents = TlsFileContents::read(&self.files)?;
        if contents.digest() == self.loaded.read().unwrap_or_else(PoisonError::into_inner).digest {
            return Ok(false);
        }
        let loaded = contents.load(&self.files)?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(true)
    }

    /// Returns true if clients must show a certificate.
    #[must_use]
    pub fn asks_for_certificates(&self) -> bool {
        self.files.client_authorities.is_some()
    }

    pub(crate) fn acceptor(&self, versions: HttpVersions) -> TlsAcceptor {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(match versions {
            HttpVersions::Http2 => &loaded.for_http2,
            HttpVersions::Both => &loaded.for_both,
        }))
    }
}

/// The bytes of the files.
struct TlsFileContents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

impl TlsFileContents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read =
            |path: &PathBuf| small_files::read(path).map_err(|source| TlsError::Read { path: path.clone(), source });
        let client_authorities = files.client_authorities.as_ref().map(read).transpose()?;
        Ok(Self { certificate: read(&files.certificate)?, key: read(&files.key)?, client_authorities })
    }

    fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for bytes in [Some(&self.certificate), Some(&self.key), self.client_authorities.as_ref()].into_iter().flatten()
        {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
        hasher.finalize()
    }

    fn load(&self, files: &TlsFiles) -> Result<LoadedTls, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&self.certificate, &files.certificate)?;
        let no_key = |_| TlsError::NoKey { path: files.key.clone() };
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(no_key)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the ciphers of TLS 1.2 and 1.3");
        let builder = match (&files.client_authorities, &self.client_authorities) {
            (Some(path), Some(pem)) => builder.with_client_cert_verifier(verifier(pem, path, provider)?),
            _ => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Unlike {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        })?;
        let speaking = |protocols: &[&str]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
            Arc::new(config)
        };
        let (for_http2, for_both) = (speaking(&["h2"]), speaking(&["h2", "http/1.1"]));
        Ok(LoadedTls { digest: self.digest(), for_http2, for_both })
    }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let damaged =
        |error: rustls::pki_types::pem::Error| TlsError::Damaged { path: path.to_owned(), message: error.to_string() };
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(damaged)?;
    if all.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(all) }
}

/// Verifies the certificates of clients by the authorities in `pem`.
fn verifier(
    pem: &[u8],
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let damaged = |message: String| TlsError::Damaged { path: path.to_owned(), message };
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem, path)? {
        roots.add(authority).map_err(|error| damaged(error.to_string()))?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map_err(|error: VerifierBuilderError| damaged(error.to_string()))
}
