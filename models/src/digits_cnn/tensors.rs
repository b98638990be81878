//! The network as candle's operations, for devices that have no engine of their own.

use candle_core::{Device, Result, Tensor};

use super::Config;
use crate::dense::DenseTensors;
use crate::{LoadError, TensorDevice, Weights};

pub(super) struct TensorDigits {
    /// Channels, height and width.
    shape: [usize; 3],
    pool: usize,
    convolutions: [Convolution; 2],
    hidden: DenseTensors,
    output: DenseTensors,
    device: Device,
}

impl TensorDigits {
    pub(super) fn load(
        config: &Config,
        weights: &Weights,
        device: &TensorDevice,
    ) -> std::result::Result<Self, LoadError> {
        let weights = &weights.on(device);
        let [first, second] = config.channels;
        let [_, _, side] = config.sides();
        Ok(Self {
            shape: config.shape(),
            pool: config.pool,
            convolutions: [
                Convolution::load(weights, "conv1", config, config.num_channels, first)?,
                Convolution::load(weights, "conv2", config, first, second)?,
            ],
            hidden: DenseTensors::load(weights, "fc1", second * side * side, config.hidden)?,
            output: DenseTensors::load(weights, "fc2", config.hidden, config.num_labels)?,
            device: device.as_candle().clone(),
        })
    }

    /// Computes one row per image of the network's size.
    pub(super) fn forward(&self, images: &[&[f32]]) -> Result<Vec<Vec<f32>>> {
        let [channels, height, width] = self.shape;
        let mut x = Tensor::from_vec(images.concat(), (images.len(), channels, height, width), &self.device)?;
        for convolution in &self.convolutions {
            x = convolution.forward(&x)?.relu()?.max_pool2d(self.pool)?;
        }
        self.output.forward(&self.hidden.forward(&x.flatten_from(1)?)?.relu()?)?.to_vec2()
    }
}

struct Convolution {
    weight: Tensor,
    /// `[1, outputs, 1, 1]`
    bias: Tensor,
    padding: usize,
}

impl Convolution {
    fn load(
        weights: &Weights,
        name: &str,
        config: &Config,
        inputs: usize,
        outputs: usize,
    ) -> std::result::Result<Self, LoadError> {
        let weight = weights.tensor(&format!("{name}.weight"), &[outputs, inputs, config.kernel, config.kernel])?;
        let bias = weights.tensor(&format!("{name}.bias"), &[outputs])?;
        let bias = bias.reshape((1, outputs, 1, 1)).map_err(|source| weights.error(source))?;
        Ok(Self { weight, bias, padding: config.padding })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.conv2d(&self.weight, self.padding, 1, 1, 1)?.broadcast_add(&self.bias)
    }
}
