//! The log and the traces of `sconce serve`.

use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as OtelValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use sconce_grpc::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use sconce_grpc::proto::model_infer_request::InferInputTensor;
use sconce_grpc::proto::{InferTensorContents, ModelInferRequest};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::command::{ended, path, sconce};
use crate::serve::Server;

const MODEL: &str = "tiny-bert-sentiment";
const SECRET: &str = "nobody may read this";

/// An OpenTelemetry collector that hands on the spans that it is sent.
struct Collector(UnboundedSender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        for span in resources.into_iter().flat_map(|it| it.scope_spans).flat_map(|it| it.spans) {
            self.0.send(span).expect("the test reads them");
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts a collector; returns its address and the spans that come.
async fn collector() -> (String, UnboundedReceiver<Span>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (spans, received) = unbounded_channel();
    let service = TraceServiceServer::new(Collector(spans));
    let serving =
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(serving);
    (format!("http://{address}"), received)
}

fn traceparent(trace: u8, flags: &str) -> String {
    format!("00-{:032x}-{:016x}-{flags}", u128::from(trace), 7)
}

async fn over_grpc(server: &Server, traceparent: Option<String>) {
    let mut client =
        GrpcInferenceServiceClient::connect(format!("http://{}", server.address)).await.expect("it serves");
    let input = InferInputTensor {
        name: "text".to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![1, 1],
        contents: Some(InferTensorContents {
            bytes_contents: vec![SECRET.as_bytes().to_vec()],
            ..InferTensorContents::default()
        }),
        ..InferInputTensor::default()
    };
    let model_name = MODEL.to_owned();
    let mut request =
        Request::new(ModelInferRequest { model_name, inputs: vec![input], ..ModelInferRequest::default() });
    if let Some(traceparent) = traceparent {
        request.metadata_mut().insert("traceparent", traceparent.parse().expect("a header"));
    }
    client.model_infer(request).await.expect("an answer");
}

/// Sends a request to `/predict`; returns the answer with its headers.
fn over_http(socket: &str, traceparent: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    let length = body.len();
    let request = format!(
        "POST /predict HTTP/1.1\r\nhost: sconce\r\nconnection: close\r\ntraceparent: {traceparent}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    BufReader::new(stream).read_to_string(&mut answer).expect("it answers");
    answer
}

fn start(socket: &str, args: &[&str]) -> Server {
    let http = format!("unix:{socket}");
    let mut command = sconce(&["serve", "--grpc", "127.0.0.1:0", "--http", &http, "--model", MODEL]);
    command.args(args).env("RUST_LOG", "warn,sconce_server=debug");
    Server::run(command)
}

fn prompt_that_is_not_there() -> String {
    format!(r#"{{"inputs": "{SECRET}", "prompt_name": "none-such"}}"#)
}

/// The text of an attribute.
fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let attribute = span.attributes.iter().find(|it| it.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        OtelValue::StringValue(text) => Some(text),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_of_its_callers_trace_with_one_below_it_for_each_stage() {
    let (address, mut received) = collector().await;
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("http.sock");
    let mut server = start(path(&socket), &["--otlp", &address, "--otlp-sample-ratio", "0"]);
    over_grpc(&server, Some(traceparent(1, "01"))).await;
    let answer = over_http(path(&socket), &traceparent(2, "01"), &format!(r#"{{"inputs": "{SECRET}"}}"#));
    assert!(answer.contains("positive"), "{answer}");
    over_grpc(&server, Some(traceparent(3, "00"))).await;
    over_grpc(&server, None).await;
    let refused = over_http(path(&socket), &traceparent(4, "01"), &prompt_that_is_not_there());
    assert!(refused.contains(" 422 "), "{refused}");
    server.stop();

    let mut spans = Vec::new();
    while let Ok(span) = received.try_recv() {
        spans.push(span);
    }
    let of = |trace: u8| -> Vec<&Span> {
        spans.iter().filter(|span| span.trace_id == u128::from(trace).to_be_bytes()).collect()
    };
    for trace in [1, 2] {
        let spans = of(trace);
        let request = spans.iter().find(|span| span.parent_span_id == 7_u64.to_be_bytes()).expect("the request's span");
        assert_eq!((&*request.name, request.kind), ("infer tiny-bert-sentiment", 2), "a server's span");
        assert_eq!(attribute(request, "sconce.device"), Some("cpu"));
        let mut stages: Vec<&&Span> = spans.iter().filter(|span| span.parent_span_id == request.span_id).collect();
        stages.sort_by_key(|span| span.start_time_unix_nano);
        let names: Vec<&str> = stages.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["prepare", "queue", "run", "finish", "serialise"]);
        assert_eq!(stages.len() + 1, spans.len());
        for stage in stages {
            let within = request.start_time_unix_nano..=request.end_time_unix_nano;
            assert!(within.contains(&stage.start_time_unix_nano) && within.contains(&stage.end_time_unix_nano));
            assert!(stage.start_time_unix_nano < stage.end_time_unix_nano, "{stage:?}");
        }
    }
    assert_eq!(of(3).len(), 0, "its caller does not record it");
    let failed = of(4);
    let status = failed[0].status.as_ref().expect("a status");
    assert!(failed.len() == 1 && status.code == 2 && status.message.contains("none-such"), "{failed:?}");
    assert_eq!(spans.len(), of(1).len() + of(2).len() + failed.len(), "a share of 0 samples no other request");
    assert!(!format!("{spans:?}").contains(SECRET), "inputs stay out of traces");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_holds_nothing_up() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("http.sock");
    let address = format!("http://{gone}");
    let mut server = start(path(&socket), &["--otlp", &address, "--otlp-sample-ratio", "1"]);
    over_grpc(&server, None).await;
    server.stop();
    for wrong in ["collector:4317", "https://collector:4317"] {
        ended(&["serve", "--otlp", wrong], b"").failed_with(2, &["--otlp", wrong, "must begin with http://"]);
    }
    ended(&["serve", "--otlp-sample-ratio", "2"], b"").failed_with(2, &["--otlp-sample-ratio", "from 0", "to 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_json_is_json_alone_and_names_the_trace_and_no_input() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("http.sock");
    let mut server = start(path(&socket), &["--log-format", "json"]);
    over_grpc(&server, Some(traceparent(10, "01"))).await;
    over_http(path(&socket), &traceparent(11, "01"), &prompt_that_is_not_there());
    let mut log = String::new();
    log += &server.wait_until_it_says("\"answered\"");
    log += &server.wait_until_it_says("refused");
    server.signal("TERM");
    log += &server.wait_until_it_says("draining");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [answered, refused, draining] = &lines[..] else { panic!("{log}") };
    assert_eq!((&answered["model"], &answered["trace_id"]), (&MODEL.into(), &format!("{:032x}", 10).into()));
    assert!(answered["level"] == "DEBUG" && answered["items"] == 1 && answered["took_us"].as_u64() > Some(0));
    assert!(refused["message"].as_str().is_some_and(|message| message.contains("none-such")), "{refused}");
    assert_eq!(refused["trace_id"], format!("{:032x}", 11));
    assert_eq!(draining["level"], "INFO");
    let mut rest = String::new();
    server.read_the_rest_of_the_log(&mut rest);
    for line in rest.lines() {
        serde_json::from_str::<Value>(line).expect("JSON");
    }
    assert!(!(log + &rest).contains(SECRET), "inputs stay out of the log");
}
