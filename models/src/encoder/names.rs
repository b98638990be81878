//! The parts of an encoder and the names that a family gives to their tensors.

use std::borrow::Cow;
use std::ops::Range;

use crate::Weights;

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
    /// The product from embeddings of another size to `hidden`.
    EmbeddingProjection,
    /// The table of the relative bias.
    RelativeBias,
    /// A part of a block, by the number of the block.
    Block(usize, BlockPart),
    /// The norm after the last block.
    FinalNorm,
    /// A step of the head, by its number.
    Head(usize),
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
    /// The norm of each head's query.
    QueryNorm,
    /// The norm of each head's key.
    KeyNorm,
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
    /// Name of [`EncoderPart::EmbeddingProjection`].
    pub embedding_projection: &'static str,
    /// Name of [`EncoderPart::RelativeBias`].
    pub relative_bias: &'static str,
    /// Name of the blocks; their parts are named `{blocks}.{number}.{part}`, numbered from 0.
    pub blocks: &'static str,
    /// Name of [`BlockPart::Query`].
    pub query: &'static str,
    /// Name of [`BlockPart::Key`].
    pub key: &'static str,
    /// Name of [`BlockPart::Value`].
    pub value: &'static str,
    /// Name of a tensor that holds the rows of query, key and value, in this order, instead of one tensor for each.
    pub query_key_value: &'static str,
    /// Name of [`BlockPart::QueryNorm`].
    pub query_norm: &'static str,
    /// Name of [`BlockPart::KeyNorm`].
    pub key_norm: &'static str,
    /// Name of [`BlockPart::AttentionOutput`].
    pub attention_output: &'static str,
    /// Name of [`BlockPart::AttentionNorm`].
    pub attention_norm: &'static str,
    /// Name of [`BlockPart::Gate`].
    pub gate: &'static str,
    /// Name of [`BlockPart::Up`].
    pub up: &'static str,
    /// Name of a tensor that holds the rows of gate and up, in this order.
    pub gate_up: &'static str,
    /// Name of a tensor that holds the rows of up and gate, in this order.
    pub up_gate: &'static str,
    /// Name of [`BlockPart::Down`].
    pub down: &'static str,
    /// Name of [`BlockPart::OutputNorm`].
    pub output_norm: &'static str,
    /// Name of [`EncoderPart::FinalNorm`].
    pub final_norm: &'static str,
}

impl TensorNames {
    /// Empty names, for a family to fill in.
    pub const NONE: Self = Self {
        optional_prefix: "",
        words: "",
        positions: "",
        segments: "",
        embedding_norm: "",
        embedding_projection: "",
        relative_bias: "",
        blocks: "",
        query: "",
        key: "",
        value: "",
        query_key_value: "",
        query_norm: "",
        key_norm: "",
        attention_output: "",
        attention_norm: "",
        gate: "",
        up: "",
        gate_up: "",
        up_gate: "",
        down: "",
        output_norm: "",
        final_norm: "",
    };

    /// The name of a part of the encoder. `rows` gives the numbers of rows of parts of a block.
    pub(super) fn of(&self, part: EncoderPart, rows: impl Fn(BlockPart) -> usize) -> TensorRows {
        let whole = |name: &str| TensorRows { name: name.to_owned(), rows: None };
        match part {
            EncoderPart::Words => whole(self.words),
            EncoderPart::Positions => whole(self.positions),
            EncoderPart::Segments => whole(self.segments),
            EncoderPart::EmbeddingNorm => whole(self.embedding_norm),
            EncoderPart::EmbeddingProjection => whole(self.embedding_projection),
            EncoderPart::RelativeBias => whole(self.relative_bias),
            EncoderPart::FinalNorm => whole(self.final_norm),
            EncoderPart::Head(_) => unreachable!("names of a head are given with it"),
            EncoderPart::Block(index, part) => {
                let (name, parts) = self.of_block(part);
                let before = parts.iter().take_while(|other| **other != part).map(|part| rows(*part)).sum();
                let all = parts.iter().map(|part| rows(*part)).sum();
                let name = format!("{}.{index}.{name}", self.blocks);
                TensorRows { name, rows: (parts.len() > 1).then(|| (before..before + rows(part), all)) }
            }
        }
    }

    /// The name of the tensor that holds a part, and the parts in it.
    fn of_block(&self, part: BlockPart) -> (&'static str, &'static [BlockPart]) {
        use BlockPart::{Gate, Key, Query, Up, Value};
        match part {
            Query | Key | Value if !self.query_key_value.is_empty() => (self.query_key_value, &[Query, Key, Value]),
            Gate | Up if !self.gate_up.is_empty() => (self.gate_up, &[Gate, Up]),
            Gate | Up if !self.up_gate.is_empty() => (self.up_gate, &[Up, Gate]),
            Query => (self.query, &[]),
            Key => (self.key, &[]),
            Value => (self.value, &[]),
            Gate => (self.gate, &[]),
            Up => (self.up, &[]),
            BlockPart::QueryNorm => (self.query_norm, &[]),
            BlockPart::KeyNorm => (self.key_norm, &[]),
            BlockPart::AttentionOutput => (self.attention_output, &[]),
            BlockPart::AttentionNorm => (self.attention_norm, &[]),
            BlockPart::Down => (self.down, &[]),
            BlockPart::OutputNorm => (self.output_norm, &[]),
        }
    }
}

/// A tensor, and the rows of a part in it.
pub(super) struct TensorRows {
    /// The name without `.weight` and `.bias`.
    pub(super) name: String,
    /// The rows of the part, and the number of all rows; `None` if the part is the whole tensor.
    pub(super) rows: Option<(Range<usize>, usize)>,
}

/// The tensors of a step of a head. No prefix precedes these names.
#[derive(Debug, Clone)]
pub enum HeadTensors {
    /// `{name}.weight` and `{name}.bias`.
    Named(Cow<'static, str>),
    /// The table of words as the weight, and a bias of this name.
    Words {
        /// The whole name of the bias.
        bias: &'static str,
    },
    /// One row of a table of words, less another row of it.
    Row {
        /// The whole name of the table; `None`: the one that the encoder reads.
        table: Option<&'static str>,
        /// The number of the row.
        row: u32,
        /// The number of the row that is taken from it.
        less: Option<u32>,
    },
    /// As [`Named`](Self::Named), in a file of its own.
    File(Box<(Weights, &'static str)>),
}
