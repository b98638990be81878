//! What the network asks of a device. A convolution takes k²·inputs products for each pixel and output, and keeps the size of the
//! image but for its border; pooling then shrinks it.

use super::Config;
use crate::Demand;
use crate::demand::f32_bytes;

pub(super) fn demand(config: &Config) -> Demand {
    let [first, second] = config.channels;
    let [side, half, quarter] = config.sides();
    let convolved = |side: usize| (side + 2 * config.padding + 1 - config.kernel).pow(2);
    let taps = |inputs: usize| inputs * config.kernel.pow(2);
    let kernels = [taps(config.num_channels) * first, taps(first) * second];
    let linear = second * quarter.pow(2) * config.hidden + config.hidden * config.num_labels;
    let biases = first + second + config.hidden + config.num_labels;
    let products = convolved(side) * kernels[0] + convolved(half) * kernels[1] + linear;
    Demand {
        weight_bytes: f32_bytes(kernels[0] + kernels[1] + linear + biases),
        flops_per_weight: 2.0 * products as f64,
        bytes_per_weight: f32_bytes(
            side.pow(2) * config.num_channels + convolved(side) * first + convolved(half) * second,
        ),
        unit: "item",
    }
}
