use serde_json::json;

use crate::command::ended;

const MODEL: &str = "tiny-bert-sentiment";

#[test]
fn the_device_and_the_reason_are_told_in_figures() {
    let said = ended(&["explain", MODEL], b"").succeeded().stdout;
    for words in [
        "tiny-bert-sentiment in f32: weights",
        "FLOP per token",
        "placement: auto",
        "cpu",
        "serves",
        "first to complete batches of weight 1 to 8192",
        "weight 16 ",
        "weight 512 ",
        "weight 8192",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert!(!said.contains("Measured"), "{said}");
}

#[test]
fn json_tells_the_same_and_the_times_of_the_weights_that_were_asked_for() {
    let args = ["explain", MODEL, "--json", "--weights", "1,101", "--device", "cpu", "--precision", "int8"];
    let object = ended(&args, b"").succeeded().objects().remove(0);
    assert_eq!(object["placement"], "cpu");
    assert_eq!((&object["demand"]["unit"], &object["demand"]["precision"]), (&json!("token"), &json!("int8")));
    let cpu = &object["devices"][0];
    assert_eq!((&cpu["device"], &cpu["decision"], &cpu["why"]), (&json!("cpu"), &json!("serves"), &json!("asked for")));
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let (a, c) = (number(&cpu["estimate"]["fixed_seconds"]), number(&cpu["estimate"]["seconds_per_weight"]));
    let batches = cpu["estimate"]["batches"].as_array().unwrap();
    for (batch, weight) in batches.iter().zip([1, 101]) {
        assert_eq!(batch["weight"], weight);
        assert!((number(&batch["seconds"]) - (a + c * f64::from(weight))).abs() < 1e-12);
    }
    let flops = number(&object["demand"]["flops_per_weight"]);
    assert!((c - flops / (1.8 * number(&cpu["flops_per_second"]))).abs() < 1e-15, "int8 is 1.8 times as fast");
    assert_eq!(cpu["measured"], serde_json::Value::Null);
}

#[test]
fn measuring_tells_what_batches_take_here() {
    let object = ended(&["explain", MODEL, "--measure", "--json"], b"").succeeded().objects().remove(0);
    let batches = object["devices"][0]["measured"]["batches"].as_array().expect("it was measured");
    let seconds: Vec<f64> = batches.iter().map(|batch| batch["seconds"].as_f64().unwrap()).collect();
    assert!(seconds.iter().all(|seconds| *seconds > 0.0 && *seconds < 60.0), "{seconds:?}");
    assert!(seconds[0] < seconds[2], "512 times the tokens take longer: {seconds:?}");
}

#[test]
fn models_of_items_are_told_by_the_item() {
    let said = ended(&["explain", "digits-cnn"], b"").succeeded().stdout;
    assert!(said.contains("per item") && said.contains("heaviest batch: 32 items"), "{said}");
}

#[test]
fn the_heaviest_batch_is_that_of_the_batching_flags() {
    let said = ended(&["explain", MODEL, "--max-batch-weight", "1000"], b"").succeeded().stdout;
    assert!(said.contains("heaviest batch: 1000 tokens"), "{said}");
}

#[test]
fn what_cannot_be_is_refused_with_what_there_is() {
    ended(&["explain", "no-such-model"], b"").failed_with(2, &["no-such-model", "known are"]);
    ended(&["explain", MODEL, "--device", "gpu"], b"").failed_with(2, &["device 'gpu' is not known; give auto, cpu"]);
    ended(&["explain", "magika", "--precision", "int8"], b"")
        .failed_with(2, &["no precision 'int8'", "choose one of: f32"]);
    ended(&["explain", MODEL, "--device-memory", "cpu=1"], b"").failed_with(2, &["runs on none of its devices", "MiB"]);
    ended(&["explain", MODEL, "--device-memory", "cpu"], b"").failed_with(2, &["DEVICE=SIZE"]);
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_gpu_that_this_build_cannot_use_is_refused_with_the_reason() {
    ended(&["explain", MODEL, "--device", "cuda:0"], b"").failed_with(2, &["device cuda:0", "--features cuda"]);
}
