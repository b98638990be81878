//! Devices: the listing, the flag, and the messages where there is no GPU.
//!
//! All tests pass in a build with and without the feature `cuda`, on a machine with and without a GPU.

use sconce_grpc::proto::infer_parameter::ParameterChoice;
use serde_json::Value;

use crate::command::{ended, run, sconce};
use crate::serve::{Server, classify};

const TEXT: &[u8] = b"What a wonderful day!";

/// The line of `sconce devices --json` about the first GPU, or about why there is none.
fn first_gpu() -> Value {
    ended(&["devices", "--json"], b"").succeeded().objects().swap_remove(1)
}

/// Returns true if there is a GPU; else prints that the test is skipped. Panics if `SCONCE_EXPECT_GPU` is set and there
/// is none.
fn gpu_or_skip() -> bool {
    let error = first_gpu()["error"].as_str().map(str::to_owned);
    if let Some(error) = &error {
        assert!(std::env::var_os("SCONCE_EXPECT_GPU").is_none(), "a GPU is expected, but {error}");
        eprintln!("SKIPPED: {error}");
    }
    error.is_none()
}

fn classified(device: &str) -> Vec<Value> {
    let args = ["classify", "--model", "tiny-bert-sentiment", "--device", device];
    ended(&args, TEXT).succeeded().objects()
}

#[test]
fn the_cpu_is_listed_and_so_is_a_gpu_or_the_reason_why_there_is_none() {
    let listed = ended(&["devices"], b"").succeeded().stdout;
    let mut lines = listed.lines();
    assert!(lines.next().unwrap().starts_with("DEVICE  NAME"), "{listed}");
    assert!(lines.next().unwrap().starts_with("cpu "), "{listed}");
    let objects = ended(&["devices", "--json"], b"").succeeded().objects();
    assert_eq!(objects[0]["device"], "cpu");
    assert!(objects[0]["cores"].as_u64() > Some(0), "{}", objects[0]);
    if let Some(error) = objects[1]["error"].as_str() {
        assert!(listed.ends_with(&format!("no GPU: {error}\n")), "{error}: {listed}");
    } else {
        assert_eq!(objects[1]["device"], "cuda:0");
        assert!(listed.contains(objects[1]["name"].as_str().unwrap()), "{listed}");
    }
    if cfg!(not(feature = "cuda")) {
        assert_eq!(objects[1]["error"], "this build has no CUDA: build it with `--features cuda`");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_refused_with_the_reason_in_every_command() {
    let (device, reason) = match first_gpu()["error"].as_str() {
        Some(error) => ("cuda:0", error.to_owned()),
        None => ("cuda:99", "there is no device cuda:99".to_owned()),
    };
    let said = ["error: device ", device, &reason];
    for command in [&["embed", "--model", "encoder-mini"][..], &["serve", "--grpc", "127.0.0.1:0", "--http", "none"]] {
        ended(&[command, &["--device", device]].concat(), b"").failed_with(2, &said);
    }
    let mut from_environment = sconce(&["classify", "--model", "tiny-bert-sentiment"]);
    from_environment.env("SCONCE_DEVICE", device);
    run(from_environment, b"").failed_with(2, &said);
}

#[test]
fn a_device_of_no_known_name_is_refused_with_the_names_there_can_be() {
    for (device, question) in [
        ("gpu", "did you mean cuda:0?"),
        ("cuda", "did you mean cuda:0?"),
        ("gpu:1", "did you mean cuda:1?"),
        ("tpu", ""),
    ] {
        let said = ["--device", "is not known; give auto, cpu, or cuda:N", question];
        ended(&["classify", "--model", "magika", "--device", device], b"").failed_with(2, &said);
    }
    for device in ["CPU", "cpu:0", "Auto"] {
        assert_eq!(classified(device)[0]["label"], "positive", "{device} is another spelling");
    }
}

#[test]
fn an_answer_says_which_device_it_comes_from() {
    let expected = classified("cpu").swap_remove(0);
    assert_eq!(expected["device"], "cpu");
    if !gpu_or_skip() {
        return;
    }
    let found = classified("cuda:0").swap_remove(0);
    assert_eq!((&found["device"], &found["label"]), (&Value::from("cuda:0"), &expected["label"]));
    let gap = found["score"].as_f64().unwrap() - expected["score"].as_f64().unwrap();
    assert!(gap.abs() < 1e-5, "{found} {expected}");
}

#[tokio::test]
async fn a_server_says_where_its_models_run_and_so_do_its_answers() {
    let devices = if gpu_or_skip() { &["cpu", "cuda:0"][..] } else { &["cpu"] };
    for device in devices {
        let server = Server::start(&["--model", "tiny-bert-sentiment", "--device", device]);
        assert!(server.banner.contains(&format!("  {device}  loaded in")), "{}", server.banner);
        let answer = classify(server.address, "a wonderful day").await.unwrap();
        let said = answer.parameters["device"].parameter_choice.clone();
        assert_eq!(said, Some(ParameterChoice::StringParam((*device).to_owned())));
    }
}

#[test]
fn an_old_gpu_is_listed_as_such_and_refused_where_its_kernels_are_missing() {
    if !gpu_or_skip() {
        return;
    }
    // A variable of the simulator; a card ignores it.
    let on = |compute_capability: &str, args: &[&str]| {
        let mut command = sconce(args);
        command.env("CUDASIM_CC", compute_capability);
        run(command, TEXT)
    };
    if !on("61", &["devices"]).succeeded().stdout.contains("compute capability 6.1") {
        eprintln!("SKIPPED: this GPU cannot pretend to be old");
        return;
    }
    let listed = on("61", &["devices"]).stdout;
    assert!(listed.contains("NOT USABLE: cuda:0") && listed.contains("6.1; 7.5 or higher is needed"), "{listed}");
    let text = ["classify", "--model", "tiny-bert-sentiment", "--device", "cuda:0"];
    on("61", &text).failed_with(2, &["device cuda:0", "6.1; 7.5 or higher is needed"]);
    let listed = on("75", &["devices"]).succeeded().stdout;
    assert!(listed.contains("ENCODERS ONLY: for other models, cuda:0"), "{listed}");
    let file = ["classify", "--model", "magika", "--device", "cuda:0"];
    on("75", &file).failed_with(2, &["model 'magika': the model cannot run there", "7.5; 8.0 or higher is needed"]);
}
