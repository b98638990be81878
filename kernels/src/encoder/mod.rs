//! Transformer encoders: their description as data ([`EncoderSpec`]), and the fused engines: [`Encoder`] on the CPU, and
//! `cuda` on GPUs.
//!
//! A fused engine is one operation on packed tokens, without padding. It executes a list of steps, made from the spec when
//! the encoder is (`steps.rs`): products, attention, and norms of sums. For a block of BERT (Devlin et al.,
//! arXiv:1810.04805), with `x` of `[tokens, hidden]`:
//!
//! ```text
//! a = layer_norm(x + output(attention(query_key_value(x))))
//! x = layer_norm(a + down(activation(up(a))))
//! ```
//!
//! On a GPU the steps become launches (`cuda/launches.rs`). On the CPU two plans execute the list: threads take whole sequences if there are enough of them (`sequences.rs`), else columns
//! of each product (`columns.rs`); `plan.rs` decides. The bits of a token's vector depend only on its own sequence, not
//! on the rest of the batch, the plan or the threads.

#[cfg(test)]
pub(crate) mod cases;
#[cfg(test)]
mod choices;
mod columns;
#[cfg(feature = "cuda")]
pub mod cuda;
mod parts;
mod plan;
mod scratch;
mod sequences;
mod spec;
mod steps;
#[cfg(test)]
mod tests;
mod weights;

use parts::EncoderParts;
use plan::{Costs, Plan};
pub use scratch::Scratch;
#[cfg(test)]
pub(crate) use sequences::rows_of;
pub(crate) use spec::alibi_slope;
pub use spec::{
    AttentionPositions, AttentionSpec, BlockSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, HeadFunction, HeadRows,
    HeadSpec, HeadStep, InnerFunction, Mask, NormKind, NormOrder, NormSpec, PositionTable, RelativeBias, Rotary,
};
use steps::Steps;
pub use weights::{Dense, EncoderLayer, LayerWeights, PackedParts};

use crate::rows::RowsMut;
use crate::simd::Isa;
use crate::{KernelError, Team};

/// An encoder on the CPU: embeddings and layers, without a head.
pub struct Encoder {
    isa: Isa,
    parts: EncoderParts,
    steps: Steps,
    costs: Costs,
}

/// The tokens of a batch, end to end.
#[derive(Debug, Clone, Copy)]
pub struct PackedTokens<'a> {
    /// Rows of the table of words.
    pub ids: &'a [u32],
    /// Rows of the table of segments, one per token; zeros if there is none.
    pub segments: &'a [u32],
    /// Number of tokens of each sequence.
    pub lengths: &'a [usize],
}

impl Encoder {
    /// Makes an encoder of its weights; the head of `spec` is not part of it.
    ///
    /// # Errors
    /// [`KernelError::Mismatch`] names the first size of the spec that does not fit the others, or the first part of the
    /// weights that does not fit the spec.
    pub fn new(spec: &EncoderSpec, weights: PackedParts) -> Result<Self, KernelError> {
        spec.check()?;
        let costs = Costs::new(spec);
        let (parts, steps) = EncoderParts::new(spec, weights)?;
        Ok(Self { isa: Isa::best(), parts, steps, costs })
    }

    /// Number of elements of a token's vector.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.parts.hidden
    }

    /// Bytes of the weights in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts.bytes()
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
        let (count, hidden) = (tokens.lengths.iter().sum::<usize>(), self.parts.hidden);
        let lengths = [tokens.ids.len(), tokens.segments.len(), out.len() / hidden];
        if lengths != [count; 3] || out.len() != count * hidden {
            let what = format!("{count} tokens, but {lengths:?} ids, segments and rows of output");
            return Err(KernelError::Mismatch { what });
        }
        self.parts.embeddings.bounds().check(tokens.ids, tokens.segments, tokens.lengths)?;
        let out = RowsMut::new(out, count, hidden, hidden);
        scratch.positions.reach(&self.parts.positions, tokens.lengths.iter().copied().max().unwrap_or(0));
        match plan::plan(tokens.lengths, team.threads().get(), self.costs, &mut scratch.parts) {
            Plan::Sequences => sequences::forward(self, team, scratch, tokens, out),
            Plan::Columns => columns::forward(self, team, scratch, tokens, out),
        }
        Ok(())
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { parts, isa, .. } = self;
        write!(f, "Encoder({} blocks of {}, {isa})", parts.heads.len(), parts.hidden)
    }
}
