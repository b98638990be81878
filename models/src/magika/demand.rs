//! The memory and operations that the network needs. Nearly all operations are those of the convolution: `conv_kernel` ×
//! channels multiply-adds for each window and output.

use super::Config;
use crate::Demand;
use crate::demand::{f32_bytes, product, sum};

pub(super) fn demand(config: &Config) -> Demand {
    let (positions, channels, outputs) = (config.positions(), config.channels(), config.conv_out);
    let labels = config.id2label.len();
    let kernel = outputs * channels * config.conv_kernel;
    let windows = positions - config.conv_kernel + 1;
    let table = config.vocab_size * config.embed_dim + config.embed_dim;
    let norms = 2 * positions + 2 * outputs;
    Demand {
        weight_bytes: f32_bytes(table + norms + kernel + outputs + (outputs + 1) * labels),
        flops_per_weight: 2.0 * sum(&[product(&[windows, kernel]), outputs * labels]) as f64,
        bytes_per_weight: f32_bytes(positions * channels + windows * outputs),
        unit: "item",
    }
}
