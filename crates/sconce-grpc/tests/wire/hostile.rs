//! Hostile peers: idle connections, half-sent requests, messages that are huge in memory, calls that are reset at once.
//! Good clients are still answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::client::{ResponseFuture, SendRequest};
use h2::{PingPong, SendStream};
use prost::Message as _;
use sconce::BatcherConfig;
use sconce_grpc::ServerLimits;
use sconce_grpc::proto::infer_parameter::ParameterChoice;
use sconce_grpc::proto::model_infer_request::InferInputTensor;
use sconce_grpc::proto::{ModelInferRequest, ServerLiveRequest};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::support::*;

const MIB: usize = 1 << 20;

/// A peer that speaks HTTP/2 frame by frame.
struct Peer {
    calls: SendRequest<Bytes>,
    ping: Option<PingPong>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Peer {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (calls, mut connection) = h2::client::handshake(stream).await.unwrap();
        let ping = connection.ping_pong();
        Self { calls, ping, connection: tokio::spawn(connection) }
    }

    /// Begins a call of `ModelInfer` whose message will have `length` bytes.
    async fn begin(&mut self, length: usize) -> (ResponseFuture, SendStream<Bytes>) {
        self.begin_call(model_infer(), length).await
    }

    /// Begins a call of `ModelStreamInfer` whose first message will have `length` bytes.
    async fn begin_stream(&mut self, length: usize) -> (ResponseFuture, SendStream<Bytes>) {
        self.begin_call(call("ModelStreamInfer"), length).await
    }

    async fn begin_call(&mut self, call: http::Request<()>, length: usize) -> (ResponseFuture, SendStream<Bytes>) {
        self.calls = self.calls.clone().ready().await.unwrap();
        let (response, mut stream) = self.calls.send_request(call, false).unwrap();
        stream.send_data(prefix(length), false).unwrap();
        (response, stream)
    }
}

fn model_infer() -> http::Request<()> {
    call("ModelInfer")
}

fn call(name: &str) -> http::Request<()> {
    http::Request::post(format!("http://localhost/inference.GRPCInferenceService/{name}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// The prefix of an uncompressed message of `length` bytes.
fn prefix(length: usize) -> Bytes {
    let mut prefix = BytesMut::new();
    prefix.put_u8(0);
    prefix.put_u32(u32::try_from(length).unwrap());
    prefix.freeze()
}

/// The code and the message of a refusal.
async fn refusal(response: ResponseFuture) -> Option<(i32, String)> {
    let (head, _) = soon(response).await.ok()?.into_parts();
    let text = |name| Some(head.headers.get(name)?.to_str().ok()?.to_owned());
    Some((text("grpc-status")?.parse().ok()?, text("grpc-message")?.replace("%20", " ")))
}

/// Sends as much of `bytes` as the server takes before it answers.
async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len().min(64 * 1024));
        let Some(capacity) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else {
            return Ok(());
        };
        let capacity = capacity?.min(bytes.len());
        stream.send_data(bytes.split_to(capacity), false)?;
    }
    Ok(())
}

async fn within(limits: ServerLimits) -> Server {
    Server::within(limits, &[SENTIMENT], BatcherConfig::default()).await
}

/// The shortest time in which a new client is connected and answered.
async fn time_to_answer(server: &Server) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        let mut client = soon(server.client()).await;
        let answer = soon(client.model_infer(texts(SENTIMENT, &["What a wonderful day!"]))).await.unwrap();
        assert_eq!(strings(answer.get_ref(), "label").1, ["positive"]);
        shortest = shortest.min(began.elapsed());
    }
    shortest
}

#[tokio::test]
async fn silent_connections_far_beyond_the_bound_leave_good_clients_answered() {
    let server = within(ServerLimits { max_connections: Some(32), ..ServerLimits::default() }).await;
    let mut good = server.client().await;
    good.server_live(ServerLiveRequest {}).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert!(time_to_answer(&server).await < Duration::from_millis(100));
    good.server_live(ServerLiveRequest {}).await.expect("one that has called before is not replaced by silent ones");
    // The first connection made room.
    let _ = soon(silent[0].read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn connections_that_speak_and_never_call_make_room_before_those_that_call() {
    let server = within(ServerLimits { max_connections: Some(16), ..ServerLimits::default() }).await;
    let mut good = server.client().await;
    good.server_live(ServerLiveRequest {}).await.unwrap();
    let mut peers = Vec::new();
    for _ in 0..100 {
        peers.push(Peer::connect(server.address).await);
    }
    good.server_live(ServerLiveRequest {}).await.expect("it has called before");
    assert!(time_to_answer(&server).await < Duration::from_millis(100));
}

#[tokio::test]
async fn a_connection_that_computes_is_never_replaced_and_newcomers_are_told_at_once() {
    let limits = ServerLimits { max_connections: Some(1), ..ServerLimits::default() };
    let server = Server::within(limits, &[SENTIMENT], patient(2)).await;
    let mut client = server.client().await;
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.model_infer(texts(SENTIMENT, &["one"])).await });
    server.until_queued(SENTIMENT, 1).await;
    let mut newcomer = TcpStream::connect(server.address).await.unwrap();
    let mut said = Vec::new();
    let _ = soon(newcomer.read_to_end(&mut said)).await;
    assert!(said.is_empty(), "closed at once");
    client.model_infer(texts(SENTIMENT, &["two"])).await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_does_not_begin_to_speak_is_closed() {
    let server =
        within(ServerLimits { max_handshake_time: Duration::from_millis(100), ..ServerLimits::default() }).await;
    for beginning in ["", "PRI * HTTP/2.0"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, beginning.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
    }
    assert!(time_to_answer(&server).await < Duration::from_secs(1));
}

#[tokio::test]
async fn pings_do_not_keep_a_connection_without_calls() {
    let server = within(ServerLimits { max_idle_time: Duration::from_millis(200), ..ServerLimits::default() }).await;
    let mut peer = Peer::connect(server.address).await;
    let mut ping = peer.ping.take().unwrap();
    // The server sends GOAWAY, and the connection ends without an error.
    soon(async { while ping.ping(h2::Ping::opaque()).await.is_ok() {} }).await;
    soon(peer.connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_whose_idle_connection_was_closed_connects_anew_without_an_error() {
    let server = within(ServerLimits { max_idle_time: Duration::from_millis(50), ..ServerLimits::default() }).await;
    let mut client = server.client().await;
    for _ in 0..3 {
        client.server_live(ServerLiveRequest {}).await.unwrap();
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
}

#[tokio::test]
async fn a_request_that_stops_half_way_is_cut() {
    let server =
        within(ServerLimits { max_request_pause: Duration::from_millis(100), ..ServerLimits::default() }).await;
    let mut peer = Peer::connect(server.address).await;
    let (response, mut stream) = peer.begin(1000).await;
    stream.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let (code, message) = refusal(response).await.expect("an answer");
    assert_eq!(code, Code::DeadlineExceeded as i32);
    assert!(message.starts_with("nothing more of the request came for 100ms"), "{message}");
    // A whole message is no whole request before its stream has ended.
    let (response, _stream) = peer.begin(0).await;
    assert_eq!(refusal(response).await.expect("an answer").0, Code::DeadlineExceeded as i32);
}

#[tokio::test]
async fn a_stream_may_pause_between_its_messages_and_is_cut_within_one() {
    let server =
        within(ServerLimits { max_request_pause: Duration::from_millis(100), ..ServerLimits::default() }).await;
    let mut peer = Peer::connect(server.address).await;
    let message = Bytes::from(texts(SENTIMENT, &["What a wonderful day!"]).encode_to_vec());
    let (open, mut between) = peer.begin_stream(message.len()).await;
    between.send_data(message.clone(), false).unwrap();
    let mut open = soon(open).await.unwrap().into_body();
    assert!(!soon(open.data()).await.unwrap().unwrap().is_empty());

    let (cut, mut within) = peer.begin_stream(1000).await;
    within.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let mut cut = soon(cut).await.unwrap().into_body();
    let trailers = soon(cut.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], (Code::DeadlineExceeded as i32).to_string());

    // The first one was silent for longer.
    between.send_data(prefix(message.len()), false).unwrap();
    between.send_data(message, true).unwrap();
    assert!(!soon(open.data()).await.unwrap().unwrap().is_empty());
    let trailers = soon(open.trailers()).await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn a_stream_without_requests_ends_with_its_connections_time() {
    let server = within(ServerLimits { max_idle_time: Duration::from_millis(100), ..ServerLimits::default() }).await;
    let mut client = server.client().await;
    let mut answers = client.model_stream_infer(tokio_stream::pending()).await.unwrap().into_inner();
    let status = soon(answers.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("begin a new stream"), "{status}");
}

#[tokio::test]
async fn half_sent_requests_give_way_when_they_hold_too_much() {
    let max_request_pause = Duration::from_mins(10);
    let limits = ServerLimits { max_request_bytes_in_flight: 8 * MIB, max_request_pause, ..ServerLimits::default() };
    let server = within(limits).await;
    let part = Bytes::from(vec![b'.'; MIB]);
    let (mut peers, mut half_sent) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let mut peer = Peer::connect(server.address).await;
        for _ in 0..10 {
            let (response, mut stream) = peer.begin(6 * MIB).await;
            let _ = soon(send(&mut stream, part.clone())).await;
            half_sent.push((response, stream));
        }
        peers.push(peer);
    }
    assert!(time_to_answer(&server).await < Duration::from_millis(100));
    // At most eight of these fit; those that have stalled for longest give way.
    let answer = |(response, stream)| async move { (refusal(response).await, stream) };
    let mut answers: FuturesUnordered<_> = half_sent.into_iter().map(answer).collect();
    for _ in 0..32 {
        let (refused, _stream) = soon(answers.next()).await.expect("there are forty");
        let (code, message) = refused.expect("one that gave way is told");
        assert_eq!(code, Code::ResourceExhausted as i32);
        assert!(message.contains("max_request_bytes_in_flight"), "{message}");
    }
}

#[tokio::test]
async fn a_connection_whose_answers_are_not_read_gives_way() {
    let limits = ServerLimits { max_request_bytes_in_flight: MIB, ..ServerLimits::default() };
    let server = Server::within(limits, &[SENTIMENT, EMBEDDER], BatcherConfig::default()).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    // The client has no room for answers.
    let handshake = h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream);
    let (mut calls, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let message = texts(EMBEDDER, &["a"; 64]).encode_to_vec();
    let mut answers = Vec::new();
    // Each answer has 96 KiB.
    while answers.len() < 40 && !connection.is_finished() {
        let Ok(mut ready) = calls.clone().ready().await else { break };
        let Ok((answer, mut stream)) = ready.send_request(model_infer(), false) else { break };
        let _ = stream.send_data([&prefix(message.len())[..], &message].concat().into(), true);
        // The head of each answer comes before the next request is sent; a refusal has nothing else.
        let _ = soon(answer).await.map(|answer| answers.push(answer));
        calls = ready;
    }
    let mut good = soon(server.client()).await;
    soon(good.model_infer(texts(EMBEDDER, &["a"; 64]))).await.unwrap();
    assert!(time_to_answer(&server).await < Duration::from_millis(100));
    // The server has ended the connection.
    let _ = soon(connection).await.unwrap();
    drop(answers);
}

#[tokio::test]
async fn a_small_message_that_is_large_in_memory_is_refused() {
    let limits = ServerLimits { max_request_bytes_in_flight: 8 * MIB, ..ServerLimits::default() };
    let server = within(limits).await;
    let inputs = vec![InferInputTensor::default(); 100_000];
    let many_inputs = ModelInferRequest { model_name: SENTIMENT.into(), inputs, ..Default::default() };
    let refused = server.client().await.model_infer(many_inputs).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(refused.message().contains("(max_request_bytes_in_flight); send fewer items"), "{refused}");

    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = server.client().await.send_compressed(encoding);
        let refused = client.model_infer(texts(SENTIMENT, &[vec![b'a'; 32 * MIB]])).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
        let answer = client.model_infer(texts(SENTIMENT, &["What a wonderful day!"])).await.unwrap();
        assert_eq!(strings(answer.get_ref(), "label").1, ["positive"]);
    }
}

#[tokio::test]
async fn a_flood_of_calls_that_are_reset_at_once_leaves_good_clients_answered() {
    let server = within(ServerLimits::default()).await;
    let peer = Peer::connect(server.address).await;
    let flood = async {
        // Reset before the server can read them.
        while let Ok(mut calls) = peer.calls.clone().ready().await {
            let request = http::Request::post("http://localhost/x").body(()).unwrap();
            let Ok((_, mut stream)) = calls.send_request(request, false) else { return };
            stream.send_reset(h2::Reason::CANCEL);
            tokio::task::yield_now().await;
        }
    };
    // The connection may end or not: that depends on how many calls are unread.
    let _ = tokio::time::timeout(Duration::from_secs(1), flood).await;
    assert!(time_to_answer(&server).await < Duration::from_secs(1));
}

#[tokio::test]
async fn an_error_about_a_large_input_arrives_as_it_was_sent() {
    let server = within(ServerLimits::default()).await;
    let mut client = server.client().await;
    let long = "é".repeat(MIB);
    let named = |name: &str| ModelInferRequest { model_name: name.into(), ..texts(SENTIMENT, &["a"]) };
    let cases = [
        (named(&long), Code::NotFound),
        (ModelInferRequest { model_version: long.clone(), ..texts(SENTIMENT, &["a"]) }, Code::NotFound),
        (raw(SENTIMENT, tensor(&long, "BYTES", &[1]), raw_bytes(&["a"])), Code::InvalidArgument),
        (raw(SENTIMENT, tensor("text", &long, &[1]), raw_bytes(&["a"])), Code::InvalidArgument),
        (raw(SENTIMENT, tensor("text", "BYTES", &vec![1; MIB]), raw_bytes(&["a"])), Code::InvalidArgument),
        (asking(texts(SENTIMENT, &["a"]), &[(&long, None)]), Code::InvalidArgument),
        (with(texts(SENTIMENT, &["a"]), "timeout", ParameterChoice::StringParam(long.clone())), Code::InvalidArgument),
        (
            with(texts(SENTIMENT, &["a"]), &format!("sequence_{long}"), ParameterChoice::BoolParam(true)),
            Code::Unimplemented,
        ),
    ];
    for (request, code) in cases {
        let refused = client.model_infer(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.message().contains('…'), "{refused}");
    }
}
