//! The network on the CPU: the kernels of `sconce-kernels`, without candle.
//!
//! Images have their channels last (NHWC), so that a row of a window is contiguous in memory, and the output of a
//! product is already the next image.

mod convolution;

use std::sync::Arc;

use sconce_kernels::linear::{Activation, Linear, WeightFormat};
use sconce_kernels::{KernelError, Team};

use convolution::{PackedConvolution, channels_last};

use super::Config;
use crate::dense::{fits, packed_linear};
use crate::{LoadError, Weights};

/// The network and the buffers that it works in.
pub(super) struct PackedDigits {
    channels: usize,
    convolutions: [PackedConvolution; 2],
    hidden: Linear,
    output: Linear,
    team: Arc<Team>,
    /// The images of a batch.
    x: Vec<f32>,
    inner: Vec<f32>,
    logits: Vec<f32>,
}

impl PackedDigits {
    pub(super) fn load(config: &Config, weights: &Weights, team: &Arc<Team>) -> Result<Self, LoadError> {
        let [first, second] = config.channels;
        let [image, half, quarter] = config.sides();
        Ok(Self {
            channels: config.num_channels,
            convolutions: [
                PackedConvolution::load(weights, "conv1", config, image, config.num_channels, first)?,
                PackedConvolution::load(weights, "conv2", config, half, first, second)?,
            ],
            hidden: hidden(config, weights, second, quarter)?,
            output: packed_linear(weights, "fc2", config.hidden, config.num_labels)?,
            team: Arc::clone(team),
            x: Vec::new(),
            inner: Vec::new(),
            logits: Vec::new(),
        })
    }

    /// Computes one row per image of the network's size. Each layer takes the whole batch in one product.
    pub(super) fn forward(&mut self, images: &[&[f32]]) -> Result<Vec<Vec<f32>>, KernelError> {
        let Self { channels, convolutions: [first, second], hidden, output, team, x, inner, logits } = self;
        x.clear();
        x.extend(images.iter().flat_map(|image| channels_last(image, *channels)));
        let x = second.forward(team, first.forward(team, x, images.len())?, images.len())?;
        inner.resize(images.len() * hidden.outputs(), 0.0);
        hidden.forward(team, x, inner, Activation::Relu)?;
        logits.resize(images.len() * output.outputs(), 0.0);
        output.forward(team, inner, logits, Activation::Identity)?;
        Ok(logits.chunks_exact(output.outputs()).map(<[f32]>::to_vec).collect())
    }
}

/// The first linear layer, reordered: the checkpoint has it for images with their channels first.
fn hidden(config: &Config, weights: &Weights, channels: usize, side: usize) -> Result<Linear, LoadError> {
    let inputs = channels * side * side;
    let weight = weights.values("fc1.weight", &[config.hidden, inputs])?;
    let weight: Vec<f32> = weight.chunks_exact(inputs).flat_map(|row| channels_last(row, channels)).collect();
    let bias = weights.values("fc1.bias", &[config.hidden])?;
    fits(weights, Linear::new(&weight, Some(&bias), inputs, config.hidden, WeightFormat::F32))
}
