//! Models on the first CUDA device, encoders by the kernels of Sconce and the others by candle's backend, give the same
//! answers as on the CPU.
//!
//! Without a device each test prints a notice and passes, unless `SCONCE_EXPECT_GPU` is set. `tests/run cuda` runs them
//! on the simulator.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sconce::cache::{CrossPrecision, MemoryConfig};
use sconce::{
    AnswerCache, Array, ArrayData, DeviceError, DeviceName, Input, ModelSource, Precision, Runtime, Truncation,
};
use sconce_models::{Backend as _, CudaBackend, Device, Features, LoadOptions, LoadedModel, Registry, cpu};
use sconce_tests::path_or_skip;

const GPU: DeviceName = DeviceName::cuda(0);

/// The first CUDA device; prints a notice where there is none.
fn gpu_or_skip() -> Option<Arc<dyn Device>> {
    match CudaBackend.open(0) {
        Ok(device) => Some(device),
        Err(error @ (DeviceError::NoDriver { .. } | DeviceError::NoDevice))
            if std::env::var_os("SCONCE_EXPECT_GPU").is_none() =>
        {
            eprintln!("SKIPPED: {error}");
            None
        }
        Err(error) => panic!("a GPU is expected, but {error}"),
    }
}

fn zoo(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo").join(model)
}

fn load(directory: &Path, device: Arc<dyn Device>) -> LoadedModel {
    let options = LoadOptions { device, ..LoadOptions::default() };
    Registry::default().load(directory, &options).expect("the model loads")
}

/// Runs the same batch on both devices; returns the largest gap of a row, relative to its largest number (or to 1).
fn worst_gap(directory: &Path, inputs: Vec<Input>, gpu: Arc<dyn Device>) -> f32 {
    let mut cpu = load(directory, cpu(Arc::default()));
    let mut gpu = load(directory, gpu);
    assert_eq!((cpu.signature.device, gpu.signature.device), (DeviceName::CPU, GPU));
    let prepare = |input| cpu.processor.prepare(input, Truncation::Truncate).expect("a good input").features;
    let batch: Vec<Features> = inputs.into_iter().map(prepare).collect();
    let expected = cpu.network.forward(&batch).expect("the CPU computes it");
    let found = gpu.network.forward(&batch).expect("the GPU computes it");
    assert_eq!(found.len(), batch.len());
    let largest = expected.iter().flatten().fold(1.0, |largest, x| x.abs().max(largest));
    let gaps = expected.iter().zip(&found).flat_map(|(expected, found)| {
        assert_eq!(expected.len(), found.len());
        expected.iter().zip(found).map(|(a, b)| (a - b).abs() / largest)
    });
    // Not `f32::max`, which ignores NaN.
    gaps.fold(0.0, |worst, gap| if gap <= worst { worst } else { gap })
}

fn texts(texts: &[&str]) -> Vec<Input> {
    texts.iter().map(|text| Input::from(*text)).collect()
}

#[track_caller]
fn assert_agrees(what: &str, gap: f32) {
    println!("{what}: the GPU is within {gap:e} of the CPU");
    assert!(gap < 1e-5, "{what}: {gap:e}");
}

#[test]
fn a_classifier_of_texts_agrees_with_the_cpu() {
    let Some(gpu) = gpu_or_skip() else { return };
    let batch =
        texts(&["What a wonderful day!", "Never again.", "It was neither good nor bad, but long.", "Never again."]);
    assert_agrees("tiny-bert-sentiment", worst_gap(&zoo("tiny-bert-sentiment"), batch, gpu));
}

#[test]
fn an_embedder_agrees_with_the_cpu() {
    let Some(gpu) = gpu_or_skip() else { return };
    let batch = texts(&["a sconce holds candles", "light on a wall"]);
    assert_agrees("encoder-mini", worst_gap(&zoo("encoder-mini"), batch, gpu));
}

#[test]
fn minilm_agrees_with_the_cpu_on_two_texts_of_sixteen_tokens() {
    let Some(gpu) = gpu_or_skip() else { return };
    let Some(directory) = path_or_skip("SCONCE_MINILM", "MiniLM on the GPU") else { return };
    // Fourteen words of one token each, and the two special tokens.
    let text = |words: &str| words.repeat(7);
    let batch = [text("candle wall "), text("light house ")].map(Input::from).to_vec();
    assert_agrees("MiniLM, 2×16", worst_gap(&directory, batch, gpu));
}

#[test]
fn a_network_of_convolutions_agrees_with_the_cpu() {
    let Some(gpu) = gpu_or_skip() else { return };
    let image = |seed: u8| {
        let pixels = (0..64_u8).map(|at| at.wrapping_mul(seed) % 17).collect();
        Input::Array(Array { shape: vec![1, 8, 8], data: ArrayData::U8(pixels) })
    };
    assert_agrees("digits-cnn", worst_gap(&zoo("digits-cnn"), vec![image(3), image(7), image(11)], gpu));
}

#[test]
fn the_type_of_a_file_agrees_with_the_cpu() {
    let Some(gpu) = gpu_or_skip() else { return };
    let batch = vec![Input::Bytes(include_bytes!("Cargo.toml").to_vec()), Input::from("fn main() {}")];
    assert_agrees("magika", worst_gap(&zoo("magika"), batch, gpu));
}

#[tokio::test]
async fn a_runtime_answers_from_the_gpu_and_says_so() {
    if gpu_or_skip().is_none() {
        return;
    }
    let on_gpu = ModelSource::new(zoo("tiny-bert-sentiment")).name("gpu").device(GPU);
    let runtime = Runtime::builder()
        .model(on_gpu)
        .model(ModelSource::new(zoo("tiny-bert-sentiment")).device(DeviceName::CPU))
        .build()
        .expect("both load");
    for (name, device) in [("gpu", GPU), ("tiny-bert-sentiment", DeviceName::CPU)] {
        let answer =
            &runtime.model(name).expect("it is there").infer("What a wonderful day!").await.expect("an answer");
        assert_eq!(answer.output.classification().expect("a classifier").label(), "positive");
        assert_eq!(answer.device, device);
    }
    runtime.shutdown().await;
}

#[tokio::test]
async fn an_answer_in_f16_may_be_given_for_one_in_int8_where_that_is_allowed() {
    if gpu_or_skip().is_none() {
        return;
    }
    let cache = Arc::new(AnswerCache::builder().memory(MemoryConfig::default()).build().expect("good defaults"));
    for (precision, source) in [(Precision::F16, "computed"), (Precision::Int8, "memory")] {
        let model = ModelSource::new(zoo("tiny-bert-sentiment")).device(GPU).precision(precision);
        let builder = Runtime::builder()
            .allow_undecided(true)
            .model(model.cross_precision(CrossPrecision::Higher))
            .cache(Arc::clone(&cache));
        let runtime = builder.build().expect("it loads");
        let model = &runtime.model("tiny-bert-sentiment").expect("it is there");
        let answer = model.infer("What a wonderful day!").await.expect("an answer");
        assert_eq!((answer.precision, answer.source.name()), (Precision::F16, source), "asked for in {precision}");
    }
}

#[test]
fn a_device_beyond_those_there_are_is_refused_with_their_number() {
    if gpu_or_skip().is_none() {
        return;
    }
    let error = CudaBackend.open(99).expect_err("nobody has that many");
    let DeviceError::UnknownOrdinal { ordinal: 99, count } = error else { panic!("{error}") };
    assert!(count > 0);
}
