use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Ended, ended, path, zoo};

/// Short measurements with one thread: enough to see that each step does its work, not for good figures.
const QUICK: [&str; 10] = ["--rate", "60", "--seconds", "1", "--turn-ms", "60", "--rounds", "1", "--cpu-threads", "1"];

/// A copy of tiny-bert, whose settings a test may change.
fn copy() -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("there is room");
    let model = directory.path().join("tiny");
    fs::create_dir(&model).expect("there is room");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(zoo().join("tiny-bert-sentiment").join(file), model.join(file)).expect("it ships");
    }
    (directory, model)
}

fn tune(model: &str, args: &[&str]) -> Ended {
    ended(&[&["tune", model], args, &QUICK].concat(), b"")
}

#[test]
fn an_advice_has_predicted_and_measured_figures_and_is_written_beside_what_is_there() {
    let (_directory, model) = copy();
    let toml = model.join("sconce.toml");
    fs::write(&toml, "# ours\n[model]\nmax_tokens = 48 # enough\n").unwrap();
    let args = ["--slo-p99", "10s", "--price-per-hour", "0.1", "--json", "--write"];
    let ended = tune(path(&model), &args).succeeded();
    let (object, said) = ended.stdout.split_once('\n').unwrap();
    let object: Value = serde_json::from_str(object).unwrap();
    assert!(object["meets"] == true && object["replicas"] == 1, "{object}");
    assert!((object["cost_per_month"].as_f64().unwrap() - 73.0).abs() < 1e-6, "{object}");
    let best = &object["best"];
    for figures in [&best["predicted"], &best["measured"]] {
        assert!(figures["p99_s"].as_f64().unwrap() > 0.0 && figures["throughput"].as_f64().unwrap() > 1.0, "{object}");
    }
    assert!(object["p99_error"].is_number() && object["sureness"].as_str().unwrap().len() > 10, "{object}");
    assert!(object["weight_bytes"].as_u64().unwrap() > 1_000_000, "{object}");
    // Never slower than the default: if the best measured slower, the default is advised.
    if object["measured_slower"] == true {
        assert_eq!(object["advice"], object["default"]["predicted"]["setting"], "{object}");
    }
    assert!(said.contains("written to"), "{said}");
    let written = fs::read_to_string(&toml).unwrap();
    assert!(written.starts_with("# ours\n[model]\nmax_tokens = 48 # enough\nprecision = \"f32\"\n"), "{written}");
    let size = format!("max_batch_size = {}\n", object["advice"]["max_batch_size"]);
    assert!(written.contains(&size), "{written}");
    crate::command::ended(&["classify", "--model", path(&model)], b"a wonderful day").succeeded();
}

#[test]
fn a_trace_with_contents_tells_the_memory_of_a_cache() {
    let directory = TempDir::new().unwrap();
    let trace = directory.path().join("trace.jsonl");
    let line = |at: usize| format!("{{\"at_us\":{},\"inputs\":[\"day {}\"]}}\n", at * 20_000, at % 10);
    fs::write(&trace, format!("{{\"sconce_trace\":1}}\n{}", (0..40).map(line).collect::<String>())).unwrap();
    let args = ["tune", "tiny-bert-sentiment", "--trace", path(&trace), "--slo-p99", "10s", "--json"];
    let object = ended(&[&args[..], &QUICK[4..]].concat(), b"").succeeded().objects().remove(0);
    let cache = &object["cache"];
    assert_eq!(
        (cache["inputs"].as_u64(), cache["distinct"].as_u64(), cache["hits"].as_f64()),
        (Some(40), Some(10), Some(0.75))
    );
    assert!((100..100_000).contains(&cache["bytes"].as_u64().unwrap()), "{object}");
}

#[test]
fn an_objective_that_cannot_be_met_is_told_and_lower_precisions_need_a_decision() {
    let ended = tune("tiny-bert-sentiment", &["--slo-p99", "10us", "--max-replicas", "2"]);
    let ended = ended.failed_with(1, &[]);
    assert!(ended.stdout.contains("No number of replicas up to 2 meets the objective of 10.0 µs"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("The default settings") || ended.stdout.contains("faster machine"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains("int8"), "nothing is decided: {}", ended.stdout);
    for row in ["THREADS", "SETTING", "advice, predicted", "advice, measured", "Memory of a replica"] {
        assert!(ended.stdout.contains(row), "{row}: {}", ended.stdout);
    }
}

#[test]
fn bad_arguments_are_refused_with_what_is_allowed() {
    tune("tiny-bert-sentiment", &[]).failed_with(2, &["--slo-p99"]);
    tune("tiny-bert-sentiment", &["--slo-p99", "50"]).failed_with(2, &["a number with its unit", "50ms"]);
    tune("tiny-bert-sentiment", &["--slo-p99", "50ms", "--max-replicas", "0"]).failed_with(2, &["--max-replicas"]);
    tune("no-such-model", &["--slo-p99", "50ms"]).failed_with(2, &["no-such-model"]);
    tune("tiny-bert-sentiment", &["--slo-p99", "1s", "--max-batch-size", "0"]).failed_with(2, &["max_batch_size is 0"]);
}
