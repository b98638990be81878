//! Tokens, rates and TLS over gRPC.

use std::num::NonZeroU32;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use sconce::Runtime;
use sconce_grpc::proto::{ServerLiveRequest, ServerMetadataRequest};
use sconce_grpc::{
    BearerToken, ClientAccess, ClientAccessConfig, ClientRates, ServerBounds, ServerListener, Tls, TlsFiles,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::*;

const TOKEN: &str = "a-token-of-some-length";

async fn serve(access: ClientAccess, tls: Option<Tls>) -> std::net::SocketAddr {
    let runtime = Runtime::builder().model(zoo().join(SENTIMENT)).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = ServerListener::from(listener);
    let listener = if let Some(tls) = tls { listener.with_tls(tls) } else { listener };
    let bounds = ServerBounds::new(sconce_grpc::ServerLimits::default()).unwrap().with_access(access);
    tokio::spawn(async move {
        sconce_grpc::serve_beside(&bounds, runtime, listener, std::future::pending()).await;
    });
    address
}

fn asking(rates: ClientRates) -> ClientAccess {
    let token = Some(BearerToken::new(TOKEN).unwrap());
    ClientAccess::new(ClientAccessConfig { token, rates, ..ClientAccessConfig::default() }).unwrap()
}

fn with_token<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    request
}

#[tokio::test]
async fn a_call_without_a_token_is_unauthenticated_and_health_is_answered() {
    let address = serve(asking(ClientRates::default()), None).await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut client = Client::new(channel.clone());
    let mut wrong = Request::new(texts(SENTIMENT, &["one"]));
    wrong.metadata_mut().insert("authorization", MetadataValue::from_static("Bearer not-the-right-token"));
    for (request, message) in
        [(Request::new(texts(SENTIMENT, &["one"])), "no token"), (wrong, "the token is not known")]
    {
        let status = client.model_infer(request).await.unwrap_err();
        assert!(status.code() == Code::Unauthenticated && status.message().contains(message), "{status:?}");
        assert_eq!(status.metadata().get("www-authenticate").unwrap(), "Bearer");
    }
    assert_eq!(client.server_metadata(ServerMetadataRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let answer = client.model_infer(with_token(texts(SENTIMENT, &["What a wonderful day!"]))).await.unwrap();
    assert_eq!(strings(answer.get_ref(), "label").1, ["positive"]);

    client.server_live(ServerLiveRequest {}).await.expect("probes cannot send a token");
    let mut health = HealthClient::new(channel);
    health.check(HealthCheckRequest::default()).await.expect("probes cannot send a token");
}

#[tokio::test]
async fn a_client_beyond_its_rate_is_told_when_to_come_back() {
    let one = ClientRates { max_requests_per_second: NonZeroU32::new(1), ..ClientRates::default() };
    let weight = ClientRates { max_weight_per_second: NonZeroU32::new(1), ..ClientRates::default() };
    for rates in [one, weight] {
        let address = serve(asking(rates), None).await;
        let mut client = Client::connect(format!("http://{address}")).await.unwrap();
        client.model_infer(with_token(texts(SENTIMENT, &["one"]))).await.unwrap();
        let status = client.model_infer(with_token(texts(SENTIMENT, &["two"]))).await.unwrap_err();
        assert!(status.code() == Code::ResourceExhausted && status.message().contains("max_"), "{status:?}");
        let pushback: u64 = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
        assert!((500..=4000).contains(&pushback), "{pushback}");
    }
}

#[tokio::test]
async fn each_request_of_a_stream_counts_among_its_clients_rate() {
    let rates = ClientRates { max_requests_per_second: NonZeroU32::new(3), ..ClientRates::default() };
    let address = serve(asking(rates), None).await;
    let mut client = Client::connect(format!("http://{address}")).await.unwrap();
    let requests = vec![texts(SENTIMENT, &["one"]); 30];
    let answers = client.model_stream_infer(with_token(tokio_stream::iter(requests))).await.unwrap();
    let mut answers = answers.into_inner();
    let (mut answered, mut refused) = (0, 0);
    while let Some(answer) = soon(answers.message()).await.unwrap() {
        if answer.error_message.is_empty() {
            answered += 1;
        } else {
            assert!(answer.error_message.contains("max_requests_per_second"), "{}", answer.error_message);
            assert!(answer.infer_response.unwrap().parameters.contains_key("retry_after_ms"));
            refused += 1;
        }
    }
    assert!(answered >= 2 && refused >= 10 && answered + refused == 30, "{answered} answered, {refused} refused");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_taken_out_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    std::fs::write(&path, format!("app:{TOKEN}")).unwrap();
    let config = ClientAccessConfig { token_file: Some(path.clone()), ..ClientAccessConfig::default() };
    let access = ClientAccess::new(config).unwrap();
    let address = serve(access.clone(), None).await;
    let mut client = Client::connect(format!("http://{address}")).await.unwrap();
    let (requests, sent) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(sent);
    requests.send(texts(SENTIMENT, &["one"])).await.unwrap();
    let mut answers = client.model_stream_infer(with_token(stream)).await.unwrap().into_inner();
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().error_message, "");
    std::fs::write(&path, "app:the-next-token-of-the-app").unwrap();
    assert!(access.refresh().unwrap());
    requests.send(texts(SENTIMENT, &["two"])).await.unwrap();
    assert_eq!(soon(answers.message()).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn http2_alone_is_spoken_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let files = TlsFiles { certificate: path("cert.pem"), key: path("key.pem"), client_authorities: None };
    let address = serve(ClientAccess::default(), Some(Tls::load(files).unwrap())).await;

    let connect = async |protocol: &str| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(path("cert.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        soon(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream)).await
    };
    assert!(connect("http/1.1").await.is_err());
    let (calls, connection) = h2::client::handshake(connect("h2").await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("https://localhost/inference.GRPCInferenceService/ServerLive")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let mut calls = soon(calls.ready()).await.unwrap();
    let (response, mut body) = calls.send_request(request, false).unwrap();
    body.send_data(bytes::Bytes::from_static(&[0; 5]), true).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    let message = soon(body.data()).await.unwrap().unwrap();
    assert_eq!(&message[..], [0, 0, 0, 0, 2, 8, 1], "live: true");
}
