//! Requests over HTTP: to the routes, and as bytes to a server.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::mutate::Mutator;
use crate::{GOOD_EVERY, MAX_WAIT, inputs, panics, runtime, seed, watch_panics};

/// Good requests of every route that reads a body.
fn good() -> Vec<(&'static str, Value)> {
    let infer = json!({
        "id": "7",
        "parameters": {"priority": 1, "timeout": 1_000_000, "truncate": true, "binary_data_output": false},
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": ["a wonderful day", "a bad film"]}],
        "outputs": [{"name": "scores", "parameters": {"classification": 2, "binary_data": false}}],
    });
    let pixels: Vec<f32> = vec![0.5; 64];
    vec![
        ("/v2/models/tiny-bert-sentiment/infer", infer),
        (
            "/v2/models/digits-cnn/infer",
            json!({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": pixels}]}),
        ),
        ("/v2/repository/index", json!({"ready": true})),
        ("/v2/repository/models/digits-cnn/load", json!({"parameters": {"config": "{}"}})),
        (
            "/v1/embeddings",
            json!({
                "model": "encoder-mini", "input": ["one", "two"], "encoding_format": "base64", "dimensions": 8,
                "user": "me", "output_dtype": "int8", "normalize": true,
            }),
        ),
        ("/v1/embeddings", json!({"model": "encoder-mini", "input": [[1, 2, 3], [4]]})),
        (
            "/v1/rerank",
            json!({
                "model": "bert-cross-encoder", "query": "candles", "documents": ["a sconce", {"text": "a day"}],
                "top_n": 1, "return_documents": true,
            }),
        ),
        ("/models/encoder-mini/embed", json!({"inputs": ["one", "two"], "truncate": true, "normalize": false})),
        ("/models/colbert/embed_all", json!({"inputs": "one", "truncation_direction": "Right"})),
        ("/embed_sparse", json!({"inputs": ["one"], "prompt_name": "query"})),
        ("/models/bert-cross-encoder/rerank", json!({"query": "a", "texts": ["b", "c"], "raw_scores": true})),
        ("/models/tiny-bert-sentiment/predict", json!({"inputs": [["one"], ["two"]], "raw_scores": false})),
        ("/models/encoder-mini/similarity", json!({"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}})),
        ("/models/encoder-mini/tokenize", json!({"inputs": ["one two"], "add_special_tokens": true})),
        ("/models/encoder-mini/decode", json!({"ids": [[5, 6, 7]], "skip_special_tokens": true})),
    ]
}

/// Headers that change how a body is read.
const HEADERS: [(&str, &str); 6] = [
    ("inference-header-content-length", "40"),
    ("content-encoding", "gzip"),
    ("content-type", "application/octet-stream"),
    ("accept", "text/html"),
    ("authorization", "Bearer x"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_request_to_a_route_panics_hangs_or_fails_by_the_servers_fault() {
    watch_panics();
    let (router, good) = (sconce_http::router(runtime()), good());
    let mut mutator = Mutator::new(seed());
    for number in 0..inputs() {
        let (path, body) = mutator.choose(&good).clone();
        let path = if mutator.once_in(20) { mutator.bytes(path.as_bytes()) } else { path.as_bytes().to_vec() };
        let body = mutator.json(&body.to_string());
        let mut request = Request::post(String::from_utf8_lossy(&path).as_ref());
        if mutator.once_in(8) {
            let (name, value) = *mutator.choose(&HEADERS);
            let value = if mutator.once_in(2) { mutator.bytes(value.as_bytes()) } else { value.as_bytes().to_vec() };
            request = request.header(name, value);
        }
        // A path or a header that is none cannot be sent.
        let Ok(request) = request.body(Body::from(body.clone())) else { continue };
        let shown = format!("input {number}, {request:?}, {}", String::from_utf8_lossy(&body));
        let answering = async {
            let response = router.clone().oneshot(request).await.expect("a router does not fail");
            (response.status(), to_bytes(response.into_body(), usize::MAX).await.expect("a whole body"))
        };
        let (status, body) = timeout(MAX_WAIT, answering).await.unwrap_or_else(|_| panic!("no answer: {shown}"));
        assert_eq!(panics(), 0, "a panic: {shown}");
        let body = String::from_utf8_lossy(&body);
        assert!(!matches!(status.as_u16(), 500 | 424), "{status} {body}: {shown}");
        assert!(status.is_success() || body.len() < 3 * 4096, "{status} {body}: {shown}");
        if number % GOOD_EVERY == 0 {
            for (path, body) in good.iter().filter(|(path, _)| !path.ends_with("/load")) {
                let request = Request::post(*path).body(Body::from(body.to_string())).expect("a request");
                let status = router.clone().oneshot(request).await.expect("a router does not fail").status();
                // Two of them ask for what the small models have not.
                assert!(status == StatusCode::OK || status.is_client_error(), "{path}: {status}");
            }
            let sentiment = Request::post("/models/tiny-bert-sentiment/predict");
            let sentiment = sentiment.body(Body::from(r#"{"inputs": "What a wonderful day!"}"#)).expect("a request");
            let answer = router.clone().oneshot(sentiment).await.expect("a router does not fail");
            let answer = to_bytes(answer.into_body(), usize::MAX).await.expect("a whole body");
            assert!(answer.starts_with(br#"[{"label":"positive""#), "after {shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_to_a_server_make_it_panic_or_hang() {
    watch_panics();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let bounds = sconce_http::ServerBounds::new(sconce_http::ServerLimits::default()).expect("limits");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        sconce_http::serve_beside(&bounds, runtime(), listener, async { stopped.await.unwrap_or(()) }).await;
    });
    let mut mutator = Mutator::new(seed() + 1);
    let good: Vec<(Vec<u8>, Vec<u8>)> = good().into_iter().map(|(path, body)| as_bytes(path, &body)).collect();
    // A connection for each, so a fifth of the inputs.
    for number in 0..inputs() / 5 {
        let (head, body) = mutator.choose(&good).clone();
        let bytes = if mutator.once_in(2) {
            [mutator.bytes(&head), body].concat()
        } else {
            mutator.bytes(&[head, body].concat())
        };
        let shown = || format!("input {number}: {}", String::from_utf8_lossy(&bytes));
        let exchange = async {
            let mut peer = TcpStream::connect(address).await.expect("it listens");
            // The server may answer and close before it has read everything.
            let _ = peer.write_all(&bytes).await;
            let _ = peer.shutdown().await;
            let mut answer = Vec::new();
            let _ = peer.read_to_end(&mut answer).await;
            answer
        };
        let answer = timeout(MAX_WAIT, exchange).await.unwrap_or_else(|_| panic!("it hangs: {}", shown()));
        assert_eq!(panics(), 0, "a panic: {}", shown());
        assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}: {}", String::from_utf8_lossy(&answer), shown());
    }
    let _ = stop.send(());
    timeout(MAX_WAIT, server).await.expect("it drains").expect("it does not panic");
}

fn as_bytes(path: &str, body: &Value) -> (Vec<u8>, Vec<u8>) {
    let body = body.to_string().into_bytes();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: s\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    (head.into_bytes(), body)
}
