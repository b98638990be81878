//! An encoder described as data. Three engines read the description: the CPU's kernels, CUDA's kernels and candle's
//! operations. All run every encoder that can be described, CUDA's up to the sizes that its kernels take.
//!
//! A description holds sizes, norms, positions, attention and activations, but no weights and no names of tensors.

use crate::KernelError;
use crate::bias_gelu::GeluForm;
use crate::pooling::Pooling;

/// A transformer encoder (Vaswani et al., arXiv:1706.03762) with a head.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderSpec {
    /// Number of elements of a token's vector.
    pub hidden: usize,
    /// The step from token ids to vectors.
    pub embeddings: EmbeddingSpec,
    /// A learned number that is added to a score by the distance of query and key, the same in all blocks.
    pub relative_bias: Option<RelativeBias>,
    /// The blocks, in order.
    pub blocks: Vec<BlockSpec>,
    /// Times that each block runs, one after the other, before the next: 1, or more where layers share weights (ALBERT,
    /// Lan et al., arXiv:1909.11942).
    pub block_runs: usize,
    /// The norm after the last block, usual with [`NormOrder::Pre`].
    pub final_norm: Option<NormSpec>,
    /// The step from token vectors to the answer.
    pub head: HeadSpec,
}

/// Embeddings: the sum of one row of each table, then a norm, then a product if the rows are narrower than `hidden`.
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
    /// Number of elements of a row, if a product with a bias makes vectors of `hidden` from them (ELECTRA, Clark et al.,
    /// arXiv:2003.10555).
    pub projected_from: Option<usize>,
}

/// A table of learned position vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionTable {
    /// Number of rows.
    pub rows: usize,
    /// The row of a sequence's first token: 0 in BERT, 2 in RoBERTa.
    pub first: usize,
}

/// A table of biases of scores, a row for each range of distances and a column for each head (Raffel et al.,
/// arXiv:1910.10683).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativeBias {
    /// Number of rows: half for keys before the query, half for keys after it.
    pub buckets: usize,
    /// The distance from which on all keys of one side share a row.
    pub max_distance: usize,
}

impl RelativeBias {
    /// The row for a key that lies `distance` tokens after its query (before it, if negative): each distance up to a
    /// quarter of the rows has its own, longer ones share a row by their logarithm. Computed in f32, as in Hugging Face's
    /// MPNet.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a logarithm of at least 0, rounded down"
    )]
    pub fn bucket(self, distance: isize) -> usize {
        let of_side = self.buckets / 2;
        let side = if distance > 0 { of_side } else { 0 };
        let (distance, exact) = (distance.unsigned_abs(), of_side / 2);
        if distance < exact {
            return side + distance;
        }
        let longest = (self.max_distance as f64 / exact as f64).ln() as f32;
        let share = (distance as f32 / exact as f32).ln() / longest;
        let beyond = (share * (of_side - exact) as f32) as usize;
        side + (exact + beyond).min(of_side - 1)
    }
}

/// One layer: attention, then a feed-forward network, each with a residual connection and a norm.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSpec {
    /// The place of the norms.
    pub order: NormOrder,
    /// The norm of the first half; `None` in the first block of ModernBERT, whose input has just been normalised.
    pub attention_norm: Option<NormSpec>,
    /// The first half: attention.
    pub attention: AttentionSpec,
    /// The norm of the second half.
    pub output_norm: Option<NormSpec>,
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
    /// The way in which scores depend on positions, beside the table of positions and the relative bias.
    pub positions: AttentionPositions,
    /// The norm of each head's query and of each head's key, before they are rotated (Qwen3).
    pub head_norm: Option<NormSpec>,
    /// True if query, key and value have biases.
    pub bias: bool,
    /// True if the product after the heads has a bias.
    pub output_bias: bool,
}

/// The way in which scores depend on positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AttentionPositions {
    /// Not at all.
    None,
    /// Queries and keys are rotated by their positions.
    Rotary(Rotary),
    /// `−slope·|distance|` is added to each score, with [`AttentionSpec::alibi_slope`] (ALiBi, Press et al.,
    /// arXiv:2108.12409).
    Alibi,
}

impl AttentionSpec {
    /// The slope of a head: `2^(−8·(head+1)/n)`, where n is the largest power of two that is not above the number of
    /// heads; heads beyond n have every other slope of twice as many.
    #[must_use]
    pub fn alibi_slope(&self, head: usize) -> f32 {
        alibi_slope(head, self.heads)
    }
}

/// The slope of a head of `heads` in ALiBi.
pub(crate) fn alibi_slope(head: usize, heads: usize) -> f32 {
    let whole = 1 << heads.max(1).ilog2();
    let slope = |number: usize, of: usize| (-8.0 * (number + 1) as f64 / of as f64).exp2();
    #[expect(clippy::cast_possible_truncation, reason = "scores are f32")]
    let slope = if head < whole { slope(head, whole) } else { slope(2 * (head - whole), 2 * whole) } as f32;
    slope
}

/// Rotary positions (Su et al., arXiv:2104.09864): elements `i` and `i + head_size/2` of a head are rotated by
/// `position · base^(−2·i/head_size) / divisor`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotary {
    /// The base of the angles.
    pub base: f32,
    /// 1, or more where positions are squeezed for longer texts.
    pub divisor: f32,
}

impl Rotary {
    /// The angle of elements `i` and `i + head_size/2` at a position, in radians.
    #[must_use]
    pub fn angle(self, position: usize, i: usize, head_size: usize) -> f64 {
        position as f64 * f64::from(self.base).powf(-2.0 * i as f64 / head_size as f64) / f64::from(self.divisor)
    }
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
    /// True if the products into the inner vector have biases.
    pub bias: bool,
    /// True if the product out of it has a bias.
    pub output_bias: bool,
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

/// The step from token vectors to the answer: rows, and what is done with each.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadSpec {
    /// The rows that the steps start from.
    pub rows: HeadRows,
    /// The steps, in order, each applied to every row.
    pub steps: Vec<HeadStep>,
}

/// The rows that a head starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadRows {
    /// One row per sequence: its pooled vectors, side by side.
    Pooled(Vec<Pooling>),
    /// One row per token; the answer is all of them, end to end.
    Tokens,
    /// One row per token; the answer is `ln(1 + max(x, 0))` of the greatest of each column (SPLADE, Formal et al.,
    /// arXiv:2109.10086).
    Sparse,
}

/// A step of a head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeadStep {
    /// `function(x·Wᵀ + b)`
    Product {
        /// Number of elements of the result.
        outputs: usize,
        /// True if there is a bias.
        bias: bool,
        /// The function of the result.
        function: HeadFunction,
    },
    /// A norm.
    Norm(NormSpec),
}

/// The function of a step of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFunction {
    /// `x`.
    Identity,
    /// `tanh(x)`.
    Tanh,
    /// `max(x, 0)`.
    Relu,
    /// GELU, as in [`crate::bias_gelu`].
    Gelu(GeluForm),
    /// `x / (1 + e⁻ˣ)`.
    Silu,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
}

impl HeadSpec {
    /// A head that gives the pooled vector.
    #[must_use]
    pub fn pooled(pooling: Pooling) -> Self {
        Self { rows: HeadRows::Pooled(vec![pooling]), steps: Vec::new() }
    }

    /// Number of elements of a row after the last step, if token vectors have `hidden`.
    #[must_use]
    pub fn outputs(&self, hidden: usize) -> usize {
        let widths = self.steps.iter().rev().find_map(|step| match step {
            HeadStep::Product { outputs, .. } => Some(*outputs),
            HeadStep::Norm(_) => None,
        });
        widths.unwrap_or_else(|| self.inputs(hidden))
    }

    /// Number of elements of a row before the first step.
    #[must_use]
    pub fn inputs(&self, hidden: usize) -> usize {
        match &self.rows {
            HeadRows::Pooled(poolings) => poolings.len() * hidden,
            HeadRows::Tokens | HeadRows::Sparse => hidden,
        }
    }
}

impl EncoderSpec {
    /// Number of elements of a row of the head.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.head.outputs(self.hidden)
    }

    /// Number of elements of a row of the tables.
    #[must_use]
    pub fn embedding_size(&self) -> usize {
        self.embeddings.projected_from.unwrap_or(self.hidden)
    }

    /// Most tokens of a sequence; `None` if there is no table of positions.
    #[must_use]
    pub fn max_tokens(&self) -> Option<usize> {
        self.embeddings.positions.map(|table| table.rows.saturating_sub(table.first))
    }

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`KernelError::Mismatch`] names the first size that does not, with its value.
    pub fn check(&self) -> Result<(), KernelError> {
        let EmbeddingSpec { words, positions, projected_from, .. } = self.embeddings;
        let refuse = |what: String| Err(KernelError::Mismatch { what });
        for (name, size) in [
            ("hidden", self.hidden),
            ("words", words),
            ("projected_from", projected_from.unwrap_or(1)),
            ("block_runs", self.block_runs),
        ] {
            if size == 0 {
                return refuse(format!("{name} is 0; it must be 1 or more"));
            }
        }
        if let Some(PositionTable { rows, first }) = positions
            && first >= rows
        {
            return refuse(format!("the first position is row {first} of {rows}; it must be within the table"));
        }
        if let Some(RelativeBias { buckets, max_distance }) = self.relative_bias
            && (buckets < 4 || !buckets.is_multiple_of(2) || max_distance <= buckets / 4)
        {
            let what = "buckets must be even and 4 or more, the largest distance more than a quarter of them";
            return refuse(format!("a relative bias of {buckets} buckets up to {max_distance}: {what}"));
        }
        self.blocks.iter().enumerate().try_for_each(|(index, block)| self.check_block(index, block))
    }

    fn check_block(&self, index: usize, block: &BlockSpec) -> Result<(), KernelError> {
        let AttentionSpec { heads, key_value_heads, head_size, positions, .. } = block.attention;
        let refuse = |what: String| Err(KernelError::Mismatch { what: format!("block {index}: {what}") });
        let sizes = [("heads", heads), ("key_value_heads", key_value_heads), ("head_size", head_size)];
        for (name, size) in sizes.into_iter().chain([("inner", block.feed_forward.inner)]) {
            if size == 0 {
                return refuse(format!("{name} is 0; it must be 1 or more"));
            }
        }
        if !heads.is_multiple_of(key_value_heads) {
            return refuse(format!("{heads} heads cannot share {key_value_heads} heads of keys; it must divide them"));
        }
        if let AttentionPositions::Rotary(Rotary { base, divisor }) = positions {
            if !head_size.is_multiple_of(2) {
                return refuse(format!("head_size is {head_size}; rotary positions need an even size"));
            }
            if !(base > 0.0 && base.is_finite() && divisor > 0.0 && divisor.is_finite()) {
                return refuse(format!("rotary positions of base {base} and divisor {divisor}; both must be above 0"));
            }
        }
        if self.relative_bias.is_some() && heads != self.blocks[0].attention.heads {
            let first = self.blocks[0].attention.heads;
            return refuse(format!(
                "{heads} heads share a relative bias with {first} of block 0; they must be as many"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bert() -> EncoderSpec {
        let norm = Some(NormSpec { kind: NormKind::Layer { bias: true }, eps: 1e-12 });
        let block = BlockSpec {
            order: NormOrder::Post,
            attention_norm: norm,
            output_norm: norm,
            attention: AttentionSpec {
                heads: 2,
                key_value_heads: 2,
                head_size: 4,
                mask: Mask::Full,
                positions: AttentionPositions::None,
                head_norm: None,
                bias: true,
                output_bias: true,
            },
            feed_forward: FeedForwardSpec {
                inner: 16,
                function: InnerFunction::Gelu(GeluForm::Erf),
                gated: false,
                bias: true,
                output_bias: true,
            },
        };
        EncoderSpec {
            hidden: 8,
            embeddings: EmbeddingSpec {
                words: 10,
                positions: Some(PositionTable { rows: 20, first: 2 }),
                segments: 2,
                norm,
                projected_from: None,
            },
            relative_bias: None,
            blocks: vec![block; 2],
            block_runs: 1,
            final_norm: None,
            head: HeadSpec::pooled(Pooling::Mean),
        }
    }

    #[test]
    fn a_relative_bias_has_a_row_for_each_short_distance_and_shares_rows_for_long_ones() {
        let bias = RelativeBias { buckets: 32, max_distance: 128 };
        let distances = [0, -1, -7, -8, -11, -12, -15, -16, -31, -32, -63, -64, -127, -128, -5000, 1, 7, 8, 128];
        let rows = distances.map(|distance| bias.bucket(distance));
        assert_eq!(rows, [0, 1, 7, 8, 8, 9, 9, 10, 11, 12, 13, 14, 15, 15, 15, 17, 23, 24, 31]);
    }

    #[test]
    fn slopes_of_a_number_of_heads_that_is_no_power_of_two_are_those_of_the_next_ones() {
        let attention = AttentionSpec { heads: 6, ..bert().blocks[0].attention };
        let slopes: Vec<f32> = (0..6).map(|head| attention.alibi_slope(head)).collect();
        assert_eq!(slopes, [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.5, 0.125]);
    }

    #[test]
    fn a_sequence_is_as_long_as_the_positions_behind_the_first() {
        assert_eq!(bert().max_tokens(), Some(18));
    }

    #[test]
    fn sizes_that_do_not_fit_are_named_with_their_values() {
        assert_eq!(bert().check(), Ok(()));
        let refused = |change: fn(&mut EncoderSpec)| {
            let mut spec = bert();
            change(&mut spec);
            spec.check().unwrap_err().to_string()
        };
        let rotary = |base, divisor| AttentionPositions::Rotary(Rotary { base, divisor });
        assert_eq!(refused(|spec| spec.hidden = 0), "hidden is 0; it must be 1 or more");
        assert_eq!(refused(|spec| spec.block_runs = 0), "block_runs is 0; it must be 1 or more");
        assert_eq!(refused(|spec| spec.blocks[1].feed_forward.inner = 0), "block 1: inner is 0; it must be 1 or more");
        let first = refused(|spec| spec.embeddings.positions = Some(PositionTable { rows: 2, first: 2 }));
        assert!(first.contains("row 2 of 2"), "{first}");
        let heads = refused(|spec| spec.blocks[0].attention.heads = 3);
        assert!(heads.contains("3 heads cannot share 2 heads"), "{heads}");
        let relative = refused(|spec| spec.relative_bias = Some(RelativeBias { buckets: 3, max_distance: 9 }));
        assert!(relative.contains("3 buckets up to 9"), "{relative}");
        for (head_size, positions, part) in [
            (5, rotary(10_000.0, 1.0), "head_size is 5"),
            (4, rotary(0.0, 1.0), "base 0"),
            (4, rotary(10_000.0, f32::NAN), "divisor NaN"),
        ] {
            let mut spec = bert();
            (spec.blocks[1].attention.head_size, spec.blocks[1].attention.positions) = (head_size, positions);
            let message = spec.check().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let mut spec = bert();
        spec.relative_bias = Some(RelativeBias { buckets: 32, max_distance: 128 });
        assert_eq!(spec.check(), Ok(()));
        (spec.blocks[1].attention.heads, spec.blocks[1].attention.key_value_heads) = (4, 4);
        assert!(spec.check().unwrap_err().to_string().contains("4 heads share a relative bias with 2"));
    }
}
