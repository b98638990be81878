use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::TensorDevice;
use candle_core::{Device, Tensor};

use super::*;

/// Numbers without a pattern, from -1 to 1.
fn numbers(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// Weights with the names and shapes of a checkpoint of this configuration.
fn weights_for(config: &Config) -> Weights {
    let [first, second] = config.channels;
    let Config { kernel, hidden, num_labels, num_channels, .. } = *config;
    let side = config.sides()[2];
    let shapes: [(&str, &[usize]); 4] = [
        ("conv1", &[first, num_channels, kernel, kernel]),
        ("conv2", &[second, first, kernel, kernel]),
        ("fc1", &[hidden, second * side * side]),
        ("fc2", &[num_labels, hidden]),
    ];
    let mut tensors = HashMap::new();
    for (seed, (name, shape)) in shapes.into_iter().enumerate() {
        for (part, shape) in [("weight", shape), ("bias", &shape[..1])] {
            let values = numbers(seed, shape.iter().product());
            tensors.insert(format!("{name}.{part}"), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        }
    }
    Weights::new(PathBuf::new(), safetensors::serialize(tensors, None).unwrap()).unwrap()
}

fn assert_engines_agree(config: &Config, weights: &Weights) {
    let mut packed = PackedDigits::load(config, weights, &Arc::default()).unwrap();
    let tensors = TensorDigits::load(config, weights, &TensorDevice::cpu()).unwrap();
    let size = config.shape().iter().product();
    // Smaller batches follow larger ones, so that buffers still hold numbers of an earlier batch.
    for images in [1, 33, 2, 7] {
        let images: Vec<Vec<f32>> = (0..images).map(|image| numbers(10 + image, size)).collect();
        let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        let (packed, tensors) = (packed.forward(&images).unwrap(), tensors.forward(&images).unwrap());
        assert_eq!(packed.len(), images.len());
        for (got, expected) in packed.iter().flatten().zip(tensors.iter().flatten()) {
            assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{config:?}: {got} for {expected}");
        }
    }
}

#[test]
fn the_engine_of_the_cpu_agrees_with_candles_operations() {
    let directory = ModelDirectory::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/digits-cnn"));
    let config: Config = directory.config().unwrap();
    assert_engines_agree(&config, &directory.weights().unwrap());
}

#[test]
fn the_engines_agree_on_images_kernels_and_pools_of_other_sizes() {
    for (image_size, num_channels, kernel, padding, pool) in
        [(7, 3, 2, 0, 2), (5, 2, 3, 2, 1), (11, 1, 4, 3, 3), (1, 5, 3, 2, 1), (17, 4, 1, 0, 4), (10, 3, 5, 2, 3)]
    {
        let config = Config {
            channels: [5, 6],
            kernel,
            padding,
            pool,
            hidden: 9,
            num_labels: 4,
            image_size,
            num_channels,
            rescale: 1.0,
            layout: "NCHW".to_owned(),
            id2label: None,
        };
        assert_eq!((config.check(), config.sides()[0]), (Ok(()), image_size));
        assert_engines_agree(&config, &weights_for(&config));
    }
}

#[test]
fn a_configuration_whose_pools_leave_nothing_is_refused() {
    let directory = ModelDirectory::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/digits-cnn"));
    let config: Config = directory.config().unwrap();
    for (image_size, padding) in [(3, 0), (1, 1)] {
        let error = Config { image_size, padding, id2label: None, layout: "NCHW".to_owned(), ..config }.check();
        assert_eq!(error, Err(format!("field 'image_size' is {image_size}, of which pooling leaves nothing")));
    }
}
