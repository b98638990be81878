//! The weights of an encoder, read part by part from a file by the names that a family gives them.

use std::ops::Range;

use sconce_kernels::KernelError;
use sconce_kernels::embedding::{Embeddings, Table, TableFormat};
use sconce_kernels::encoder::{
    AttentionSpec, BlockSpec, Dense, EncoderSpec, FeedForwardSpec, HeadSpec, HeadStep, LayerWeights, NormKind, NormSpec,
};
use sconce_kernels::residual_norm::{LayerNorm, RmsNorm, RowNorm};

use super::names::TensorRows;
use super::{BlockPart, EncoderPart, HeadTensors, TensorNames};
use crate::{LoadError, Weights};

/// A reader of an encoder's weights, one part at a time, so that no model is in memory twice.
#[derive(Clone, Copy)]
pub struct EncoderWeights<'a> {
    spec: &'a EncoderSpec,
    weights: &'a Weights,
    names: &'a TensorNames,
    /// The tensors of each step of the head.
    head: &'a [HeadTensors],
    /// Prefix of the names of all parts but the head's.
    prefix: &'a str,
}

impl<'a> EncoderWeights<'a> {
    /// The weights of `spec` in a file, under the given names; `head` has those of each step of the spec's head.
    ///
    /// # Panics
    /// If `head` has another number of steps than the spec's head.
    #[must_use]
    pub fn new(spec: &'a EncoderSpec, weights: &'a Weights, names: &'a TensorNames, head: &'a [HeadTensors]) -> Self {
        assert_eq!(head.len(), spec.head.steps.len(), "a name for each step of the head");
        let has_prefix = weights.contains(&format!("{}{}.weight", names.optional_prefix, names.words));
        Self { spec, weights, names, head, prefix: if has_prefix { names.optional_prefix } else { "" } }
    }

    /// The spec of the encoder.
    #[must_use]
    pub fn spec(&self) -> &'a EncoderSpec {
        self.spec
    }

    /// The elements of a part's weight in f32, row by row: `[outputs, inputs]` for a product, `[rows, columns]` for a
    /// table.
    ///
    /// # Errors
    /// [`LoadError::Weights`] names a tensor that is missing or does not fit the spec.
    pub fn weight(&self, part: EncoderPart) -> Result<Vec<f32>, LoadError> {
        let shape = self.shape(part);
        match self.tensors(part) {
            Tensors::Own(TensorRows { name, rows }) => self.rows_of(&format!("{name}.weight"), rows, &shape),
            Tensors::Words { .. } => {
                self.weights.values(&format!("{}{}.weight", self.prefix, self.names.words), &shape)
            }
            Tensors::File(file, name) => file.values(&format!("{name}.weight"), &shape),
            Tensors::Row { table, row, less } => {
                let words = format!("{}{}.weight", self.prefix, self.names.words);
                let table = table.unwrap_or(&words);
                let of = |row: u32| self.weights.row(table, [self.spec.embeddings.words, shape[1]], row as usize);
                let mut values = of(row)?;
                if let Some(less) = less {
                    values.iter_mut().zip(of(less)?).for_each(|(value, less)| *value -= less);
                }
                Ok(values)
            }
        }
    }

    /// The elements of a part's bias in f32, one for each output; `None` if the spec gives it none.
    ///
    /// # Errors
    /// [`LoadError::Weights`] names a tensor that is missing or does not fit the spec.
    pub fn bias(&self, part: EncoderPart) -> Result<Option<Vec<f32>>, LoadError> {
        if !self.has_bias(part) {
            return Ok(None);
        }
        let shape = &self.shape(part)[..1];
        let bias = match self.tensors(part) {
            Tensors::Own(TensorRows { name, rows }) => self.rows_of(&format!("{name}.bias"), rows, shape),
            Tensors::Words { bias } => self.weights.values(bias, shape),
            Tensors::File(file, name) => file.values(&format!("{name}.bias"), shape),
            Tensors::Row { .. } => Ok(vec![0.0; shape[0]]),
        };
        bias.map(Some)
    }

    /// Rows of a tensor, or the whole tensor, of `shape`.
    fn rows_of(&self, name: &str, rows: Option<(Range<usize>, usize)>, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let Some((rows, all)) = rows else { return self.weights.values(name, shape) };
        let columns: usize = shape[1..].iter().product();
        let shape: Vec<usize> = std::iter::once(all).chain(shape[1..].iter().copied()).collect();
        let values = self.weights.values(name, &shape)?;
        Ok(values[rows.start * columns..rows.end * columns].to_vec())
    }

    fn tensors(&self, part: EncoderPart) -> Tensors<'a> {
        let own = |name: String, rows| Tensors::Own(TensorRows { name, rows });
        let EncoderPart::Head(step) = part else {
            let rows = |of_block| match part {
                EncoderPart::Block(index, _) => self.shape(EncoderPart::Block(index, of_block))[0],
                _ => 0,
            };
            let TensorRows { name, rows } = self.names.of(part, rows);
            return own(format!("{}{name}", self.prefix), rows);
        };
        match &self.head[step] {
            HeadTensors::Named(name) => own(name.clone().into_owned(), None),
            HeadTensors::Words { bias } => Tensors::Words { bias },
            HeadTensors::Row { table, row, less } => Tensors::Row { table: *table, row: *row, less: *less },
            HeadTensors::File(of_file) => Tensors::File(&of_file.0, of_file.1),
        }
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
        let (spec, columns) = (&self.spec.embeddings, self.spec.embedding_size());
        let table = |values| self.fits(Table::new(values, columns, format));
        let words = table(self.weight(EncoderPart::Words)?)?;
        let positions = match spec.positions {
            Some(positions) => {
                let mut values = self.weight(EncoderPart::Positions)?;
                values.drain(..positions.first * columns);
                Some(table(values)?)
            }
            None => None,
        };
        let segments = if spec.segments == 0 { None } else { Some(table(self.weight(EncoderPart::Segments)?)?) };
        self.fits(Embeddings::new(words, positions, segments, self.row_norm(EncoderPart::EmbeddingNorm)?))
    }

    /// The learned bias of scores, if the spec has one.
    pub(crate) fn relative_bias(&self) -> Result<Option<Vec<f32>>, LoadError> {
        self.spec.relative_bias.map(|_| self.weight(EncoderPart::RelativeBias)).transpose()
    }

    /// A block, as the fused engines take it.
    pub(crate) fn block(&self, index: usize) -> Result<LayerWeights, LoadError> {
        let part = |part| EncoderPart::Block(index, part);
        let BlockSpec { attention, feed_forward, .. } = &self.spec.blocks[index];
        let head_norms = match self.row_norm(part(BlockPart::QueryNorm))? {
            Some(query) => self.row_norm(part(BlockPart::KeyNorm))?.map(|key| [query.times(scale_of(attention)), key]),
            None => None,
        };
        Ok(LayerWeights {
            query_key_value: self.query_key_value(index)?,
            head_norms,
            attention_output: self.dense(part(BlockPart::AttentionOutput))?,
            attention_norm: self.row_norm(part(BlockPart::AttentionNorm))?,
            gate: feed_forward.gated.then(|| self.dense(part(BlockPart::Gate))).transpose()?,
            up: self.dense(part(BlockPart::Up))?,
            down: self.dense(part(BlockPart::Down))?,
            output_norm: self.row_norm(part(BlockPart::OutputNorm))?,
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
    /// to be; where queries have a norm, the norm is.
    fn query_key_value(&self, index: usize) -> Result<Dense, LoadError> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for part in [BlockPart::Query, BlockPart::Key, BlockPart::Value] {
            let dense = self.dense(EncoderPart::Block(index, part))?;
            weight.extend(dense.weight);
            bias.extend(dense.bias);
        }
        let attention = &self.spec.blocks[index].attention;
        if attention.head_norm.is_none() {
            let query = self.shape(EncoderPart::Block(index, BlockPart::Query));
            let factor = scale_of(attention);
            weight[..query[0] * query[1]].iter_mut().chain(&mut bias[..query[0]]).for_each(|x| *x *= factor);
        }
        Ok(Dense { weight, bias })
    }

    /// A norm, as the fused engines take it; `None` if the spec has none there.
    pub(crate) fn row_norm(&self, part: EncoderPart) -> Result<Option<RowNorm>, LoadError> {
        let Some(NormSpec { kind, eps }) = self.norm(part).copied() else { return Ok(None) };
        let weight = self.weight(part)?;
        let norm = match kind {
            NormKind::Layer { .. } => {
                let bias = self.bias(part)?.unwrap_or_else(|| vec![0.0; weight.len()]);
                LayerNorm::new(weight, bias, eps).map(RowNorm::Layer)
            }
            NormKind::Rms => RmsNorm::new(weight, eps).map(RowNorm::Rms),
        };
        self.fits(norm).map(Some)
    }

    /// The shape of a part's weight. Its bias has as many elements as the first dimension.
    pub(super) fn shape(&self, part: EncoderPart) -> Vec<usize> {
        let EncoderSpec { hidden, embeddings, blocks, relative_bias, .. } = self.spec;
        let (hidden, columns) = (*hidden, self.spec.embedding_size());
        match part {
            EncoderPart::Words => vec![embeddings.words, columns],
            EncoderPart::Positions => vec![embeddings.positions.map_or(0, |table| table.rows), columns],
            EncoderPart::Segments => vec![embeddings.segments, columns],
            EncoderPart::EmbeddingNorm => vec![columns],
            EncoderPart::EmbeddingProjection => vec![hidden, columns],
            EncoderPart::RelativeBias => {
                let heads = blocks.first().map_or(0, |block| block.attention.heads);
                vec![relative_bias.map_or(0, |bias| bias.buckets), heads]
            }
            EncoderPart::FinalNorm => vec![hidden],
            EncoderPart::Head(step) => {
                let before = HeadSpec { steps: self.spec.head.steps[..step].to_vec(), ..self.spec.head.clone() };
                let inputs = before.outputs(hidden);
                match self.spec.head.steps[step] {
                    HeadStep::Product { outputs, .. } => vec![outputs, inputs],
                    HeadStep::Norm(_) => vec![inputs],
                }
            }
            EncoderPart::Block(index, part) => {
                let BlockSpec { attention, feed_forward: FeedForwardSpec { inner, .. }, .. } = blocks[index];
                let AttentionSpec { heads, key_value_heads, head_size, .. } = attention;
                match part {
                    BlockPart::Query => vec![heads * head_size, hidden],
                    BlockPart::Key | BlockPart::Value => vec![key_value_heads * head_size, hidden],
                    BlockPart::QueryNorm | BlockPart::KeyNorm => vec![head_size],
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
            EncoderPart::Block(index, part) => {
                let BlockSpec { attention, feed_forward, .. } = self.spec.blocks[index];
                match part {
                    BlockPart::Gate | BlockPart::Up => feed_forward.bias,
                    BlockPart::Down => feed_forward.output_bias,
                    BlockPart::AttentionOutput => attention.output_bias,
                    _ => attention.bias,
                }
            }
            EncoderPart::Head(step) => matches!(self.spec.head.steps[step], HeadStep::Product { bias: true, .. }),
            part => part == EncoderPart::EmbeddingProjection,
        }
    }

    /// The spec of a part that is a norm.
    pub(crate) fn norm(&self, part: EncoderPart) -> Option<&'a NormSpec> {
        let spec = self.spec;
        match part {
            EncoderPart::EmbeddingNorm => spec.embeddings.norm.as_ref(),
            EncoderPart::FinalNorm => spec.final_norm.as_ref(),
            EncoderPart::Head(step) => match &spec.head.steps[step] {
                HeadStep::Norm(norm) => Some(norm),
                HeadStep::Product { .. } => None,
            },
            EncoderPart::Block(index, part) => match part {
                BlockPart::AttentionNorm => spec.blocks[index].attention_norm.as_ref(),
                BlockPart::OutputNorm => spec.blocks[index].output_norm.as_ref(),
                BlockPart::QueryNorm | BlockPart::KeyNorm => spec.blocks[index].attention.head_norm.as_ref(),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The number that scores are multiplied by.
fn scale_of(attention: &AttentionSpec) -> f32 {
    (attention.head_size as f32).sqrt().recip()
}

/// The place of a part's tensors.
enum Tensors<'a> {
    /// In the encoder's file.
    Own(TensorRows),
    /// The table of words, and a bias of its own.
    Words { bias: &'static str },
    /// A row of the table of words or of this one, less another row.
    Row { table: Option<&'static str>, row: u32, less: Option<u32> },
    /// In another file, under this name.
    File(&'a Weights, &'static str),
}
