//! The families on the models that ship in `zoo/`: reference outputs, batches, bad inputs, bad directories.

#![expect(clippy::unwrap_used, reason = "clippy knows the tests as tests, but not the functions they share")]

mod bad_directories;
mod bad_inputs;
mod batched_equals_alone;
mod demand;
mod directories;
mod families;
mod kinds_of_answers;
mod precisions;
mod references;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use sconce_models::{
    Array, ArrayData, Features, Finishing, Input, LoadOptions, LoadedModel, Output, Registry, Truncation,
};
use serde_json::Value;
use tempfile::TempDir;

/// Every model that ships. Each runs the shared suite.
const ZOO: [&str; 4] = ["digits-cnn", "encoder-mini", "magika", "tiny-bert-sentiment"];

fn directory(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo").join(model)
}

fn load(model: &str) -> LoadedModel {
    Registry::default().load(&directory(model), &LoadOptions::default()).unwrap()
}

/// A copy of a model, for a test to change.
fn copy_of(model: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let from = directory(model).join(file);
        if from.exists() {
            fs::copy(from, copy.path().join(file)).unwrap();
        }
    }
    copy
}

fn edit_config(copy: &Path, edit: impl FnOnce(&mut Value)) {
    let path = copy.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

/// The tensors of a reference file in a model's directory.
fn tensors(model: &str, file: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(directory(model).join(file), &candle_core::Device::Cpu).unwrap()
}

fn prepare(model: &LoadedModel, input: Input) -> Features {
    model.processor.prepare(input, Truncation::Truncate).unwrap().features
}

/// Runs inputs as one batch.
fn infer(model: &mut LoadedModel, inputs: impl IntoIterator<Item = Input>) -> Vec<Output> {
    let inputs: Vec<Input> = inputs.into_iter().collect();
    let features: Vec<Features> = inputs.iter().map(|input| prepare(model, input.clone())).collect();
    let rows = model.network.forward(&features).unwrap().into_iter().zip(&inputs);
    let finish = |(row, input)| model.processor.finish(row, Finishing { input: Some(input), ..Finishing::default() });
    rows.map(finish).collect()
}

/// `count` inputs of mixed sizes for a model.
fn varied_inputs(model: &str, count: usize) -> Vec<Input> {
    match model {
        "digits-cnn" => digits().into_iter().take(count).map(|(image, _)| image).collect(),
        "magika" => (0..count).map(|item| content(item).into()).collect(),
        _ => (0..count).map(|item| text(item).into()).collect(),
    }
}

/// A text by number: from one word to more than fits, with several of equal length.
fn text(item: usize) -> String {
    const WORDS: [&str; 9] = ["the", "film", "was", "not", "terrible", "at", "all", "honestly", "!"];
    let length = [1, 3, 3, 8, 20, 3, 60, 200][item % 8];
    (0..length).map(|word| WORDS[(item * 5 + word * (1 + item % 3)) % WORDS.len()]).collect::<Vec<_>>().join(" ")
}

/// A piece of a file by number: several types, some shorter than the window.
fn content(item: usize) -> Vec<u8> {
    let files = ["digits-cnn/model.safetensors", "magika/config.json", "tiny-bert-sentiment/test.tsv"];
    let bytes = fs::read(directory(files[item % files.len()])).unwrap();
    let length = [3, 100, 1500, 4096, 20_000][item % 5];
    bytes[item * 10..].iter().copied().take(length).collect()
}

/// The test images with their labels.
fn digits() -> Vec<(Input, usize)> {
    let tensors = tensors("digits-cnn", "test.safetensors");
    let images = tensors["images"].flatten_from(1).unwrap().to_vec2::<u8>().unwrap();
    let labels = tensors["labels"].to_vec1::<i64>().unwrap();
    let images = images.into_iter().map(|pixels| Array { shape: vec![1, 8, 8], data: ArrayData::U8(pixels) }.into());
    images.zip(labels.into_iter().map(|label| usize::try_from(label).unwrap())).collect()
}

/// The largest difference, divided by the expected value if that is above 1.
fn largest_gap(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let gap = |(got, expected): (&f32, &f32)| (got - expected).abs() / expected.abs().max(1.0);
    // Not `f32::max`, which skips NaN.
    got.iter().zip(expected).map(gap).fold(0.0, |worst, gap| if gap <= worst { worst } else { gap })
}
