//! The memory and operations that the network needs. A convolution takes k²·inputs products for each pixel and output,
//! and keeps the size of the image except for its border; pooling then shrinks it.

use super::Config;
use crate::Demand;
use crate::demand::{f32_bytes, product, sum};

pub(super) fn demand(config: &Config) -> Demand {
    let [first, second] = config.channels;
    let [side, half, quarter] = config.sides();
    let convolved = |side: usize| {
        let side = side + 2 * config.padding + 1 - config.kernel;
        product(&[side, side])
    };
    let taps = |inputs: usize| product(&[inputs, config.kernel, config.kernel]);
    let kernels = [product(&[taps(config.num_channels), first]), product(&[taps(first), second])];
    let linear = sum(&[product(&[second, quarter, quarter, config.hidden]), config.hidden * config.num_labels]);
    let biases = first + second + config.hidden + config.num_labels;
    let products = sum(&[product(&[convolved(side), kernels[0]]), product(&[convolved(half), kernels[1]]), linear]);
    let pixels = product(&[side, side, config.num_channels]);
    Demand {
        weight_bytes: f32_bytes(sum(&[kernels[0], kernels[1], linear, biases])),
        flops_per_weight: 2.0 * products as f64,
        bytes_per_weight: f32_bytes(sum(&[
            pixels,
            product(&[convolved(side), first]),
            product(&[convolved(half), second]),
        ])),
        unit: "item",
    }
}
