//! A linear layer over rows: of candle's tensors, or packed for the CPU.

use candle_core::{Error, Result, Tensor};
use sconce_kernels::KernelError;
use sconce_kernels::linear::{Linear, WeightFormat};

use crate::{LoadError, Weights};

/// `x·Wᵀ + b` over the last dimension.
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    /// `[outputs, inputs]`
    weight: Tensor,
    bias: Tensor,
}

impl Dense {
    /// `{name}.weight` of shape `[outputs, inputs]` and `{name}.bias`.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> std::result::Result<Self, LoadError> {
        let weight = weights.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = weights.tensor(&format!("{name}.bias"), &[outputs])?;
        Ok(Self { weight, bias })
    }

    /// One layer that gives the outputs of several side by side.
    pub(crate) fn fused(layers: &[Self]) -> Result<Self> {
        let weights: Vec<&Tensor> = layers.iter().map(|layer| &layer.weight).collect();
        let biases: Vec<&Tensor> = layers.iter().map(|layer| &layer.bias).collect();
        Ok(Self { weight: Tensor::cat(&weights, 0)?, bias: Tensor::cat(&biases, 0)? })
    }

    /// The layer whose output is that of this one times `factor`.
    pub(crate) fn scaled(&self, factor: f64) -> Result<Self> {
        Ok(Self { weight: (&self.weight * factor)?, bias: (&self.bias * factor)? })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.product(x)?.broadcast_add(&self.bias)
    }

    /// Without the bias, for a kernel that adds it.
    pub(crate) fn product(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight.t()?)
    }

    pub(crate) fn bias(&self) -> &Tensor {
        &self.bias
    }
}

/// [`Dense`] in f32 for the engines of the CPU.
pub(crate) fn packed_linear(
    weights: &Weights,
    name: &str,
    inputs: usize,
    outputs: usize,
) -> std::result::Result<Linear, LoadError> {
    let weight = weights.values(&format!("{name}.weight"), &[outputs, inputs])?;
    let bias = weights.values(&format!("{name}.bias"), &[outputs])?;
    fits(weights, Linear::new(&weight, Some(&bias), inputs, outputs, WeightFormat::F32))
}

/// A kernel that refuses what this file holds is an error of the file.
pub(crate) fn fits<T>(
    weights: &Weights,
    part: std::result::Result<T, KernelError>,
) -> std::result::Result<T, LoadError> {
    part.map_err(|error| weights.error(Error::wrap(error)))
}
