//! Recording of a server's requests, and their replay.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{ended, path};
use crate::serve::{Server, classify};

const MODEL: &str = "tiny-bert-sentiment";

fn lines(trace: &Path) -> Vec<Value> {
    let content = fs::read_to_string(trace).expect("it is written");
    content.lines().map(|line| serde_json::from_str(line).expect("each line is an object")).collect()
}

fn recording(trace: &str, more: &[&str]) -> Server {
    Server::start(&[&["--model", MODEL, "--record-trace", trace], more].concat())
}

#[tokio::test]
async fn a_recorded_trace_has_each_request_and_can_be_replayed() {
    let directory = TempDir::new().unwrap();
    let trace = directory.path().join("trace.jsonl");
    let mut server = recording(path(&trace), &[]);
    for text in ["a wonderful day", "a secret of ours", "an awful day"] {
        classify(server.address, text).await.unwrap();
    }
    server.signal("TERM");
    assert!(server.wait_until_it_says("recorded").contains("recorded 3 requests"));
    let lines = lines(&trace);
    assert_eq!((lines.len(), lines[0]["sconce_trace"].as_u64()), (4, Some(1)), "{lines:?}");
    for line in &lines[1..] {
        assert!(line["model"] == MODEL && line["weight"].as_u64() >= Some(4) && line["inputs"].is_null(), "{line}");
    }
    assert!(!fs::read_to_string(&trace).unwrap().contains("secret"), "contents are recorded only if asked for");
    assert_eq!(fs::metadata(&trace).unwrap().permissions().mode() & 0o077, 0, "others cannot read it");
    let replayed = ended(&["profile", MODEL, "--trace", path(&trace), "--json"], b"").succeeded();
    assert_eq!(replayed.objects()[0]["answered"], 3);
}

#[tokio::test]
async fn contents_are_recorded_by_choice_and_an_earlier_trace_is_kept() {
    let directory = TempDir::new().unwrap();
    let trace = directory.path().join("trace.jsonl");
    fs::write(&trace, "earlier").unwrap();
    let mut server = recording(path(&trace), &["--record-trace-contents"]);
    classify(server.address, "a wonderful day").await.unwrap();
    server.stop();
    assert_eq!(lines(&trace)[1]["inputs"], serde_json::json!(["a wonderful day"]));
    assert_eq!(fs::read_to_string(directory.path().join("trace.jsonl.old")).unwrap(), "earlier");
}

#[tokio::test]
async fn recording_ends_at_its_largest_size_and_requests_are_still_answered() {
    let directory = TempDir::new().unwrap();
    let trace = directory.path().join("trace.jsonl");
    let mut server = recording(path(&trace), &["--record-trace-contents", "--max-trace-bytes", "200B"]);
    let text = "wonderful ".repeat(20);
    for _ in 0..3 {
        classify(server.address, &text).await.unwrap();
    }
    assert!(server.wait_until_it_says("recording ends").contains("--max-trace-bytes, 200 bytes"));
    classify(server.address, &text).await.unwrap();
    server.signal("TERM");
    assert!(server.wait_until_it_says("recorded").contains("recorded 1 requests"));
    assert_eq!(lines(&trace).len(), 2);
}

#[tokio::test]
async fn a_full_disk_ends_recording_and_harms_no_request() {
    let mut server = recording("/dev/full", &[]);
    classify(server.address, "a wonderful day").await.unwrap();
    // What was recorded is flushed after a second.
    assert!(server.wait_until_it_says("recording ends").contains("No space left on device"));
    classify(server.address, "a wonderful day").await.unwrap();
    server.stop();
}

#[test]
fn flags_without_a_file_and_a_file_that_cannot_be_made_are_refused() {
    ended(&["serve", "--record-trace-contents"], b"").failed_with(2, &["--record-trace <FILE>"]);
    let args = ["serve", "--grpc", "127.0.0.1:0", "--http", "none", "--record-trace", "/nonexistent/trace"];
    ended(&args, b"").failed_with(2, &["cannot write /nonexistent/trace"]);
}
