use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::command::{Signal, ended, path, sconce, signal};

const MODEL: &str = "tiny-bert-sentiment";

fn profile(args: &[&str]) -> crate::command::Ended {
    ended(&[&["profile", MODEL], args].concat(), b"")
}

#[test]
fn the_stages_of_a_made_up_load_add_up_to_its_latency() {
    let ended = profile(&["--rate", "100", "--seconds", "1", "--json"]).succeeded();
    let object = &ended.objects()[0];
    let requests = object["requests"].as_u64().unwrap();
    assert!((50..200).contains(&requests) && object["answered"] == requests, "{object}");
    let stages = object["stages"].as_object().unwrap();
    let sum = |field: &str| stages.values().map(|stage| stage[field].as_f64().unwrap()).sum::<f64>();
    assert!((sum("share") - 1.0).abs() < 1e-6, "{object}");
    let mean = object["latency"]["mean_s"].as_f64().unwrap();
    assert!((sum("mean_s") / mean - 1.0).abs() < 1e-6, "{object}");
    assert!(stages["run"]["p50_s"].as_f64().unwrap() > 0.0 && stages["cache"]["p99_s"].as_f64() == Some(0.0));
    assert!(object["bottleneck"].as_str().unwrap().len() > 20 && object["stopped"] == false);
}

#[test]
fn a_trace_is_replayed_with_its_contents_and_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let (trace, html) = (directory.path().join("trace.jsonl"), directory.path().join("profile.html"));
    let lines = [
        r#"{"sconce_trace":1,"origin":"a test of contents"}"#,
        r#"{"at_us":0,"model":"tiny-bert-sentiment","inputs":["What a wonderful day!"]}"#,
        r#"{"at_us":2000,"model":"tiny-bert-sentiment","items":2,"weight":20,"priority":"high","deadline_us":60000000}"#,
        r#"{"at_us":4000,"model":"minilm","weight":20}"#,
    ];
    fs::write(&trace, lines.join("\n")).unwrap();
    let ended = profile(&["--trace", path(&trace), "--html", path(&html)]).succeeded();
    assert!(ended.stdout.contains("load: a test of contents\n2 of 2 requests answered"), "{}", ended.stdout);
    for stage in ["cache", "prepare", "queue", "run", "finish", "hand-offs", "all"] {
        assert!(ended.stdout.lines().any(|line| line.starts_with(stage)), "{}", ended.stdout);
    }
    let page = fs::read_to_string(html).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.matches("<circle").count() == 2, "{page}");
    assert!(!page.contains("http"), "it needs no other file");
}

#[test]
fn public_traces_are_replayed_and_long_texts_cut() {
    let directory = tempfile::tempdir().unwrap();
    let azure = directory.path().join("azure.csv");
    let rows = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:47.0000000,8,2\n2023-11-16 18:15:47.1000000,9,2\n";
    fs::write(&azure, rows).unwrap();
    let object = profile(&["--trace", path(&azure), "--rate", "20", "--json"]).succeeded().objects().remove(0);
    assert_eq!(
        (object["answered"].as_u64(), object["failed"].as_object().map(serde_json::Map::len)),
        (Some(3), Some(0))
    );
    assert!(
        object["load"].as_str().unwrap().starts_with("a trace in the format of Azure LLM inference, at 20 requests/s")
    );
}

#[test]
fn an_overload_is_refused_and_told_as_such() {
    let args = ["--rate", "20000", "--seconds", "0.5", "--max-queue-size", "8", "--json"];
    let object = profile(&args).succeeded().objects().remove(0);
    let failed = object["failed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>();
    let answered = object["answered"].as_u64().unwrap();
    assert!(failed > 1000 && failed + answered == object["requests"].as_u64().unwrap(), "{object}");
    assert!(object["bottleneck"].as_str().unwrap().contains("more than the device can take"), "{object}");
}

#[test]
fn a_signal_ends_early_with_what_was_measured() {
    let mut command = sconce(&["profile", MODEL, "--rate", "50", "--seconds", "600", "--json"]);
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&log).unwrap())
        .env("RUST_LOG", "sconce=info")
        .spawn()
        .unwrap();
    // The log tells when the model is loaded.
    while !fs::read_to_string(&log).unwrap().contains("loaded") {
        assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(&log).unwrap());
        std::thread::yield_now();
    }
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", fs::read_to_string(&log).unwrap());
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(object["stopped"] == true && object["requests"].as_u64().unwrap() < 30_000, "{object}");
}

#[test]
fn a_load_that_cannot_be_had_is_told_with_its_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let (other, unknown, empty) = (
        file("other.jsonl", "{\"sconce_trace\":1}\n{\"at_us\":0,\"model\":\"minilm\"}\n"),
        file("unknown.csv", "a,b\n1,2\n"),
        file("empty.txt", "\n"),
    );
    profile(&[]).failed_with(2, &["no load is given", "--trace FILE", "--rate RATE"]);
    profile(&["--trace", path(&other)]).failed_with(2, &["none of its requests is to 'tiny-bert-sentiment'", "minilm"]);
    profile(&["--trace", path(&other), "--trace-model", "minilm"]).succeeded();
    profile(&["--trace", path(&unknown)]).failed_with(2, &["begins with 'a,b'", "BurstGPT"]);
    profile(&["--trace", "/nonexistent"]).failed_with(2, &["--trace /nonexistent: cannot read"]);
    profile(&["--rate", "5", "--texts", path(&empty)]).failed_with(2, &["it has no text"]);
    profile(&["--rate", "0"]).failed_with(2, &["give a number above 0"]);
    profile(&["--rate", "5", "--bursts", "5"]).failed_with(2, &["two numbers of milliseconds"]);
    profile(&["--rate", "1e9", "--seconds", "1000"])
        .failed_with(2, &["the load: rate is 1000000000, but must be at most"]);
    profile(&["--rate", "5", "--html", "/nonexistent/p.html"]).failed_with(2, &["cannot write /nonexistent/p.html"]);
}
