use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::TensorDevice;
use candle_core::{Device, Tensor};

use super::*;

const WINDOW: ContentWindow = ContentWindow { beginning: 4, end: 4, block: 8, padding: 256 };

fn symbols(content: &[u8]) -> Vec<u16> {
    WINDOW.symbols(content).unwrap()
}

#[test]
fn a_short_content_is_padded_behind_its_beginning_and_before_its_end() {
    assert_eq!(symbols(b"ab"), [97, 98, 256, 256, 256, 256, 97, 98]);
}

#[test]
fn white_space_is_stripped_before_the_beginning_and_after_the_end_only() {
    // Within one block, the beginning keeps the white space after it, and the end the white space before it.
    assert_eq!(symbols(b" \x0b\nab "), [97, 98, 32, 256, 11, 10, 97, 98]);
    // Neither a no-break space nor a zero byte is white space.
    assert_eq!(symbols(b"\xa0\0"), [0xa0, 0, 256, 256, 256, 256, 0xa0, 0]);
}

#[test]
fn a_long_content_gives_its_first_and_last_bytes() {
    assert_eq!(symbols(b"abcdefghijkl"), [97, 98, 99, 100, 105, 106, 107, 108]);
}

#[test]
fn white_space_is_stripped_within_the_first_and_last_block_alone() {
    // The first block of 8 is all white space, so nothing is left of it, though letters follow.
    assert_eq!(symbols(b"          abcdef"), [256, 256, 256, 256, 99, 100, 101, 102]);
    assert_eq!(symbols(b"abcdef          "), [97, 98, 99, 100, 256, 256, 256, 256]);
    assert_eq!(
        WINDOW.symbols(b"          abc          "),
        Err(InputError::BlankEnds { name: CONTENT_INPUT, bytes: WINDOW.block })
    );
    assert_eq!(WINDOW.symbols(b""), Err(InputError::Empty { name: CONTENT_INPUT }));
}

/// Numbers without a pattern, from -1 to 1.
fn numbers(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// Weights with the names and shapes of a checkpoint of this configuration.
fn weights_for(config: &Config, labels: usize) -> Weights {
    let (positions, channels, outputs) = (config.positions(), config.channels(), config.conv_out);
    let shapes: [(&str, &[usize]); 10] = [
        ("embed.weight", &[config.vocab_size, config.embed_dim]),
        ("embed.bias", &[config.embed_dim]),
        ("norm0.weight", &[positions]),
        ("norm0.bias", &[positions]),
        ("conv.weight", &[outputs, channels, config.conv_kernel]),
        ("conv.bias", &[outputs]),
        ("norm1.weight", &[outputs]),
        ("norm1.bias", &[outputs]),
        ("head.weight", &[labels, outputs]),
        ("head.bias", &[labels]),
    ];
    let tensors: HashMap<&str, Tensor> = shapes
        .into_iter()
        .enumerate()
        .map(|(seed, (name, shape))| {
            let values = numbers(seed, shape.iter().product());
            (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
        })
        .collect();
    Weights::new(PathBuf::new(), safetensors::serialize(tensors, None).unwrap()).unwrap()
}

/// Symbols without a pattern, except for a run of padding in the middle.
fn item(config: &Config, seed: usize, padding: usize) -> Vec<u16> {
    let bytes = (0..config.seq_len).map(|at| (at * 7919 + seed * 104_729) % 2003 % 256);
    let mut symbols: Vec<u16> = bytes.map(|byte| u16::try_from(byte).unwrap()).collect();
    let start = (config.seq_len - padding) / 2;
    symbols[start..start + padding].fill(config.padding_token);
    symbols
}

fn assert_engines_agree(config: &Config, weights: &Weights, labels: usize) {
    let mut packed = PackedMagika::load(config, weights, labels, &Arc::default()).unwrap();
    let tensors = TensorMagika::load(config, weights, labels, &TensorDevice::cpu()).unwrap();
    for items in [1, 5, 2] {
        // The first item has no padding, the second a quarter, and so on.
        let items: Vec<Vec<u16>> = (0..items).map(|at| item(config, at, at * config.seq_len / 4)).collect();
        let items: Vec<&[u16]> = items.iter().map(Vec::as_slice).collect();
        let (packed, tensors) = (packed.forward(&items).unwrap(), tensors.forward(&items).unwrap());
        assert_eq!(packed.len(), items.len());
        for (got, expected) in packed.iter().zip(&tensors) {
            // Relative to the largest logit: each logit is a sum of terms of that size and has their rounding errors.
            // The gap differs by processor: 1.02e-5 was seen on one, less on others.
            let largest = expected.iter().fold(1.0, |largest: f32, logit| largest.max(logit.abs()));
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() <= 3e-5 * largest, "{config:?}: {got} for {expected}, of {largest}");
            }
        }
    }
}

#[test]
fn the_engine_of_the_cpu_agrees_with_candles_operations() {
    let directory = ModelDirectory::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/magika"));
    let config: Config = directory.config().unwrap();
    let weights = directory.weights().unwrap();
    assert_engines_agree(&config, &weights, config.id2label.len());
}

#[test]
fn the_engines_agree_on_other_sizes() {
    for (embed_dim, group, seq_len, conv_kernel, conv_out) in
        [(5, 3, 30, 1, 7), (8, 1, 12, 12, 33), (3, 2, 40, 4, 1), (16, 4, 64, 3, 40)]
    {
        let config = Config {
            vocab_size: 257,
            embed_dim,
            group,
            seq_len,
            conv_kernel,
            conv_out,
            layer_norm_eps: 1e-6,
            hidden_act: "gelu_tanh".to_owned(),
            norm0_axis: "position".to_owned(),
            id2label: BTreeMap::new(),
            beg_size: seq_len / 2,
            end_size: seq_len / 2,
            block_size: 4096,
            padding_token: 256,
        };
        assert_eq!(config.check(), Ok(()));
        assert_engines_agree(&config, &weights_for(&config, 3), 3);
    }
}
