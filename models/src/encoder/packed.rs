//! Encoders on the CPU: the fused kernels of `sconce-kernels` and a head, on packed tokens, without candle.

use std::sync::Arc;

use sconce_kernels::Team;
use sconce_kernels::embedding::TableFormat;
use sconce_kernels::encoder::{Encoder, EncoderSpec, FusedBlocks, Scratch};
use sconce_kernels::linear::{BlockFormat, WeightFormat};

use super::batch::PackedBatch;
use super::head::RowHead;
use super::{EncoderEngine, EncoderWeights, Tokens};
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
        match spec.fused() {
            Ok(FusedBlocks { inner, .. }) if [spec.hidden, inner].iter().all(|size| size.is_multiple_of(BLOCK)) => {
                vec![Precision::F32, Precision::Int8, Precision::Q8_0, Precision::Q4K]
            }
            Ok(_) => vec![Precision::F32, Precision::Int8],
            Err(_) => vec![Precision::F32],
        }
    }

    /// Reads an encoder whose spec is `fused`. Its tables are int8 in every precision but f32.
    pub(crate) fn load(
        weights: &EncoderWeights<'_>,
        fused: FusedBlocks,
        precision: Precision,
        team: &Arc<Team>,
    ) -> Result<Self, LoadError> {
        let (format, table) = match precision {
            Precision::Int8 => (WeightFormat::Int8, TableFormat::Int8),
            Precision::Q8_0 => (WeightFormat::Blocks(BlockFormat::Q8_0), TableFormat::Int8),
            Precision::Q4K => (WeightFormat::Blocks(BlockFormat::Q4K), TableFormat::Int8),
            _ => (WeightFormat::F32, TableFormat::F32),
        };
        let embeddings = weights.embeddings(table)?;
        let block = |index| weights.fits(weights.block(index, fused)?.pack(format));
        let blocks = (0..weights.spec().blocks.len()).map(block).collect::<Result<_, LoadError>>()?;
        Ok(Self {
            encoder: weights.fits(Encoder::new(embeddings, blocks, fused.heads))?,
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
