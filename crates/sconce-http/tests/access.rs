//! TLS, tokens and rates over real sockets.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sconce::Runtime;
use sconce_http::{
    BearerToken, ClientAccess, ClientAccessConfig, ClientRates, ServerBounds, ServerLimits, ServerListener, Tls,
    TlsFiles,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const TOKEN: &str = "a-token-of-some-length";

/// An authority, which signs the certificates of servers and clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for `name` and its key, in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    /// A client that trusts this authority, with a certificate of its own if there is one.
    fn client(&self, protocol: &str, own: Option<&(String, String)>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM")).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("ring has them").with_root_certificates(roots);
        let mut config = match own {
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("they fit")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// The files of a server with a certificate by `authority`.
fn files(directory: &TempDir, authority: &Authority, clients_by: Option<&Authority>) -> TlsFiles {
    let path = |name: &str| directory.path().join(name);
    let files = TlsFiles {
        certificate: path("cert.pem"),
        key: path("key.pem"),
        client_authorities: clients_by.map(|_| path("clients.pem")),
    };
    write_identity(&files, authority);
    if let Some(authority) = clients_by {
        std::fs::write(path("clients.pem"), &authority.pem).expect("a file");
    }
    files
}

fn write_identity(files: &TlsFiles, authority: &Authority) {
    let (certificate, key) = authority.sign("localhost");
    std::fs::write(&files.certificate, certificate).expect("a file");
    std::fs::write(&files.key, key).expect("a file");
}

async fn serve(limits: ServerLimits, tls: Option<&Tls>, access: ClientAccess) -> SocketAddr {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    let runtime = Runtime::builder().model(zoo.join("tiny-bert-sentiment")).build().expect("the model loads");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let listener = ServerListener::from(listener);
    let listener = match tls {
        Some(tls) => listener.with_tls(tls.clone()),
        None => listener,
    };
    let bounds = ServerBounds::new(limits).expect("limits").with_access(access);
    tokio::spawn(async move {
        sconce_http::serve_beside(&bounds, runtime, listener, std::future::pending()).await;
    });
    address
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("in time")
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("it listens")
}

async fn secure(address: SocketAddr, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    soon(client.connect(name, connect(address).await)).await
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

/// Sends a request of HTTP/1.1, and reads the answer.
async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    (method, path): (&str, &str),
    headers: &str,
    body: &str,
) -> Answer {
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    stream.flush().await.expect("it reads");
    read_answer(stream).await
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let answer = Answer { head: head.to_owned(), body: body.to_owned() };
            let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if answer.body.len() >= length {
                return answer;
            }
        }
        assert_ne!(soon(stream.read_buf(&mut read)).await.expect("it answers"), 0, "it closed: {read:?}");
    }
}

const LIVE: (&str, &str) = ("GET", "/v2/health/live");

#[tokio::test]
async fn both_versions_of_http_are_spoken_over_tls_and_nothing_without_it() {
    let (directory, authority) = (TempDir::new().unwrap(), Authority::new());
    let tls = Tls::load(files(&directory, &authority, None)).unwrap();
    let address = serve(ServerLimits::default(), Some(&tls), ClientAccess::default()).await;

    let mut stream = secure(address, &authority.client("http/1.1", None)).await.unwrap();
    let predict = exchange(&mut stream, ("POST", "/predict"), "", r#"{"inputs": "What a wonderful day!"}"#).await;
    assert_eq!((predict.status(), &predict.json()[0]["label"]), (200, &json!("positive")));
    assert_eq!(exchange(&mut stream, LIVE, "", "").await.status(), 200, "the connection stays");

    let mut stream = secure(address, &authority.client("h2", None)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut settings = [0; 9];
    soon(stream.read_exact(&mut settings)).await.unwrap();
    assert_eq!(settings[3], 4, "a frame of settings");

    assert!(secure(address, &authority.client("spdy/3", None)).await.is_err());
    assert!(secure(address, &Authority::new().client("h2", None)).await.is_err(), "another authority");
    let mut plain = connect(address).await;
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = soon(plain.read_to_end(&mut said)).await;
    assert!(!String::from_utf8_lossy(&said).contains("HTTP/1.1"), "{said:?}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_open_ones_stay() {
    let (directory, old, new) = (TempDir::new().unwrap(), Authority::new(), Authority::new());
    let files = files(&directory, &old, None);
    let tls = Tls::load(files.clone()).unwrap();
    let address = serve(ServerLimits::default(), Some(&tls), ClientAccess::default()).await;
    let mut open = secure(address, &old.client("http/1.1", None)).await.unwrap();
    assert!(!tls.refresh().unwrap(), "nothing has changed");

    let (certificate, key) = new.sign("localhost");
    std::fs::write(&files.certificate, certificate).unwrap();
    let error = tls.refresh().unwrap_err().to_string();
    assert!(error.contains("cannot be used together"), "only half is renewed: {error}");
    assert!(secure(address, &old.client("http/1.1", None)).await.is_ok());
    std::fs::write(&files.key, key).unwrap();
    assert!(tls.refresh().unwrap());
    assert!(secure(address, &new.client("http/1.1", None)).await.is_ok());
    assert!(secure(address, &old.client("http/1.1", None)).await.is_err());
    assert_eq!(exchange(&mut open, LIVE, "", "").await.status(), 200);
}

#[tokio::test]
async fn clients_without_a_certificate_of_the_authority_are_refused_where_one_is_asked_for() {
    let (directory, authority, clients) = (TempDir::new().unwrap(), Authority::new(), Authority::new());
    let tls = Tls::load(files(&directory, &authority, Some(&clients))).unwrap();
    assert!(tls.asks_for_certificates());
    let address = serve(ServerLimits::default(), Some(&tls), ClientAccess::default()).await;
    let mut good = secure(address, &authority.client("http/1.1", Some(&clients.sign("client")))).await.unwrap();
    assert_eq!(exchange(&mut good, LIVE, "", "").await.status(), 200);
    for own in [None, Some(authority.sign("client"))] {
        // In TLS 1.3 a client learns of the refusal when it reads.
        let Ok(mut stream) = secure(address, &authority.client("http/1.1", own.as_ref())).await else { continue };
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(soon(stream.read_u8()).await.is_err());
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_a_remedy() {
    let (directory, authority) = (TempDir::new().unwrap(), Authority::new());
    let good = files(&directory, &authority, None);
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let damaged = directory.path().join("damaged.pem");
    std::fs::write(&damaged, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    let other = directory.path().join("other.pem");
    std::fs::write(&other, authority.sign("localhost").1).unwrap();
    for (files, words) in [
        (TlsFiles { certificate: directory.path().join("absent"), ..good.clone() }, "cannot read"),
        (TlsFiles { certificate: empty.clone(), ..good.clone() }, "empty.pem has no certificate"),
        (TlsFiles { certificate: damaged, ..good.clone() }, "damaged.pem has a certificate that cannot be used"),
        (TlsFiles { key: empty.clone(), ..good.clone() }, "empty.pem has no private key that can be read"),
        (TlsFiles { key: other, ..good.clone() }, "give the certificate's own key"),
        (TlsFiles { client_authorities: Some(empty), ..good.clone() }, "empty.pem has no certificate"),
    ] {
        let error = Tls::load(files).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn handshakes_that_do_not_end_are_cut_and_leave_good_clients_answered() {
    let (directory, authority) = (TempDir::new().unwrap(), Authority::new());
    let tls = Tls::load(files(&directory, &authority, None)).unwrap();
    let limits = ServerLimits {
        max_connections: Some(16),
        max_handshake_time: Duration::from_millis(300),
        ..ServerLimits::default()
    };
    let address = serve(limits, Some(&tls), ClientAccess::default()).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(address).await;
        // The beginning of a handshake.
        stream.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
        silent.push(stream);
    }
    let mut good = secure(address, &authority.client("http/1.1", None)).await.unwrap();
    assert_eq!(exchange(&mut good, LIVE, "", "").await.status(), 200);
    for mut stream in silent {
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
}

fn asking(rates: ClientRates) -> ClientAccess {
    let token = Some(BearerToken::new(TOKEN).expect("a token"));
    ClientAccess::new(ClientAccessConfig { token, rates, ..ClientAccessConfig::default() }).expect("no file")
}

#[tokio::test]
async fn a_request_without_a_token_is_refused_in_the_form_of_its_route_and_health_is_answered() {
    let address = serve(ServerLimits::default(), None, asking(ClientRates::default())).await;
    for (method, path, place) in [
        ("GET", "/v2", "/error"),
        ("POST", "/v2/models/tiny-bert-sentiment/infer", "/error"),
        ("GET", "/v2/models/tiny-bert-sentiment/ready", "/error"),
        ("POST", "/v1/embeddings", "/error/message"),
        ("GET", "/v1/models", "/error/message"),
        ("POST", "/v2/rerank", "/detail"),
        ("POST", "/predict", "/error"),
        ("POST", "/", "/error"),
        ("GET", "/openapi.json", "/error"),
        ("GET", "/no/such", "/error"),
    ] {
        let answer = exchange(&mut connect(address).await, (method, path), "", "").await;
        assert_eq!((answer.status(), answer.header("www-authenticate")), (401, Some("Bearer")), "{path}: {answer:?}");
        let said = answer.json().pointer(place).and_then(Value::as_str).map(str::to_owned);
        assert!(said.is_some_and(|said| said.contains("Authorization: Bearer TOKEN")), "{path}: {answer:?}");
    }
    let openai =
        exchange(&mut connect(address).await, ("POST", "/v1/embeddings"), "authorization: Bearer x\r\n", "").await;
    assert_eq!(openai.json()["error"]["code"], "invalid_api_key");
    let tei = exchange(&mut connect(address).await, ("POST", "/predict"), "authorization: Bearer x\r\n", "").await;
    assert_eq!(tei.json()["error_type"], "Unauthorized");
    for path in ["/metrics", "/metrics.json"] {
        assert_eq!(exchange(&mut connect(address).await, ("GET", path), "", "").await.status(), 401, "{path}");
    }
    let page = ["/", "/dashboard", "/dashboard.css", "/dashboard.js"];
    let health = ["/health", "/healthz", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready"];
    for path in page.into_iter().chain(health) {
        assert_eq!(exchange(&mut connect(address).await, ("GET", path), "", "").await.status(), 200, "{path}");
    }
    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
    let body = r#"{"inputs": "What a wonderful day!"}"#;
    let mut kept = connect(address).await;
    assert_eq!(exchange(&mut kept, ("POST", "/predict"), &headers, body).await.status(), 200);
    assert_eq!(exchange(&mut kept, ("GET", "/v2"), "", "").await.status(), 401, "each request is asked");
    assert_eq!(exchange(&mut kept, ("GET", "/v2"), &headers, "").await.status(), 200, "the connection stays");

    let mut large = connect(address).await;
    large.write_all(b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
    let answer = read_answer(&mut large).await;
    assert_eq!((answer.status(), answer.header("connection")), (401, Some("close")), "before its body is read");
}

#[tokio::test]
async fn each_client_has_its_rate_of_requests_and_of_weight() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tokens");
    std::fs::write(&path, "a:the-token-of-client-a\nb:the-token-of-client-b\n").unwrap();
    let access = |requests, weight| {
        let rates = ClientRates {
            max_requests_per_second: NonZeroU32::new(requests),
            max_weight_per_second: NonZeroU32::new(weight),
        };
        let token_file = Some(path.clone());
        ClientAccess::new(ClientAccessConfig { token_file, rates, ..ClientAccessConfig::default() })
            .expect("two tokens")
    };
    let predict = async |address, client: &str, text: &str| {
        let headers = format!("authorization: Bearer the-token-of-client-{client}\r\n");
        let body = json!({"inputs": text}).to_string();
        exchange(&mut connect(address).await, ("POST", "/predict"), &headers, &body).await
    };

    let address = serve(ServerLimits::default(), None, access(1, 0)).await;
    assert_eq!(predict(address, "a", "one").await.status(), 200);
    let refused = predict(address, "a", "two").await;
    let message = "the client asks for more than 1 requests a second (max_requests_per_second)";
    assert!(refused.status() == 429 && refused.body.contains(message), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["error_type"], "Overloaded");
    assert_eq!(predict(address, "b", "three").await.status(), 200, "another client");

    // 7 tokens a text, and one is allowed for in a second.
    let address = serve(ServerLimits::default(), None, access(0, 1)).await;
    assert_eq!(predict(address, "a", "What a wonderful day!").await.status(), 200);
    let refused = predict(address, "a", "two").await;
    assert!(refused.status() == 429 && refused.body.contains("max_weight_per_second"), "{refused:?}");
    let seconds: u64 = refused.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("a time");
    assert!((3..=8).contains(&seconds), "{refused:?}");
    assert_eq!(predict(address, "b", "three").await.status(), 200, "another client");
}
