//! A transformer encoder with norms after each half layer (BERT, Devlin et al., arXiv:1810.04805) as one operation on
//! packed tokens: there is no padding anywhere.
//!
//! Per layer, with `x` of `[tokens, hidden]`:
//!
//! ```text
//! a = layer_norm(x + output(attention(query_key_value(x))))
//! x = layer_norm(a + down(activation(up(a))))
//! ```
//!
//! Threads take whole sequences where there are enough of them (`sequences.rs`), else columns of each product
//! (`columns.rs`); `plan.rs` decides. The bits of a token's vector depend on its own sequence alone, never on the batch
//! around it or on the threads.

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
    AttentionSpec, BlockSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, FusedBlocks, HeadFunction, HeadSpec,
    InnerFunction, Mask, NormKind, NormOrder, NormSpec, PositionTable,
};
pub use weights::{Dense, LayerWeights};

use crate::embedding::Embeddings;
use crate::linear::{Activation, Linear};
use crate::residual_norm::LayerNorm;
use crate::rows::RowsMut;
use crate::simd::Isa;
use crate::{KernelError, Team};

/// One layer.
#[derive(Debug)]
pub struct EncoderLayer {
    /// Query, key and value in one product, from `hidden` to `3·hidden`; the query is already divided by `√(head size)`.
    pub query_key_value: Linear,
    /// The projection after attention.
    pub attention_output: Linear,
    /// The norm after attention.
    pub attention_norm: LayerNorm,
    /// From `hidden` to the inner size.
    pub up: Linear,
    /// What follows `up`.
    pub activation: Activation,
    /// Back to `hidden`.
    pub down: Linear,
    /// The norm at the end.
    pub output_norm: LayerNorm,
}

/// Embeddings and layers.
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
    /// Tokens of each sequence.
    pub lengths: &'a [usize],
}

impl Encoder {
    /// Puts the parts together.
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

    /// Elements of a token's vector.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Bytes that the weights hold in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let layer = |layer: &EncoderLayer| {
            [&layer.query_key_value, &layer.attention_output, &layer.up, &layer.down].map(Linear::bytes)
        };
        self.embeddings.bytes() + self.layers.iter().flat_map(layer).sum::<usize>()
    }

    /// Writes one vector per token: `out` is `[tokens, hidden]`. With the same `scratch` it allocates nothing once it
    /// has seen batches as large.
    ///
    /// # Errors
    /// If the lengths do not add up, or a number is in no table. Nothing is written then.
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
