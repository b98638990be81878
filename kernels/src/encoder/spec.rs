//! An encoder described as data. Three engines read the description: the CPU's kernels, CUDA's kernels, and the engine
//! of candle's operations, which alone runs every encoder that can be described.
//!
//! A description holds sizes, norms, positions, attention and activations, but no weights and no names of tensors.

use crate::bias_gelu::GeluForm;
use crate::linear::Activation;
use crate::pooling::Pooling;

/// A transformer encoder (Vaswani et al., arXiv:1706.03762) with a head.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderSpec {
    /// Number of elements of a token's vector.
    pub hidden: usize,
    /// The step from token ids to vectors.
    pub embeddings: EmbeddingSpec,
    /// The blocks, in order.
    pub blocks: Vec<BlockSpec>,
    /// The norm after the last block, usual with [`NormOrder::Pre`].
    pub final_norm: Option<NormSpec>,
    /// The step from token vectors to one row per sequence.
    pub head: HeadSpec,
}

/// Embeddings: the sum of one row of each table, then a norm.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingSpec {
    /// Rows of the table of words: the size of the vocabulary.
    pub words: usize,
    /// The table of positions, if positions are looked up.
    pub positions: Option<PositionTable>,
    /// Rows of the table of segments; 0 if there is none.
    pub segments: usize,
    /// The norm of the sum.
    pub norm: Option<NormSpec>,
}

/// A table of learned position vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionTable {
    /// Number of rows.
    pub rows: usize,
    /// The row of a sequence's first token: 0 in BERT, 2 in RoBERTa.
    pub first: usize,
}

/// One layer: attention, then a feed-forward network, each with a residual connection and a norm.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSpec {
    /// The place of the norms.
    pub order: NormOrder,
    /// The norm, the same in both halves.
    pub norm: NormSpec,
    /// The first half: attention.
    pub attention: AttentionSpec,
    /// The second half: the feed-forward network.
    pub feed_forward: FeedForwardSpec,
}

/// The place of a block's norms (Xiong et al., arXiv:2002.04745).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormOrder {
    /// `x = norm(x + f(x))`, as in BERT.
    Post,
    /// `x = x + f(norm(x))`, as in most decoders.
    Pre,
}

/// A norm over the elements of a vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// The formula.
    pub kind: NormKind,
    /// The number added to the variance, or to the mean of squares.
    pub eps: f32,
}

/// The formula of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Layer normalisation (Ba et al., arXiv:1607.06450).
    Layer {
        /// True if the norm has a bias.
        bias: bool,
    },
    /// Root mean square (Zhang and Sennrich, arXiv:1910.07467).
    Rms,
}

/// Attention of a block. Scores are divided by the square root of `head_size`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Number of heads of the queries.
    pub heads: usize,
    /// Number of heads of keys and values; fewer than `heads` if queries share them (Ainslie et al., arXiv:2305.13245).
    pub key_value_heads: usize,
    /// Number of elements of a head.
    pub head_size: usize,
    /// The keys that a query sees.
    pub mask: Mask,
    /// The base of rotary positions (Su et al., arXiv:2104.09864), if queries and keys are rotated by their positions.
    pub rotary_base: Option<f32>,
    /// True if query, key, value and output have biases.
    pub bias: bool,
}

/// The keys that a query sees, all within its own sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Every key.
    Full,
    /// Keys up to the query's own position.
    Causal,
    /// Keys at most this many positions away, in both directions.
    Window(usize),
}

/// The feed-forward network of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeedForwardSpec {
    /// Number of elements of the inner vector.
    pub inner: usize,
    /// The activation function.
    pub function: InnerFunction,
    /// True for `down(function(gate(x)) · up(x))` (Shazeer, arXiv:2002.05202); false for `down(function(up(x)))`.
    pub gated: bool,
    /// True if the products have biases.
    pub bias: bool,
}

/// The activation function of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InnerFunction {
    /// GELU, as in [`crate::bias_gelu`].
    Gelu(GeluForm),
    /// `max(x, 0)`.
    Relu,
    /// `x / (1 + e⁻ˣ)`.
    Silu,
}

/// The step from token vectors to one row per sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadSpec {
    /// The pooled vector.
    Pool(Pooling),
    /// `classifier(function(pooler(first token's vector)))`.
    Classifier {
        /// Number of elements of the row.
        outputs: usize,
        /// The function between the two products.
        function: HeadFunction,
    },
}

/// The function between the two products of a classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFunction {
    /// `tanh(x)`.
    Tanh,
    /// `max(x, 0)`.
    Relu,
}

/// The blocks of an encoder of BERT's kind, as the fused engines need them: all blocks have these sizes and this
/// activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusedBlocks {
    /// Number of heads of attention.
    pub heads: usize,
    /// Number of elements of the inner vector.
    pub inner: usize,
    /// The function after `up`.
    pub activation: Activation,
}

impl EncoderSpec {
    /// Number of elements of a row of the head.
    #[must_use]
    pub fn outputs(&self) -> usize {
        match self.head {
            HeadSpec::Pool(_) => self.hidden,
            HeadSpec::Classifier { outputs, .. } => outputs,
        }
    }

    /// Most tokens of a sequence; `None` if there is no table of positions.
    #[must_use]
    pub fn max_tokens(&self) -> Option<usize> {
        self.embeddings.positions.map(|table| table.rows.saturating_sub(table.first))
    }

    /// The blocks as the fused engines run them: all alike, with norms after each half, full attention and one product
    /// before the activation.
    ///
    /// # Errors
    /// A description of the first part that the fused engines lack. Such an encoder runs as candle's operations.
    pub fn fused(&self) -> Result<FusedBlocks, &'static str> {
        let Some(first) = self.blocks.first() else { return Err("an encoder without blocks") };
        let BlockSpec { attention, feed_forward, .. } = first;
        let layer_norm = |norm: &NormSpec| matches!(norm.kind, NormKind::Layer { .. });
        let needed = [
            (self.embeddings.positions.is_some(), "positions that are not looked up"),
            (self.embeddings.norm.as_ref().is_some_and(layer_norm), "embeddings without a layer norm"),
            (self.final_norm.is_none(), "a norm after the last block"),
            (self.blocks.iter().all(|block| block == first), "blocks that differ"),
            (first.order == NormOrder::Post, "norms before each half"),
            (layer_norm(&first.norm), "norms other than layer norms"),
            (attention.mask == Mask::Full, "masked attention"),
            (attention.key_value_heads == attention.heads, "queries that share keys"),
            (attention.heads * attention.head_size == self.hidden, "heads that do not make up the hidden vector"),
            (attention.rotary_base.is_none(), "rotary positions"),
            (!feed_forward.gated, "gated activations"),
        ];
        if let Some((_, part)) = needed.iter().find(|(has, _)| !has) {
            return Err(part);
        }
        let activation = match feed_forward.function {
            InnerFunction::Gelu(form) => Activation::Gelu(form),
            InnerFunction::Relu => Activation::Relu,
            InnerFunction::Silu => return Err("SiLU"),
        };
        Ok(FusedBlocks { heads: attention.heads, inner: feed_forward.inner, activation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bert() -> EncoderSpec {
        let norm = NormSpec { kind: NormKind::Layer { bias: true }, eps: 1e-12 };
        let block = BlockSpec {
            order: NormOrder::Post,
            norm,
            attention: AttentionSpec {
                heads: 2,
                key_value_heads: 2,
                head_size: 4,
                mask: Mask::Full,
                rotary_base: None,
                bias: true,
            },
            feed_forward: FeedForwardSpec {
                inner: 16,
                function: InnerFunction::Gelu(GeluForm::Erf),
                gated: false,
                bias: true,
            },
        };
        EncoderSpec {
            hidden: 8,
            embeddings: EmbeddingSpec {
                words: 10,
                positions: Some(PositionTable { rows: 20, first: 2 }),
                segments: 2,
                norm: Some(norm),
            },
            blocks: vec![block; 2],
            final_norm: None,
            head: HeadSpec::Pool(Pooling::Mean),
        }
    }

    #[test]
    fn the_fused_engines_have_bert_and_name_what_they_do_not_have() {
        let expected = FusedBlocks { heads: 2, inner: 16, activation: Activation::Gelu(GeluForm::Erf) };
        assert_eq!(bert().fused(), Ok(expected));
        let refused = |change: fn(&mut EncoderSpec)| {
            let mut spec = bert();
            change(&mut spec);
            spec.fused().unwrap_err()
        };
        assert_eq!(refused(|spec| spec.blocks.clear()), "an encoder without blocks");
        assert_eq!(refused(|spec| spec.blocks[1].attention.mask = Mask::Causal), "blocks that differ");
        for (change, part) in [
            (|spec: &mut EncoderSpec| spec.embeddings.positions = None) as fn(&mut EncoderSpec),
            |spec| spec.embeddings.norm = None,
            |spec| spec.final_norm = spec.embeddings.norm,
        ]
        .into_iter()
        .zip([
            "positions that are not looked up",
            "embeddings without a layer norm",
            "a norm after the last block",
        ]) {
            assert_eq!(refused(change), part);
        }
        let of_all = |change: fn(&mut BlockSpec)| {
            let mut spec = bert();
            spec.blocks.iter_mut().for_each(change);
            spec.fused().unwrap_err()
        };
        assert_eq!(of_all(|block| block.order = NormOrder::Pre), "norms before each half");
        assert_eq!(of_all(|block| block.norm.kind = NormKind::Rms), "norms other than layer norms");
        assert_eq!(of_all(|block| block.attention.mask = Mask::Window(3)), "masked attention");
        assert_eq!(of_all(|block| block.attention.key_value_heads = 1), "queries that share keys");
        assert_eq!(of_all(|block| block.attention.head_size = 2), "heads that do not make up the hidden vector");
        assert_eq!(of_all(|block| block.attention.rotary_base = Some(1e4)), "rotary positions");
        assert_eq!(of_all(|block| block.feed_forward.gated = true), "gated activations");
        assert_eq!(of_all(|block| block.feed_forward.function = InnerFunction::Silu), "SiLU");
    }

    #[test]
    fn a_sequence_is_as_long_as_the_positions_behind_the_first() {
        assert_eq!(bert().max_tokens(), Some(18));
    }
}
