//! The Open Inference Protocol over HTTP, answered by a real server on a free port.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sconce::{BatcherConfig, Runtime};
use sconce_http::{ServerBounds, ServerLimits, SharedMemory};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const SENTIMENT: &str = "tiny-bert-sentiment";
const EMBEDDER: &str = "encoder-mini";
const DIGITS: &str = "digits-cnn";

struct Server {
    runtime: Runtime,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Server {
    async fn start(limits: ServerLimits, batching: BatcherConfig) -> Self {
        Self::within(ServerBounds::new(limits).expect("limits"), batching).await
    }

    async fn within(bounds: ServerBounds, batching: BatcherConfig) -> Self {
        let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
        let models = [SENTIMENT, EMBEDDER, DIGITS];
        let builder = models.iter().fold(Runtime::builder(), |builder, model| builder.model(zoo.join(model)));
        Self::of(builder.batching(batching).build().expect("the models load"), bounds).await
    }

    async fn of(runtime: Runtime, bounds: ServerBounds) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let serving = runtime.clone();
        let served = tokio::spawn(async move {
            sconce_http::serve_beside(&bounds, serving, listener, async { stopped.await.unwrap_or(()) }).await;
        });
        Self { runtime, address, stop, served }
    }

    async fn zoo() -> Self {
        Self::start(ServerLimits::default(), BatcherConfig::default()).await
    }

    async fn connect(&self) -> Peer {
        Peer(TcpStream::connect(self.address).await.expect("it listens"))
    }

    async fn get(&self, path: &str) -> Answer {
        self.connect().await.request("GET", path, &[], b"").await
    }

    async fn infer(&self, model: &str, body: &Value) -> Answer {
        let path = format!("/v2/models/{model}/infer");
        self.connect().await.request("POST", &path, &[], body.to_string().as_bytes()).await
    }
}

/// A connection, over which requests go one after the other.
struct Peer(TcpStream);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

impl Peer {
    async fn send(&mut self, method: &str, path: &str, headers: &[(&str, String)], body: &[u8], length: usize) {
        let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<Vec<_>>().concat();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: sconce\r\n{headers}content-length: {length}\r\n\r\n");
        self.0.write_all(head.as_bytes()).await.expect("it reads");
        self.0.write_all(body).await.expect("it reads");
    }

    async fn answer(&mut self) -> Answer {
        let mut read = Vec::new();
        let end = loop {
            if let Some(at) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert_ne!(soon(self.0.read_buf(&mut read)).await.expect("a head"), 0, "it closed the connection");
        };
        let mut body = read.split_off(end);
        let head = String::from_utf8(read).expect("text");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        let length: usize = answer.header("content-length").and_then(|it| it.parse().ok()).expect("a length");
        while body.len() < length {
            assert_ne!(soon(self.0.read_buf(&mut body)).await.expect("a body"), 0, "it closed the connection");
        }
        answer.body = body;
        answer
    }

    async fn request(&mut self, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> Answer {
        self.send(method, path, headers, body, body.len()).await;
        self.answer().await
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("in time")
}

fn texts(texts: &[&str]) -> Value {
    json!({"inputs": [{"name": "text", "shape": [texts.len(), 1], "datatype": "BYTES", "data": texts}]})
}

#[tokio::test]
async fn models_and_the_server_are_described_as_triton_does() {
    let server = Server::zoo().await;
    for path in ["/v2/health/live", "/livez"] {
        assert_eq!(server.get(path).await.json(), json!({"live": true}), "{path}");
    }
    for path in ["/v2/health/ready", "/readyz", "/health", "/healthz"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"ready": true})), "{path}");
    }
    assert_eq!(server.get("/").await.json(), json!({"status": "alive"}));
    assert_eq!(server.get("/v2").await.json()["name"], "sconce");
    for path in ["/v2/models/digits-cnn", "/v2/models/digits-cnn/versions/1"] {
        let metadata = server.get(path).await.json();
        let image = json!([{"name": "image", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}]);
        assert_eq!((&metadata["versions"], &metadata["inputs"]), (&json!(["1"]), &image), "{path}");
        let ready = server.get(&format!("{path}/ready")).await.json();
        assert_eq!(ready, json!({"name": DIGITS, "ready": true}));
        let config = server.get(&format!("{path}/config")).await.json();
        assert_eq!((&config["name"], &config["input"][0]["format"]), (&json!(DIGITS), &json!("FORMAT_NCHW")));
    }
    server.infer(SENTIMENT, &texts(&["fine"])).await;
    let stats = server.get("/v2/models/tiny-bert-sentiment/stats").await.json();
    assert_eq!(stats["model_stats"][0]["inference_stats"]["success"]["count"], 1);
    assert_eq!(server.get("/v2/models/stats").await.json()["model_stats"].as_array().map(Vec::len), Some(3));
    let index = server.connect().await.request("POST", "/v2/repository/index", &[], b"").await.json();
    assert_eq!(index[0], json!({"name": DIGITS, "version": "1", "state": "READY", "reason": ""}));
    let load = server.connect().await.request("POST", "/v2/repository/models/x/load", &[], b"{}").await;
    assert!(load.status == 503 && load.error().contains("not allowed"), "{load:?}");
}

#[tokio::test]
async fn json_tensors_are_answered_with_json_tensors() {
    let server = Server::zoo().await;
    let mut asked = texts(&["What a wonderful day!", "The worst film I ever saw."]);
    asked["id"] = json!("7");
    let answer = server.infer(SENTIMENT, &asked).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let answer = answer.json();
    assert_eq!(
        (&answer["id"], &answer["model_name"], &answer["model_version"]),
        (&json!("7"), &json!(SENTIMENT), &json!("1"))
    );
    assert_eq!(answer["parameters"], json!({"precision": "f32", "device": "cpu"}));
    let label = json!({"name": "label", "datatype": "BYTES", "shape": [2, 1], "data": ["positive", "negative"]});
    assert_eq!(answer["outputs"][1], label);

    let expected = server.runtime.model(EMBEDDER).unwrap().infer("one").await.unwrap();
    let answer = server.infer(EMBEDDER, &texts(&["one"])).await.json();
    let data: Vec<f32> = serde_json::from_value(answer["outputs"][0]["data"].clone()).unwrap();
    assert_eq!(data, expected.output.embedding().unwrap());
}

#[tokio::test]
async fn numbers_of_any_type_and_shape_and_made_up_names_are_read() {
    let server = Server::zoo().await;
    let image = |name: &str, datatype: &str, data: Value| json!({"inputs": [{"name": name, "shape": [1, 1, 8, 8], "datatype": datatype, "data": data}]});
    let flat = json!(vec![7; 64]);
    let nested = json!([[vec![vec![7.0; 8]; 8]]]);
    let expected = server.infer(DIGITS, &image("image", "UINT8", flat.clone())).await.json();
    for asked in [
        image("image", "FP32", nested.clone()),
        image("image", "FP64", nested),
        image("input-0", "INT64", flat.clone()),
        image("predict", "INT32", flat),
    ] {
        let answer = server.infer(DIGITS, &asked).await;
        assert_eq!((answer.status, &answer.json()["outputs"]), (200, &expected["outputs"]), "{answer:?}");
    }
    let inexact = server.infer(DIGITS, &image("image", "FP64", json!(vec![0.1; 64]))).await;
    assert!(inexact.status == 400 && inexact.error().contains("the value 0.1 at element 0"), "{inexact:?}");
}

#[tokio::test]
async fn binary_tensors_go_both_ways_behind_the_json() {
    let server = Server::zoo().await;
    let raw = [&5_u32.to_le_bytes()[..], b"great", &3_u32.to_le_bytes(), b"bad"].concat();
    let input =
        json!({"name": "text", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": raw.len()}});
    let outputs = json!([{"name": "label", "parameters": {"binary_data": false}}, {"name": "scores"}]);
    let asked = json!({"inputs": [input], "outputs": outputs, "parameters": {"binary_data_output": true}}).to_string();
    let body = [asked.as_bytes(), &raw].concat();
    let length = ("Inference-Header-Content-Length", asked.len().to_string());
    let mut peer = server.connect().await;
    let answer = peer.request("POST", "/v2/models/tiny-bert-sentiment/infer", &[length], &body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/octet-stream")), "{answer:?}");
    let at: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let (json, binary) = answer.body.split_at(at);
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json["outputs"][0]["data"], json!(["positive", "negative"]));
    assert_eq!(json["outputs"][1]["parameters"], json!({"binary_data_size": 16}));
    let texts = server.infer(SENTIMENT, &texts(&["great", "bad"])).await.json();
    let scores: Vec<f32> = serde_json::from_value(texts["outputs"][0]["data"].clone()).unwrap();
    assert_eq!(binary, scores.iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<u8>>());
}

#[tokio::test]
async fn requests_that_are_wrong_are_told_why_in_tritons_form() {
    let server = Server::zoo().await;
    let table = [
        (json!({}), 400, "missing field `inputs`"),
        (json!({"inputs": []}), 400, "input 'text' is missing"),
        (
            json!({"inputs": [{"name": "txt", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}),
            400,
            "input 'txt' is not known",
        ),
        (
            json!({"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a"]}]}),
            400,
            "has 1 elements, but its shape needs 2",
        ),
        (
            json!({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES"}]}),
            400,
            "neither data nor binary_data_size",
        ),
        (
            json!({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [1]}]}),
            400,
            "whole numbers, but datatype BYTES uses strings",
        ),
        (
            json!({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}]}),
            400,
            "has binary_data_size 9, but 0 bytes are left",
        ),
        (
            json!({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"shared_memory_region": "r"}}]}),
            501,
            "shared memory is not served",
        ),
        (json!({"parameters": {"top_k": 1}, "inputs": []}), 400, "parameter 'top_k' is not known"),
    ];
    for (body, status, message) in table {
        let answer = server.infer(SENTIMENT, &body).await;
        assert!(answer.status == status && answer.error().contains(message), "{body}: {answer:?}");
    }
    assert_eq!(server.infer("no-such", &texts(&["a"])).await.status, 404);
    assert_eq!(server.get("/v2/models/digits-cnn/versions/2").await.status, 404);
    assert_eq!(server.get("/v2/models/digits-cnn/nothing").await.status, 404);
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_unread() {
    let server = Server::zoo().await;
    let mut peer = server.connect().await;
    peer.send("POST", "/v2/models/tiny-bert-sentiment/infer", &[], b"{", 1 << 30).await;
    let answer = peer.answer().await;
    assert!(answer.status == 413 && answer.error().contains("at most 67108864"), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_request_that_stalls_is_refused_and_others_are_answered() {
    let limits = ServerLimits { max_request_pause: Duration::from_millis(50), ..ServerLimits::default() };
    let server = Server::start(limits, BatcherConfig::default()).await;
    let mut slow = server.connect().await;
    slow.send("POST", "/v2/models/tiny-bert-sentiment/infer", &[], b"{\"inputs\"", 500).await;
    assert_eq!(server.infer(SENTIMENT, &texts(&["fine"])).await.status, 200);
    let answer = slow.answer().await;
    assert!(answer.status == 408 && answer.error().contains("max_request_pause"), "{answer:?}");
}

#[tokio::test]
async fn idle_connections_far_beyond_the_bound_leave_good_clients_answered() {
    let limits = ServerLimits { max_connections: Some(16), ..ServerLimits::default() };
    let server = Server::start(limits, BatcherConfig::default()).await;
    let mut good = server.connect().await;
    assert_eq!(good.request("GET", "/v2", &[], b"").await.status, 200);
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(server.connect().await);
    }
    assert_eq!(server.infer(SENTIMENT, &texts(&["fine"])).await.status, 200);
    assert_eq!(good.request("GET", "/v2", &[], b"").await.status, 200, "one that has called before is kept");
}

/// Items wait until a batch of two is full.
fn patient() -> BatcherConfig {
    BatcherConfig { max_batch_size: 2, max_queue_delay: BatcherConfig::MAX_QUEUE_DELAY, ..BatcherConfig::default() }
}

async fn until_queued(server: &Server, items: usize) {
    let model = &server.runtime.model(SENTIMENT).expect("it is served");
    soon(async {
        while model.depth().items != items {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_items_along() {
    let server = Server::start(ServerLimits::default(), patient()).await;
    let mut gone = server.connect().await;
    let body = texts(&["one"]).to_string();
    gone.send("POST", "/v2/models/tiny-bert-sentiment/infer", &[], body.as_bytes(), body.len()).await;
    until_queued(&server, 1).await;
    drop(gone);
    until_queued(&server, 0).await;
}

#[tokio::test]
async fn a_full_queue_is_told_with_a_time_to_come_back() {
    let server = Server::start(ServerLimits::default(), BatcherConfig { max_queue_size: 1, ..patient() }).await;
    let mut first = server.connect().await;
    let body = texts(&["one"]).to_string();
    first.send("POST", "/v2/models/tiny-bert-sentiment/infer", &[], body.as_bytes(), body.len()).await;
    until_queued(&server, 1).await;
    let refused = server.infer(SENTIMENT, &texts(&["two"])).await;
    assert!(refused.status == 429 && refused.error().contains("queue is full"), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_leaves_says_so_answers_what_it_has_and_closes() {
    let server = Server::start(ServerLimits::default(), patient()).await;
    let mut kept = server.connect().await;
    assert_eq!(kept.request("GET", "/v2/health/ready", &[], b"").await.status, 200);
    server.runtime.start_draining();
    let ready = kept.request("GET", "/v2/health/ready", &[], b"").await;
    assert_eq!((ready.status, ready.json()), (503, json!({"ready": false})));
    let mut waiting = server.connect().await;
    let body = texts(&["one"]).to_string();
    waiting.send("POST", "/v2/models/tiny-bert-sentiment/infer", &[], body.as_bytes(), body.len()).await;
    until_queued(&server, 1).await;
    server.stop.send(()).unwrap();
    assert_eq!(soon(kept.0.read_u8()).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    // A second item fills the batch.
    server.runtime.model(SENTIMENT).expect("it is served").infer("two").await.unwrap();
    assert_eq!(waiting.answer().await.status, 200);
    drop(waiting);
    soon(server.served).await.unwrap();
    server.runtime.shutdown().await;
}

#[tokio::test]
async fn json_counts_by_what_it_takes_in_memory_and_texts_by_their_length() {
    let limits = ServerLimits { max_request_bytes_in_flight: 8 << 20, ..ServerLimits::default() };
    let server = Server::start(limits, BatcherConfig::default()).await;
    let post = async |path: &str, body: &str| server.connect().await.request("POST", path, &[], body.as_bytes()).await;
    let objects = format!("{}0{}", r#"{"":"#.repeat(100), "}".repeat(100));
    let deep = format!(r#"{{"input":"a","x":[{}]}}"#, vec![objects; 200].join(","));
    let lists = format!(r#"{{"input":[{}]}}"#, vec!["[]"; 200_000].join(","));
    let numbers = format!(r#"{{"input":[{}]}}"#, vec!["1"; 200_000].join(","));
    for body in [deep, lists, numbers] {
        for path in ["/v1/embeddings", "/embed", "/models/encoder-mini"] {
            let answer =
                post(path, &body.replace("input", if path == "/v1/embeddings" { "input" } else { "inputs" })).await;
            assert_eq!(answer.status, 413, "{path} {}: {answer:?}", &body[..40]);
        }
    }
    let tensor = format!(r#"{{"inputs":[],"parameters":{{"x":[{}]}}}}"#, vec!["{}"; 20_000].join(","));
    assert_eq!(post("/v2/models/encoder-mini/infer", &tensor).await.status, 413);
    // Brackets and commas within a text are only text, also behind an escaped quotation mark.
    let text = "{[,".repeat(50_000);
    let answer = post("/v1/embeddings", &json!({"model": EMBEDDER, "input": format!("\"\\{text}")}).to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn compressed_bodies_are_read_and_bombs_are_refused() {
    use std::io::Write as _;
    let limits = ServerLimits { max_request_bytes_in_flight: 8 << 20, ..ServerLimits::default() };
    let server = Server::start(limits, BatcherConfig::default()).await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    let headers = [("content-encoding", "GZIP".to_owned())];
    let asked = gzip(json!({"model": EMBEDDER, "input": "one"}).to_string().as_bytes());
    let answer = server.connect().await.request("POST", "/v1/embeddings", &headers, &asked).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let bomb = gzip(&vec![b' '; 32 << 20]);
    let answer = server.connect().await.request("POST", "/v1/embeddings", &headers, &bomb).await;
    assert!(answer.status == 413 && bomb.len() < 1 << 18, "{answer:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn tensors_may_be_in_shared_memory_where_it_is_allowed() {
    let bounds = ServerBounds::new(ServerLimits::default()).unwrap();
    let server = Server::within(bounds.with_shared_memory(SharedMemory::allowed()), BatcherConfig::default()).await;
    let name = format!("sconce-http-{}", std::process::id());
    let path = Path::new("/dev/shm").join(&name);
    std::fs::write(&path, [&b"\x05\0\0\0great"[..], &[0; 8]].concat()).unwrap();
    let post = async |path: &str, body: Value| {
        server.connect().await.request("POST", path, &[], body.to_string().as_bytes()).await
    };
    let region = "/v2/systemsharedmemory/region/r";
    let body = json!({"key": format!("/{name}"), "offset": 0, "byte_size": 17});
    let page = [("origin", "https://example.org".to_owned())];
    let mut peer = server.connect().await;
    let of_page = peer.request("POST", &format!("{region}/register"), &page, body.to_string().as_bytes()).await;
    assert_eq!(of_page.status, 501, "a page in a browser may not");
    assert_eq!(post(&format!("{region}/register"), body.clone()).await.status, 200);
    assert_eq!(post(&format!("{region}/register"), body).await.status, 409);
    let described = server.get(&format!("{region}/status")).await.json();
    assert_eq!(described, json!([{"name": "r", "key": format!("/{name}"), "offset": 0, "byte_size": 17}]));

    let place = |offset, bytes| {
        let parameters =
            json!({"shared_memory_region": "r", "shared_memory_offset": offset, "shared_memory_byte_size": bytes});
        parameters
    };
    let request = json!({
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": place(0, 9)}],
        "outputs": [{"name": "scores", "parameters": place(9, 8)}, {"name": "label"}],
    });
    let answer = server.infer(SENTIMENT, &request).await.json();
    let scores = json!({"name": "scores", "datatype": "FP32", "shape": [1, 2]});
    assert_eq!(answer["outputs"][0], scores, "its elements are in shared memory");
    assert_eq!(answer["outputs"][1]["data"], json!(["positive"]));
    let contents = std::fs::read(&path).unwrap();
    let scores: Vec<f32> =
        contents[9..].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert!(scores[1] > scores[0] && (scores[0] + scores[1] - 1.0).abs() < 1e-6, "{scores:?}");

    assert_eq!(post(&format!("{region}/unregister"), json!({})).await.status, 200);
    assert_eq!(server.infer(SENTIMENT, &request).await.status, 404);
    assert_eq!(post("/v2/systemsharedmemory/unregister", json!({})).await.status, 200);
    assert_eq!(post("/v2/cudasharedmemory/unregister", json!({})).await.status, 200);
    assert_eq!(post("/v2/cudasharedmemory/region/r/register", json!({})).await.status, 501);
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn settings_of_traces_and_logs_are_read_and_a_change_is_refused_with_its_name() {
    let server = Server::zoo().await;
    assert_eq!(server.get("/v2/trace/setting").await.json()["trace_level"], json!(["OFF"]));
    assert_eq!(server.get("/v2/models/digits-cnn/trace/setting").await.json()["trace_rate"], "0");
    assert_eq!(server.get("/v2/models/bert/trace/setting").await.status, 404);
    assert!(server.get("/v2/logging").await.json()["log_error"].is_boolean());
    for (path, name) in [("/v2/trace/setting", "trace_rate"), ("/v2/logging", "log_info")] {
        let body = json!({name: "1"}).to_string();
        let refused = server.connect().await.request("POST", path, &[], body.as_bytes()).await;
        assert_eq!(refused.status, 501);
        let message = refused.json()["error"].to_string();
        assert!(message.contains(&format!("setting '{name}' cannot be changed")), "{message}");
    }
}

#[tokio::test]
async fn a_deflated_body_ends_where_its_stream_ends() {
    use std::io::Write as _;
    let server = Server::zoo().await;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(json!({"model": EMBEDDER, "input": "one"}).to_string().as_bytes()).unwrap();
    let mut body = encoder.finish().unwrap();
    let headers = [("content-encoding", "deflate".to_owned())];
    let answer = server.connect().await.request("POST", "/v1/embeddings", &headers, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    body.extend_from_slice(b"junk");
    let answer = server.connect().await.request("POST", "/v1/embeddings", &headers, &body).await;
    assert!(answer.status == 400 && answer.json()["error"]["message"].to_string().contains("4 bytes"), "{answer:?}");
}

#[tokio::test]
async fn an_error_before_a_route_has_the_form_of_the_route() {
    let server = Server::start(ServerLimits { max_request_bytes: 1000, ..ServerLimits::default() }, patient()).await;
    for (path, place) in [
        ("/v1/embeddings", "/error/message"),
        ("/v1/rerank", "/detail"),
        ("/embed", "/error"),
        ("/models/encoder-mini/embed", "/error"),
        ("/v2/models/encoder-mini/infer", "/error"),
    ] {
        let mut peer = server.connect().await;
        peer.send("POST", path, &[], b"{", 1 << 30).await;
        let answer = peer.answer().await;
        let said = answer.json().pointer(place).and_then(Value::as_str).map(str::to_owned);
        assert!(answer.status == 413 && said.is_some_and(|said| said.contains("max_request_bytes")), "{answer:?}");
        let headers = [("content-encoding", "gzip".to_owned())];
        let answer = server.connect().await.request("POST", path, &headers, b"no gzip").await;
        let said = answer.json().pointer(place).and_then(Value::as_str).map(str::to_owned);
        assert!(said.is_some_and(|said| said.contains("compressed body")), "{path}: {answer:?}");
    }
    assert_eq!(server.connect().await.request("POST", "/embed", &[], b"{").await.json()["error_type"], "Validation");
}

#[tokio::test]
async fn a_body_without_an_end_is_refused_at_the_bound_and_a_list_at_its_own() {
    let limits = ServerLimits { max_request_bytes: 1 << 20, max_items: 2, ..ServerLimits::default() };
    let server = Server::start(limits, BatcherConfig::default()).await;
    let Peer(mut stream) = server.connect().await;
    stream.write_all(b"POST /embed HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"10000\r\n", &vec![b' '; 1 << 16][..], b"\r\n"].concat();
    let mut sent = 0;
    // A gigabyte, if the server takes it.
    while sent < 1 << 30 && stream.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 64 << 20, "it was still read after {sent} bytes");
    for (path, body, status) in [
        ("/v1/embeddings", json!({"model": EMBEDDER, "input": ["a", "b", "c"]}), 413),
        ("/v2/models/tiny-bert-sentiment/infer", texts(&["a", "b", "c"]), 400),
    ] {
        let answer = server.connect().await.request("POST", path, &[], body.to_string().as_bytes()).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    assert_eq!(server.infer(SENTIMENT, &texts(&["a", "b"])).await.status, 200);
}

#[tokio::test]
async fn a_head_that_comes_in_drips_is_cut_and_a_connection_that_is_kept_is_not() {
    let limits = ServerLimits { max_request_pause: Duration::from_millis(300), ..ServerLimits::default() };
    let server = Server::start(limits, BatcherConfig::default()).await;
    for before in ["", "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"] {
        let Peer(mut stream) = server.connect().await;
        stream.write_all(before.as_bytes()).await.unwrap();
        let mut kept = Peer(stream);
        if !before.is_empty() {
            assert_eq!(kept.answer().await.status, 200);
            // Longer than a head may take.
            tokio::time::sleep(Duration::from_millis(700)).await;
            assert_eq!(kept.request("GET", "/livez", &[], b"").await.status, 200);
        }
        let Peer(mut stream) = kept;
        stream.write_all(b"GET /livez HTTP/1.1\r\nx-drips: ").await.unwrap();
        let cut = soon(async {
            let mut byte = [0];
            loop {
                let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut byte)).await;
                if read.is_ok_and(|read| read.is_err() || read.is_ok_and(|bytes| bytes == 0)) {
                    return;
                }
                if stream.write_all(b"x").await.is_err() {
                    return;
                }
            }
        });
        cut.await;
    }
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn requests_that_are_broken_off_give_their_room_back() {
    let limits = ServerLimits { max_request_bytes_in_flight: 8 << 20, ..ServerLimits::default() };
    let server = Server::start(limits, BatcherConfig::default()).await;
    for _ in 0..100 {
        let mut peer = server.connect().await;
        peer.send("POST", "/embed", &[], &vec![b' '; 1 << 20], 2 << 20).await;
    }
    let body = format!("{}{}", " ".repeat(3 << 20), json!({"model": EMBEDDER, "input": "one"}));
    let fine = async || server.connect().await.request("POST", "/v1/embeddings", &[], body.as_bytes()).await.status;
    soon(async { while fine().await != 200 {} }).await;
}

#[tokio::test]
async fn pairs_count_each_with_a_query_of_its_own() {
    let family = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tests/families/bert-cross-encoder");
    let runtime = Runtime::builder().model(family).build().expect("the model loads");
    let limits = ServerLimits { max_request_bytes_in_flight: 1 << 20, ..ServerLimits::default() };
    let server = Server::of(runtime, ServerBounds::new(limits).expect("limits")).await;
    let query = "a ".repeat(50_000);
    for (documents, status) in [(1, 200), (20, 413)] {
        let body = json!({"query": query, "texts": vec!["a"; documents]}).to_string();
        let answer = server.connect().await.request("POST", "/rerank", &[], body.as_bytes()).await;
        assert_eq!(answer.status, status, "{documents} documents: {answer:?}");
    }
}

#[tokio::test]
async fn a_list_longer_than_the_queue_is_answered_in_its_order() {
    let batching = BatcherConfig { max_queue_size: 64, max_batch_size: 32, ..BatcherConfig::default() };
    let server = Server::start(ServerLimits::default(), batching).await;
    let list: Vec<&str> = ["What a wonderful day!", "Terrible."].into_iter().cycle().take(301).collect();
    let request = json!({"inputs": [{"name": "text", "shape": [301], "datatype": "BYTES", "data": list}]});
    let answer = server.infer(SENTIMENT, &request).await.json();
    let labels = answer["outputs"][1]["data"].as_array().unwrap();
    assert_eq!(labels.len(), 301);
    for (at, label) in labels.iter().enumerate() {
        assert_eq!(*label, ["positive", "negative"][at % 2], "item {at}");
    }
}

#[tokio::test]
async fn a_length_of_json_that_the_body_does_not_have_is_refused() {
    let server = Server::zoo().await;
    let body = texts(&["one"]).to_string();
    for length in ["1000000", "-1", "x"] {
        let headers = [("inference-header-content-length", length.to_owned())];
        let path = "/v2/models/tiny-bert-sentiment/infer";
        let answer = server.connect().await.request("POST", path, &headers, body.as_bytes()).await;
        assert!(answer.status == 400 && answer.error().contains("Inference-Header-Content-Length"), "{answer:?}");
    }
}
