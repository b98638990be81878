//! A linear layer over rows, as candle's tensors or packed for the CPU's kernels.

use candle_core::{Result, Tensor};
use sconce_kernels::KernelError;
use sconce_kernels::linear::{Linear, WeightFormat};

use crate::{LoadError, Weights};

/// A linear layer, `x·Wᵀ + b` over the last dimension.
#[derive(Debug, Clone)]
pub(crate) struct DenseTensors {
    /// `[outputs, inputs]`
    weight: Tensor,
    bias: Tensor,
}

impl DenseTensors {
    /// Reads `{name}.weight` of shape `[outputs, inputs]` and `{name}.bias`.
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

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)
    }
}

/// Reads the same tensors as [`DenseTensors::load`], packed in f32 for the CPU.
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

/// Turns a kernel's refusal of weights into an error of their file.
pub(crate) fn fits<T>(
    weights: &Weights,
    part: std::result::Result<T, KernelError>,
) -> std::result::Result<T, LoadError> {
    part.map_err(|error| weights.kernel_error(error))
}
