//! Encoders on the CPU: the fused kernels of `sconce-kernels` and a head, on packed tokens, without candle.

use std::sync::Arc;

use sconce_kernels::Team;
use sconce_kernels::embedding::TableFormat;
use sconce_kernels::encoder::{BlockSpec, Encoder, EncoderSpec, PackedParts, Scratch};
use sconce_kernels::linear::{BlockFormat, WeightFormat};

use super::batch::PackedBatch;
use super::head::RowHead;
use super::{EncoderEngine, EncoderPart, EncoderWeights, Tokens};
use crate::{ForwardError, LoadError, Precision};

/// Weights of a block of `Q8_0`.
const BLOCK: usize = 32;

/// An encoder, a head, and the buffers that they work in.
pub(crate) struct PackedEncoder {
    encoder: Encoder,
    head: RowHead,
    team: Arc<Team>,
    scratch: Scratch,
    batch: PackedBatch,
    /// One vector per token of the batch.
    hidden: Vec<f32>,
}

impl PackedEncoder {
    /// The precisions in which the CPU's kernels run an encoder, f32 first. Weights in blocks need whole blocks in each row.
    pub(crate) fn precisions(spec: &EncoderSpec) -> Vec<Precision> {
        let of_blocks = spec.blocks.iter().flat_map(|BlockSpec { attention, feed_forward, .. }| {
            [attention.heads * attention.head_size, feed_forward.inner]
        });
        let mut inputs = of_blocks.chain([spec.hidden]).chain(spec.embeddings.projected_from);
        if inputs.all(|size| size.is_multiple_of(BLOCK)) {
            vec![Precision::F32, Precision::Int8, Precision::Q8_0, Precision::Q4K]
        } else {
            vec![Precision::F32, Precision::Int8]
        }
    }

    /// Reads an encoder. Its tables are int8 in every precision but f32.
    pub(crate) fn load(
        weights: &EncoderWeights<'_>,
        precision: Precision,
        team: &Arc<Team>,
    ) -> Result<Self, LoadError> {
        let (format, table) = match precision {
            Precision::Int8 => (WeightFormat::Int8, TableFormat::Int8),
            Precision::Q8_0 => (WeightFormat::Blocks(BlockFormat::Q8_0), TableFormat::Int8),
            Precision::Q4K => (WeightFormat::Blocks(BlockFormat::Q4K), TableFormat::Int8),
            _ => (WeightFormat::F32, TableFormat::F32),
        };
        let spec = weights.spec();
        weights.fits(spec.check())?;
        let projection = |from| weights.fits(weights.dense(EncoderPart::EmbeddingProjection)?.pack(from, format));
        let block = |index| weights.fits(weights.block(index)?.pack(format));
        let parts = PackedParts {
            embeddings: weights.embeddings(table)?,
            embedding_projection: spec.embeddings.projected_from.map(projection).transpose()?,
            relative_bias: weights.relative_bias()?,
            layers: (0..spec.blocks.len()).map(block).collect::<Result<_, LoadError>>()?,
            final_norm: weights.row_norm(EncoderPart::FinalNorm)?,
        };
        Ok(Self {
            encoder: weights.fits(Encoder::new(spec, parts))?,
            head: RowHead::load(weights, team)?,
            team: Arc::clone(team),
            scratch: Scratch::default(),
            batch: PackedBatch::default(),
            hidden: Vec::new(),
        })
    }
}

impl EncoderEngine for PackedEncoder {
    fn forward(&mut self, texts: &[Tokens<'_>]) -> Result<Vec<Vec<f32>>, ForwardError> {
        // The longest first, so that no thread starts a long text when the others are done.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|text| std::cmp::Reverse(texts[*text].ids.len()));
        let Self { encoder, head, team, scratch, batch, hidden } = self;
        batch.pack(order.iter().map(|text| texts[*text]));
        hidden.resize(batch.ids.len() * encoder.hidden(), 0.0);
        encoder.forward(team, scratch, batch.tokens(), hidden)?;
        let sorted = head.forward(hidden, &batch.lengths)?;

        let mut rows = vec![Vec::new(); texts.len()];
        for (row, text) in sorted.into_iter().zip(order) {
            rows[text] = row;
        }
        Ok(rows)
    }
}
