//! Layer normalisation (Ba et al., arXiv:1607.06450) over the last dimension.

use candle_core::{Result, Tensor};
use candle_nn::ops::layer_norm;

use crate::{LoadError, Weights};

#[derive(Debug, Clone)]
pub(crate) struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl Norm {
    /// Reads `{name}.weight` and `{name}.bias`, each of `size` elements.
    pub(crate) fn load(weights: &Weights, name: &str, size: usize, eps: f32) -> std::result::Result<Self, LoadError> {
        let weight = weights.tensor(&format!("{name}.weight"), &[size])?;
        let bias = weights.tensor(&format!("{name}.bias"), &[size])?;
        Ok(Self { weight, bias, eps })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}
