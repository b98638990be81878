//! Transformer encoders: their description as data ([`EncoderSpec`]), and the fused engines ([`Encoder`] on the CPU,
//! `cuda` on GPUs) for those of BERT's kind, with norms after each half layer (Devlin et al., arXiv:1810.04805).
//!
//! A fused engine is one operation on packed tokens, without padding. Per layer, with `x` of `[tokens, hidden]`:
//!
//! ```text
//! a = layer_norm(x + output(attention(query_key_value(x))))
//! x = layer_norm(a + down(activation(up(a))))
//! ```
//!
//! On the CPU, threads take whole sequences if there are enough of them (`sequences.rs`), else columns of each product
//! (`columns.rs`); `plan.rs` decides. The bits of a token's vector depend only on its own sequence, not on the rest of
//! the batch or on the threads.

#[cfg(test)]
pub(crate) mod cases;
mod columns;
#[cfg(feature = "cuda")]
pub mod cuda;
mod plan;
mod scratch;
mod sequences;
mod spec;
#[cfg(test)]
mod tests;
mod weights;

use plan::{Costs, Plan};
pub use scratch::Scratch;
#[cfg(test)]
pub(crate) use sequences::rows_of;
pub use spec::{
    AttentionPositions, AttentionSpec, BlockSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, FusedBlocks,
    HeadFunction, HeadRows, HeadSpec, HeadStep, InnerFunction, Mask, NormKind, NormOrder, NormSpec, PositionTable,
    RelativeBias, Rotary,
};
pub use weights::{Dense, LayerWeights};

use crate::embedding::Embeddings;
use crate::linear::{Activation, Linear};
use crate::residual_norm::LayerNorm;
use crate::rows::RowsMut;
use crate::simd::Isa;
use crate::{KernelError, Team};

/// One layer with its weights packed for the CPU.
#[derive(Debug)]
pub struct EncoderLayer {
    /// Query, key and value in one product, from `hidden` to `3·hidden`; the query is already divided by `√(head size)`.
    pub query_key_value: Linear,
    /// The projection after attention.
    pub attention_output: Linear,
    /// The norm after attention.
    pub attention_norm: LayerNorm,
    /// The product from `hidden` to the inner size.
    pub up: Linear,
    /// The activation after `up`.
    pub activation: Activation,
    /// The product from the inner size back to `hidden`.
    pub down: Linear,
    /// The norm at the end of the layer.
    pub output_norm: LayerNorm,
}

/// An encoder on the CPU: embeddings and layers, without a head.
pub struct Encoder {
    isa: Isa,
    embeddings: Embeddings,
    layers: Vec<EncoderLayer>,
    heads: usize,
    hidden: usize,
    inner: usize,
}

/// The tokens of a batch, end to end.
#[derive(Debug, Clone, Copy)]
pub struct PackedTokens<'a> {
    /// Rows of the table of words.
    pub ids: &'a [u32],
    /// Rows of the table of segments, one per token.
    pub segments: &'a [u32],
    /// Number of tokens of each sequence.
    pub lengths: &'a [usize],
}

impl Encoder {
    /// Makes an encoder of its parts.
    ///
    /// # Errors
    /// [`KernelError::Mismatch`] names the first part that does not fit the width of the embeddings.
    pub fn new(embeddings: Embeddings, layers: Vec<EncoderLayer>, heads: usize) -> Result<Self, KernelError> {
        let (hidden, isa) = (embeddings.columns(), Isa::best());
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(KernelError::Mismatch { what: format!("{heads} heads do not divide vectors of {hidden}") });
        }
        let inner = layers.first().map_or(hidden, |layer| layer.up.outputs());
        for (index, layer) in layers.iter().enumerate() {
            let linears = [
                ("query_key_value", &layer.query_key_value, hidden, 3 * hidden),
                ("attention_output", &layer.attention_output, hidden, hidden),
                ("up", &layer.up, hidden, inner),
                ("down", &layer.down, inner, hidden),
            ];
            for (name, linear, inputs, outputs) in linears {
                if (linear.inputs(), linear.outputs()) != (inputs, outputs) {
                    let what = format!("layer {index}: {name} must be {inputs} to {outputs}, but is {linear:?}");
                    return Err(KernelError::Mismatch { what });
                }
            }
            for (name, norm) in [("attention_norm", &layer.attention_norm), ("output_norm", &layer.output_norm)] {
                if norm.columns() != hidden {
                    let what = format!("layer {index}: {name} has {} columns, not {hidden}", norm.columns());
                    return Err(KernelError::Mismatch { what });
                }
            }
        }
        Ok(Self { isa, embeddings, layers, heads, hidden, inner })
    }

    /// Number of elements of a token's vector.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Bytes of the weights in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let layer = |layer: &EncoderLayer| {
            [&layer.query_key_value, &layer.attention_output, &layer.up, &layer.down].map(Linear::bytes)
        };
        self.embeddings.bytes() + self.layers.iter().flat_map(layer).sum::<usize>()
    }

    /// Writes one vector per token: `out` is `[tokens, hidden]`. With the same `scratch`, it allocates nothing after the
    /// first batch of the largest size.
    ///
    /// # Errors
    /// If the lengths do not add up, a sequence is empty or too long, or an id is beyond its table. Nothing is written
    /// then.
    pub fn forward(
        &self,
        team: &Team,
        scratch: &mut Scratch,
        tokens: PackedTokens<'_>,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let count: usize = tokens.lengths.iter().sum();
        let lengths = [tokens.ids.len(), tokens.segments.len(), out.len() / self.hidden];
        if lengths != [count; 3] || out.len() != count * self.hidden {
            let what = format!("{count} tokens, but {lengths:?} ids, segments and rows of output");
            return Err(KernelError::Mismatch { what });
        }
        self.embeddings.bounds().check(tokens.ids, tokens.segments, tokens.lengths)?;
        let out = RowsMut::new(out, count, self.hidden, self.hidden);
        let costs = Costs { hidden: self.hidden, inner: self.inner };
        match plan::plan(tokens.lengths, team.threads().get(), costs, &mut scratch.parts) {
            Plan::Sequences => sequences::forward(self, team, scratch, tokens, out),
            Plan::Columns => columns::forward(self, team, scratch, tokens, out),
        }
        Ok(())
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { hidden, inner, heads, isa, .. } = self;
        write!(f, "Encoder({} layers of {hidden}/{inner}, {heads} heads, {isa})", self.layers.len())
    }
}
