//! The weights of a layer as a model ships them, from which every engine makes what it computes with.

use super::EncoderLayer;
use crate::KernelError;
use crate::linear::{Activation, Linear, WeightFormat};
use crate::residual_norm::LayerNorm;

/// A linear layer.
#[derive(Debug, Clone, Default)]
pub struct Dense {
    /// `[outputs, inputs]`
    pub weight: Vec<f32>,
    /// One per output.
    pub bias: Vec<f32>,
}

impl Dense {
    /// Packed for the CPU.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn pack(&self, inputs: usize, format: WeightFormat) -> Result<Linear, KernelError> {
        Linear::new(&self.weight, Some(&self.bias), inputs, self.bias.len(), format)
    }
}

/// One layer of an encoder.
#[derive(Debug)]
pub struct LayerWeights {
    /// Query, key and value in one product, from `hidden` to `3·hidden`; the query is already divided by `√(head size)`.
    pub query_key_value: Dense,
    /// The projection after attention.
    pub attention_output: Dense,
    /// The norm after attention.
    pub attention_norm: LayerNorm,
    /// From `hidden` to the inner size.
    pub up: Dense,
    /// What follows `up`.
    pub activation: Activation,
    /// Back to `hidden`.
    pub down: Dense,
    /// The norm at the end.
    pub output_norm: LayerNorm,
}

impl LayerWeights {
    /// Packed for the CPU.
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
