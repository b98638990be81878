//! A runtime whose GPU runs out of memory and is then lost (the simulator injects both): every caller gets an answer.
//!
//! A process of its own with a single test, because a device is lost to the whole process.

use std::path::{Path, PathBuf};

use sconce::{Array, ArrayData, DeviceName, DeviceState, Input, Model, ModelSource, Runtime};
use sconce_cudasim_control::Control;

const MODEL: &str = "digits-cnn";
const GPU: DeviceName = DeviceName::cuda(0);

fn zoo(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo").join(model)
}

fn image(number: u8) -> Input {
    let pixels = (0..64_u8).map(|at| at.wrapping_mul(number + 3) % 17).collect();
    Input::Array(Array { shape: vec![1, 8, 8], data: ArrayData::U8(pixels) })
}

/// Runs several images at once; returns the label and the device of each.
async fn ask(model: &Model) -> Vec<(String, DeviceName)> {
    let asked: Vec<_> = (0..6).map(|number| (model.clone(), image(number))).collect();
    let asked: Vec<_> =
        asked.into_iter().map(|(model, image)| tokio::spawn(async move { model.infer(image).await })).collect();
    let mut answers = Vec::new();
    for answer in asked {
        let answer = answer.await.expect("no panic").expect("an answer, not an error");
        answers.push((answer.output.classification().expect("a classifier").label().to_owned(), answer.device));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn injected_failures_of_the_gpu_end_in_answers() {
    let Some(control) = Control::attach() else {
        assert!(std::env::var_os("SCONCE_EXPECT_GPU").is_none(), "a simulated GPU is expected");
        eprintln!("SKIPPED: failures of a GPU need the simulator");
        return;
    };
    let expected = {
        let source = ModelSource::new(zoo(MODEL)).device(DeviceName::CPU);
        let runtime = Runtime::builder().model(source).build().expect("it loads");
        ask(&runtime.model(MODEL).expect("it is there")).await
    };
    let labels = |answers: &[(String, DeviceName)]| answers.iter().map(|(label, _)| label.clone()).collect::<Vec<_>>();
    let source = ModelSource::new(zoo(MODEL)).device(GPU);
    let runtime = Runtime::builder().model(source).build().expect("it loads");
    let model = &runtime.model(MODEL).expect("it is there");
    let answers = ask(model).await;
    assert_eq!(labels(&answers), labels(&expected));
    assert!(answers.iter().all(|(_, device)| *device == GPU), "{answers:?}");

    control.fail_allocation(1);
    assert_eq!(labels(&ask(model).await), labels(&expected), "it ran out of memory once");

    control.lose_device_after_launches(3);
    for _ in 0..2 {
        assert_eq!(labels(&ask(model).await), labels(&expected), "it is lost");
    }
    assert_eq!(model.devices()[0].state, DeviceState::Lost);
    // A batch is counted when it is over, so not before the next one runs.
    assert_eq!(model.stats().out_of_memory, 1);
    assert!(ask(model).await.iter().all(|(_, device)| *device == DeviceName::CPU));
    runtime.shutdown().await;
}
