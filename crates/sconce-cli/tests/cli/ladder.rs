//! `sconce serve --ladder` and `--shadow-share`.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{ended, path, sconce};
use crate::serve::Server;

const MODEL: &str = "tiny-bert-sentiment";

/// The status and the JSON of the answer to a request over the Unix socket.
fn answer_over(socket: &str, request: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    let length = body.len();
    write!(stream, "{request} HTTP/1.1\r\nhost: sconce\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("headers, then a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).expect("JSON"))
}

#[test]
fn a_model_with_a_ladder_answers_in_the_precision_that_is_demanded_and_says_which_are_there() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("http.sock");
    let socket = path(&socket);
    let http = format!("unix:{socket}");
    let mut command = sconce(&["serve", "--grpc", "127.0.0.1:0", "--http", &http, "--model", MODEL]);
    let ladder = format!("{MODEL}=int8");
    command.args(["--allow-undecided", "--ladder", &ladder, "--ladder-target-p99", "200", "--shadow-share", "0.5"]);
    let server = Server::run(command);
    assert!(server.banner.contains(", also in int8\n"), "{}", server.banner);
    let infer = |precision: Option<&str>| {
        let input = json!({"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a wonderful day"]});
        let mut body = json!({"inputs": [input], "parameters": {}});
        if let Some(precision) = precision {
            body["parameters"]["precision"] = precision.into();
        }
        answer_over(socket, &format!("POST /v2/models/{MODEL}/infer"), &body.to_string())
    };
    for (asked, precision) in [(None, "f32"), (Some("int8"), "int8"), (Some("f32"), "f32")] {
        let (status, answer) = infer(asked);
        assert_eq!((status, &answer["parameters"]["precision"]), (200, &json!(precision)), "{answer}");
    }
    let (status, refused) = infer(Some("q4k"));
    assert_eq!(status, 400, "{refused}");
    assert!(refused.to_string().contains("computes in f32 and int8, not in q4k"), "{refused}");
    let (_, figures) = answer_over(socket, "GET /metrics.json", "");
    let model = &figures["total"]["models"][0];
    assert_eq!(model["ladder"], json!({"precisions": ["f32", "int8"], "steps_down": 0, "steps_up": 0}));
    assert_eq!((&model["precision"], &model["shadow"][0]["alarm"]), (&json!("f32"), &json!(false)));
    assert_eq!(figures["models"][0]["placement"][1]["precision"], "int8");
}

#[test]
fn a_ladder_that_cannot_be_is_refused_with_what_can() {
    let serve = |flags: &[&str]| {
        let serve = ["serve", "--grpc", "127.0.0.1:0", "--http", "none", "--allow-undecided", "--model", MODEL];
        ended(&[&serve[..], flags].concat(), b"")
    };
    serve(&["--ladder", "minilm=int8"]).failed_with(2, &["--ladder minilm: no model is named 'minilm'", MODEL]);
    serve(&["--ladder", "int8"]).failed_with(2, &["--ladder", "such as minilm=int8"]);
    let int8 = format!("{MODEL}=int8");
    serve(&["--ladder", &int8, "--ladder", &int8]).failed_with(2, &["given twice", "=q8_0,int8"]);
    serve(&["--ladder", &format!("{MODEL}=q4k,int8")]).failed_with(2, &["names int8 below q4k", "the highest first"]);
    serve(&["--ladder", &format!("{MODEL}=f32")]).failed_with(2, &["names f32, which is a rung already"]);
    serve(&["--shadow-share", "2"]).failed_with(2, &["--shadow-share", "above 0 and at most 1"]);
}
