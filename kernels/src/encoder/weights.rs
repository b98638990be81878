//! The weights of a layer in f32, from which each engine makes its own form.

use super::EncoderLayer;
use crate::KernelError;
use crate::linear::{Activation, Linear, WeightFormat};
use crate::residual_norm::LayerNorm;

/// The weights of a linear layer.
#[derive(Debug, Clone, Default)]
pub struct Dense {
    /// The weight, `[outputs, inputs]` row by row.
    pub weight: Vec<f32>,
    /// The bias, one element per output.
    pub bias: Vec<f32>,
}

impl Dense {
    /// Packs the weights for the CPU.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn pack(&self, inputs: usize, format: WeightFormat) -> Result<Linear, KernelError> {
        Linear::new(&self.weight, Some(&self.bias), inputs, self.bias.len(), format)
    }
}

/// The weights of one layer of an encoder.
#[derive(Debug)]
pub struct LayerWeights {
    /// Query, key and value in one product, from `hidden` to `3·hidden`; the query is already divided by `√(head size)`.
    pub query_key_value: Dense,
    /// The projection after attention.
    pub attention_output: Dense,
    /// The norm after attention.
    pub attention_norm: LayerNorm,
    /// The product from `hidden` to the inner size.
    pub up: Dense,
    /// The activation after `up`.
    pub activation: Activation,
    /// The product from the inner size back to `hidden`.
    pub down: Dense,
    /// The norm at the end of the layer.
    pub output_norm: LayerNorm,
}

impl LayerWeights {
    /// Packs the weights for the CPU.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn pack(self, format: WeightFormat) -> Result<EncoderLayer, KernelError> {
        let (hidden, inner) = (self.attention_norm.columns(), self.up.bias.len());
        Ok(EncoderLayer {
            query_key_value: self.query_key_value.pack(hidden, format)?,
            attention_output: self.attention_output.pack(hidden, format)?,
            attention_norm: self.attention_norm,
            up: self.up.pack(hidden, format)?,
            activation: self.activation,
            down: self.down.pack(inner, format)?,
            output_norm: self.output_norm,
        })
    }
}
