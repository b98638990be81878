//! The text as Prometheus reads it: its values after known requests, and no complaint of `promtool`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use sconce::cache::MemoryConfig;
use sconce::{AnswerCache, Request, Runtime};
use sconce_metrics::{open_metrics, prometheus};

const MODEL: &str = "tiny-bert-sentiment";

/// A runtime that answered three requests, one of them from the cache, and refused one.
async fn used() -> Runtime {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    let cache = AnswerCache::builder().memory(MemoryConfig::default()).build().expect("a valid cache");
    let runtime = Runtime::builder().model(zoo.join(MODEL)).cache(cache).build().expect("a model that ships");
    let model = &runtime.model(MODEL).expect("it is loaded");
    for text in ["What a wonderful day!", "What a wonderful day!", "It rains."] {
        model.infer(text).await.expect("an answer");
    }
    model.infer(Request::new("hello").prompt("no such prompt")).await.expect_err("there is no such prompt");
    model.record_serialise(std::time::Duration::from_micros(30));
    runtime
}

/// The values of a text by name and labels.
fn values(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name, value.parse().expect("a number")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn known_requests_are_found_in_the_text() {
    let text = prometheus(used().await.metrics());
    let values = values(&text);
    for (name, expected) in [
        ("sconce_requests_total{model=\"tiny-bert-sentiment\",version=\"1\",outcome=\"succeeded\"}", 3.0),
        ("sconce_requests_total{model=\"tiny-bert-sentiment\",version=\"1\",outcome=\"failed\"}", 1.0),
        ("sconce_request_errors_total{model=\"tiny-bert-sentiment\",version=\"1\",kind=\"invalid_input\"}", 1.0),
        ("sconce_request_duration_seconds_count{model=\"tiny-bert-sentiment\",version=\"1\",stage=\"request\"}", 3.0),
        ("sconce_request_duration_seconds_count{model=\"tiny-bert-sentiment\",version=\"1\",stage=\"cache\"}", 3.0),
        ("sconce_request_duration_seconds_count{model=\"tiny-bert-sentiment\",version=\"1\",stage=\"run\"}", 2.0),
        ("sconce_request_duration_seconds_sum{model=\"tiny-bert-sentiment\",version=\"1\",stage=\"serialise\"}", 30e-6),
        (
            "sconce_request_duration_seconds_bucket{model=\"tiny-bert-sentiment\",version=\"1\",stage=\"serialise\",le=\"5e-05\"}",
            1.0,
        ),
        ("sconce_answers_total{model=\"tiny-bert-sentiment\",version=\"1\",source=\"memory\"}", 1.0),
        ("sconce_answers_total{model=\"tiny-bert-sentiment\",version=\"1\",source=\"computed\"}", 2.0),
        ("sconce_precision_answers_total{model=\"tiny-bert-sentiment\",version=\"1\",precision=\"f32\"}", 3.0),
        ("sconce_cache_lookups_total{tier=\"memory\",result=\"hit\"}", 1.0),
        ("sconce_queue_depth{model=\"tiny-bert-sentiment\",version=\"1\"}", 0.0),
        ("sconce_queue_oldest_age_seconds{model=\"tiny-bert-sentiment\",version=\"1\"}", 0.0),
        ("sconce_batch_size_count{model=\"tiny-bert-sentiment\",version=\"1\"}", 2.0),
        ("sconce_batch_size_bucket{model=\"tiny-bert-sentiment\",version=\"1\",le=\"1\"}", 2.0),
        ("sconce_device_available{model=\"tiny-bert-sentiment\",version=\"1\",device=\"cpu\",precision=\"f32\"}", 1.0),
        ("sconce_refused_items_total{model=\"tiny-bert-sentiment\",version=\"1\",reason=\"queue_full\"}", 0.0),
    ] {
        assert_eq!(values.get(name), Some(&expected), "{name} in\n{text}");
    }
    let run = values["sconce_request_duration_seconds_sum{model=\"tiny-bert-sentiment\",version=\"1\",stage=\"run\"}"];
    let busy = values["sconce_device_busy_seconds_total{model=\"tiny-bert-sentiment\",version=\"1\",device=\"cpu\",precision=\"f32\"}"];
    assert!(0.0 < run && run <= busy && busy < values["sconce_uptime_seconds"], "{text}");
    assert!(values["process_resident_memory_bytes"] > 1e6, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_metrics_end_with_their_mark_and_name_their_units() {
    let text = open_metrics(used().await.metrics());
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in ["# TYPE sconce_request_duration_seconds histogram", "# UNIT sconce_queue_oldest_age_seconds seconds"] {
        assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traced_request_is_the_example_of_its_bucket_in_open_metrics() {
    let runtime = used().await;
    runtime.model(MODEL).unwrap().record_exemplar(0xabc, std::time::Duration::from_millis(3));
    let text = open_metrics(runtime.metrics());
    let line = text.lines().find(|line| line.contains("# {")).expect("an exemplar");
    assert!(line.contains("le=\"0.005\""), "{line}");
    assert!(
        line.contains("stage=\"request\"") && line.contains(&format!("# {{trace_id=\"{:032x}\"}} 0.003 ", 0xabc)),
        "{line}"
    );
    assert!(!prometheus(runtime.metrics()).contains("trace_id"), "Prometheus' own text has no examples");
}

/// `promtool` is in Debian's package `prometheus`; `tests/run` installs it, and says so with `SCONCE_PROMTOOL=1`.
#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_to_complain_about() {
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut promtool = match promtool {
        Err(error) if std::env::var_os("SCONCE_PROMTOOL").is_none() => {
            eprintln!("not checked, as there is no promtool: {error}");
            return;
        }
        promtool => promtool.expect("promtool"),
    };
    let text = prometheus(used().await.metrics());
    promtool.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}\n{text}");
}
