//! The weights of an encoder, read part by part from a file by the names that a family gives them.

use sconce_kernels::KernelError;
use sconce_kernels::embedding::{Embeddings, Table, TableFormat};
use sconce_kernels::encoder::{
    AttentionSpec, BlockSpec, Dense, EncoderSpec, FeedForwardSpec, FusedBlocks, HeadSpec, LayerWeights, NormKind,
    NormSpec,
};
use sconce_kernels::residual_norm::LayerNorm;

use crate::{LoadError, Weights};

/// A part of an encoder that has a weight, and a bias if the spec gives it one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncoderPart {
    /// The table of words.
    Words,
    /// The table of positions.
    Positions,
    /// The table of segments.
    Segments,
    /// The norm of the embeddings.
    EmbeddingNorm,
    /// A part of a block, by the number of the block.
    Block(usize, BlockPart),
    /// The norm after the last block.
    FinalNorm,
    /// The first product of a classifier.
    Pooler,
    /// The second product of a classifier.
    Classifier,
}

/// A part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockPart {
    /// The product from `hidden` to the queries.
    Query,
    /// The product from `hidden` to the keys.
    Key,
    /// The product from `hidden` to the values.
    Value,
    /// The product from the heads back to `hidden`.
    AttentionOutput,
    /// The norm of the attention half, before or after it by the spec's order.
    AttentionNorm,
    /// The product from `hidden` to the gate of the inner vector.
    Gate,
    /// The product from `hidden` to the inner vector.
    Up,
    /// The product from the inner vector back to `hidden`.
    Down,
    /// The norm of the feed-forward half, before or after it by the spec's order.
    OutputNorm,
}

/// The names of a family's tensors, without the endings `.weight` and `.bias`. The names of parts that a family lacks
/// are empty.
#[derive(Debug, Clone, Copy)]
pub struct TensorNames {
    /// Prefix of all names but the head's in files of models with a head, such as `bert.`. Used if the file has the
    /// table of words under it.
    pub optional_prefix: &'static str,
    /// Name of [`EncoderPart::Words`].
    pub words: &'static str,
    /// Name of [`EncoderPart::Positions`].
    pub positions: &'static str,
    /// Name of [`EncoderPart::Segments`].
    pub segments: &'static str,
    /// Name of [`EncoderPart::EmbeddingNorm`].
    pub embedding_norm: &'static str,
    /// Name of the blocks; their parts are named `{blocks}.{number}.{part}`, numbered from 0.
    pub blocks: &'static str,
    /// Name of [`BlockPart::Query`].
    pub query: &'static str,
    /// Name of [`BlockPart::Key`].
    pub key: &'static str,
    /// Name of [`BlockPart::Value`].
    pub value: &'static str,
    /// Name of [`BlockPart::AttentionOutput`].
    pub attention_output: &'static str,
    /// Name of [`BlockPart::AttentionNorm`].
    pub attention_norm: &'static str,
    /// Name of [`BlockPart::Gate`].
    pub gate: &'static str,
    /// Name of [`BlockPart::Up`].
    pub up: &'static str,
    /// Name of [`BlockPart::Down`].
    pub down: &'static str,
    /// Name of [`BlockPart::OutputNorm`].
    pub output_norm: &'static str,
    /// Name of [`EncoderPart::FinalNorm`].
    pub final_norm: &'static str,
    /// Name of [`EncoderPart::Pooler`], which no prefix precedes.
    pub pooler: &'static str,
    /// Name of [`EncoderPart::Classifier`], which no prefix precedes.
    pub classifier: &'static str,
}

impl TensorNames {
    /// Empty names, for a family to fill in.
    pub const NONE: Self = Self {
        optional_prefix: "",
        words: "",
        positions: "",
        segments: "",
        embedding_norm: "",
        blocks: "",
        query: "",
        key: "",
        value: "",
        attention_output: "",
        attention_norm: "",
        gate: "",
        up: "",
        down: "",
        output_norm: "",
        final_norm: "",
        pooler: "",
        classifier: "",
    };

    pub(super) fn of(&self, part: EncoderPart) -> String {
        let name = match part {
            EncoderPart::Words => self.words,
            EncoderPart::Positions => self.positions,
            EncoderPart::Segments => self.segments,
            EncoderPart::EmbeddingNorm => self.embedding_norm,
            EncoderPart::FinalNorm => self.final_norm,
            EncoderPart::Pooler => self.pooler,
            EncoderPart::Classifier => self.classifier,
            EncoderPart::Block(index, part) => return format!("{}.{index}.{}", self.blocks, self.of_block(part)),
        };
        name.to_owned()
    }

    fn of_block(&self, part: BlockPart) -> &'static str {
        match part {
            BlockPart::Query => self.query,
            BlockPart::Key => self.key,
            BlockPart::Value => self.value,
            BlockPart::AttentionOutput => self.attention_output,
            BlockPart::AttentionNorm => self.attention_norm,
            BlockPart::Gate => self.gate,
            BlockPart::Up => self.up,
            BlockPart::Down => self.down,
            BlockPart::OutputNorm => self.output_norm,
        }
    }
}

/// A reader of an encoder's weights, one part at a time, so that no model is in memory twice.
#[derive(Clone, Copy)]
pub struct EncoderWeights<'a> {
    spec: &'a EncoderSpec,
    weights: &'a Weights,
    names: &'a TensorNames,
    /// Prefix of the names of all parts but the head's.
    prefix: &'a str,
}

impl<'a> EncoderWeights<'a> {
    /// The weights of `spec` in a file, under the given names.
    #[must_use]
    pub fn new(spec: &'a EncoderSpec, weights: &'a Weights, names: &'a TensorNames) -> Self {
        let has_prefix = weights.contains(&format!("{}{}.weight", names.optional_prefix, names.words));
        Self { spec, weights, names, prefix: if has_prefix { names.optional_prefix } else { "" } }
    }

    /// The spec of the encoder.
    #[must_use]
    pub fn spec(&self) -> &'a EncoderSpec {
        self.spec
    }

    /// The elements of a part's weight in f32, row by row: `[outputs, inputs]` for a product, `[rows, hidden]` for a
    /// table.
    ///
    /// # Errors
    /// [`LoadError::Weights`] names a tensor that is missing or does not fit the spec.
    pub fn weight(&self, part: EncoderPart) -> Result<Vec<f32>, LoadError> {
        self.weights.values(&format!("{}.weight", self.name(part)), &self.shape(part))
    }

    /// The elements of a part's bias in f32, one for each output; `None` if the spec gives it none.
    ///
    /// # Errors
    /// [`LoadError::Weights`] names a tensor that is missing or does not fit the spec.
    pub fn bias(&self, part: EncoderPart) -> Result<Option<Vec<f32>>, LoadError> {
        let bias = |part| self.weights.values(&format!("{}.bias", self.name(part)), &self.shape(part)[..1]);
        self.has_bias(part).then(|| bias(part)).transpose()
    }

    /// Columns of a product's weight.
    pub(crate) fn inputs(&self, part: EncoderPart) -> usize {
        self.shape(part)[1]
    }

    /// The file.
    pub(crate) fn file(&self) -> &'a Weights {
        self.weights
    }

    /// The tables and the norm of the embeddings, as the fused engines take them.
    pub(crate) fn embeddings(&self, format: TableFormat) -> Result<Embeddings, LoadError> {
        let EncoderSpec { hidden, embeddings, .. } = self.spec;
        let mut positions = self.weight(EncoderPart::Positions)?;
        positions.drain(..embeddings.positions.map_or(0, |table| table.first) * hidden);
        // The fused engines always add a row of segments: without a table, a row of zeros.
        let segments = if embeddings.segments == 0 { vec![0.0; *hidden] } else { self.weight(EncoderPart::Segments)? };
        let table = |values| self.fits(Table::new(values, *hidden, format));
        let norm = self.layer_norm(EncoderPart::EmbeddingNorm)?;
        self.fits(Embeddings::new(table(self.weight(EncoderPart::Words)?)?, table(positions)?, table(segments)?, norm))
    }

    /// A block, as the fused engines take it.
    pub(crate) fn block(&self, index: usize, fused: FusedBlocks) -> Result<LayerWeights, LoadError> {
        let part = |part| EncoderPart::Block(index, part);
        Ok(LayerWeights {
            query_key_value: self.query_key_value(index)?,
            attention_output: self.dense(part(BlockPart::AttentionOutput))?,
            attention_norm: self.layer_norm(part(BlockPart::AttentionNorm))?,
            up: self.dense(part(BlockPart::Up))?,
            activation: fused.activation,
            down: self.dense(part(BlockPart::Down))?,
            output_norm: self.layer_norm(part(BlockPart::OutputNorm))?,
        })
    }

    /// A product, as the fused engines take it: a missing bias becomes zeros.
    pub(crate) fn dense(&self, part: EncoderPart) -> Result<Dense, LoadError> {
        let (weight, bias) = (self.weight(part)?, self.bias(part)?);
        let bias = bias.unwrap_or_else(|| vec![0.0; self.shape(part)[0]]);
        Ok(Dense { weight, bias })
    }

    /// Turns a kernel's refusal of a part into an error of the weights file, or of the device if it is out of memory or
    /// lost.
    pub(crate) fn fits<T>(&self, part: Result<T, KernelError>) -> Result<T, LoadError> {
        part.map_err(|error| self.weights.kernel_error(error))
    }

    /// One product for query, key and value. The query's weights are multiplied by 1/√(head size), so that no score has
    /// to be.
    fn query_key_value(&self, index: usize) -> Result<Dense, LoadError> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for part in [BlockPart::Query, BlockPart::Key, BlockPart::Value] {
            let dense = self.dense(EncoderPart::Block(index, part))?;
            weight.extend(dense.weight);
            bias.extend(dense.bias);
        }
        let query = self.shape(EncoderPart::Block(index, BlockPart::Query));
        let factor = (self.spec.blocks[index].attention.head_size as f32).sqrt().recip();
        weight[..query[0] * query[1]].iter_mut().chain(&mut bias[..query[0]]).for_each(|x| *x *= factor);
        Ok(Dense { weight, bias })
    }

    fn layer_norm(&self, part: EncoderPart) -> Result<LayerNorm, LoadError> {
        let NormSpec { eps, .. } = *self.norm(part).expect("the caller has a part that is a norm");
        let bias = self.bias(part)?.unwrap_or_else(|| vec![0.0; self.spec.hidden]);
        self.fits(LayerNorm::new(self.weight(part)?, bias, eps))
    }

    fn name(&self, part: EncoderPart) -> String {
        let prefix = if matches!(part, EncoderPart::Pooler | EncoderPart::Classifier) { "" } else { self.prefix };
        format!("{prefix}{}", self.names.of(part))
    }

    /// The shape of a part's weight. Its bias has as many elements as the first dimension.
    pub(super) fn shape(&self, part: EncoderPart) -> Vec<usize> {
        let EncoderSpec { hidden, embeddings, blocks, head, .. } = self.spec;
        let (hidden, outputs) = (
            *hidden,
            match head {
                HeadSpec::Pool(_) => 0,
                HeadSpec::Classifier { outputs, .. } => *outputs,
            },
        );
        match part {
            EncoderPart::Words => vec![embeddings.words, hidden],
            EncoderPart::Positions => vec![embeddings.positions.map_or(0, |table| table.rows), hidden],
            EncoderPart::Segments => vec![embeddings.segments, hidden],
            EncoderPart::EmbeddingNorm | EncoderPart::FinalNorm => vec![hidden],
            EncoderPart::Pooler => vec![hidden, hidden],
            EncoderPart::Classifier => vec![outputs, hidden],
            EncoderPart::Block(index, part) => {
                let BlockSpec { attention, feed_forward: FeedForwardSpec { inner, .. }, .. } = blocks[index];
                let AttentionSpec { heads, key_value_heads, head_size, .. } = attention;
                match part {
                    BlockPart::Query => vec![heads * head_size, hidden],
                    BlockPart::Key | BlockPart::Value => vec![key_value_heads * head_size, hidden],
                    BlockPart::AttentionOutput => vec![hidden, heads * head_size],
                    BlockPart::Gate | BlockPart::Up => vec![inner, hidden],
                    BlockPart::Down => vec![hidden, inner],
                    BlockPart::AttentionNorm | BlockPart::OutputNorm => vec![hidden],
                }
            }
        }
    }

    pub(super) fn has_bias(&self, part: EncoderPart) -> bool {
        if let Some(norm) = self.norm(part) {
            return norm.kind == NormKind::Layer { bias: true };
        }
        match part {
            EncoderPart::Block(index, BlockPart::Gate | BlockPart::Up | BlockPart::Down) => {
                self.spec.blocks[index].feed_forward.bias
            }
            EncoderPart::Block(index, _) => self.spec.blocks[index].attention.bias,
            part => matches!(part, EncoderPart::Pooler | EncoderPart::Classifier),
        }
    }

    /// The spec of a part that is a norm.
    pub(crate) fn norm(&self, part: EncoderPart) -> Option<&'a NormSpec> {
        match part {
            EncoderPart::EmbeddingNorm => self.spec.embeddings.norm.as_ref(),
            EncoderPart::FinalNorm => self.spec.final_norm.as_ref(),
            EncoderPart::Block(index, BlockPart::AttentionNorm | BlockPart::OutputNorm) => {
                Some(&self.spec.blocks[index].norm)
            }
            _ => None,
        }
    }
}
