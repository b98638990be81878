//! The weights of an encoder: in f32, from which each engine makes its own form, and packed for the CPU.

use crate::KernelError;
use crate::embedding::Embeddings;
use crate::linear::{Linear, WeightFormat};
use crate::residual_norm::RowNorm;

/// The weights of a linear layer.
#[derive(Debug, Clone, Default)]
pub struct Dense {
    /// The weight, `[outputs, inputs]` row by row.
    pub weight: Vec<f32>,
    /// The bias, one element per output; zeros if the layer has none.
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

    /// Columns of x.
    fn inputs(&self) -> usize {
        self.weight.len() / self.bias.len().max(1)
    }
}

/// The weights of one layer of an encoder.
#[derive(Debug)]
pub struct LayerWeights {
    /// Query, key and value in one product. The query is already divided by `√(head size)`, unless it has a norm.
    pub query_key_value: Dense,
    /// The norms of each head's query and of each head's key. The query's is already divided by `√(head size)`.
    pub head_norms: Option<[RowNorm; 2]>,
    /// The projection after attention.
    pub attention_output: Dense,
    /// The norm of the first half.
    pub attention_norm: Option<RowNorm>,
    /// The product from `hidden` to the gate of the inner vector.
    pub gate: Option<Dense>,
    /// The product from `hidden` to the inner size.
    pub up: Dense,
    /// The product from the inner size back to `hidden`.
    pub down: Dense,
    /// The norm of the second half.
    pub output_norm: Option<RowNorm>,
}

/// One layer with its weights packed for the CPU.
#[derive(Debug)]
pub struct EncoderLayer {
    /// Query, key and value in one product. The query is already divided by `√(head size)`, unless it has a norm.
    pub query_key_value: Linear,
    /// The norms of each head's query and of each head's key. The query's is already divided by `√(head size)`.
    pub head_norms: Option<[RowNorm; 2]>,
    /// The projection after attention.
    pub attention_output: Linear,
    /// The norm of the first half.
    pub attention_norm: Option<RowNorm>,
    /// The product from `hidden` to the inner size; a gated one ([`Linear::gated`]) if the spec says so.
    pub up: Linear,
    /// The product from the inner size back to `hidden`.
    pub down: Linear,
    /// The norm of the second half.
    pub output_norm: Option<RowNorm>,
}

/// The weights of an encoder packed for the CPU.
#[derive(Debug)]
pub struct PackedParts {
    /// The tables and their norm.
    pub embeddings: Embeddings,
    /// The product that makes vectors of `hidden` from rows of the tables.
    pub embedding_projection: Option<Linear>,
    /// The learned bias of scores, `[buckets, heads]`.
    pub relative_bias: Option<Vec<f32>>,
    /// The layers, in order.
    pub layers: Vec<EncoderLayer>,
    /// The norm after the last layer.
    pub final_norm: Option<RowNorm>,
}

impl LayerWeights {
    /// Packs the weights for the CPU.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn pack(self, format: WeightFormat) -> Result<EncoderLayer, KernelError> {
        let (up, hidden) = (&self.up, self.up.inputs());
        let up = match &self.gate {
            Some(gate) => {
                let products = [gate, up].map(|dense| (&dense.weight[..], &dense.bias[..]));
                Linear::gated(products, hidden, up.bias.len(), format)?
            }
            None => up.pack(hidden, format)?,
        };
        Ok(EncoderLayer {
            query_key_value: self.query_key_value.pack(self.query_key_value.inputs(), format)?,
            head_norms: self.head_norms,
            attention_output: self.attention_output.pack(self.attention_output.inputs(), format)?,
            attention_norm: self.attention_norm,
            up,
            down: self.down.pack(self.down.inputs(), format)?,
            output_norm: self.output_norm,
        })
    }
}
