//! Encoders on the CPU: the fused kernels of `sconce-kernels` and a head, on packed tokens, without candle.

use std::sync::Arc;

use sconce_kernels::embedding::TableFormat;
use sconce_kernels::encoder::{Encoder, EncoderSpec, FusedBlocks, HeadFunction, HeadSpec, Scratch};
use sconce_kernels::linear::{self, BlockFormat, Linear, WeightFormat};
use sconce_kernels::pooling::{Pooling, pool};
use sconce_kernels::{KernelError, Team};

use super::batch::PackedBatch;
use super::{EncoderEngine, EncoderPart, EncoderWeights, Tokens};
use crate::{ForwardError, LoadError, Precision};

/// Weights of a block of `Q8_0`.
const BLOCK: usize = 32;

/// An encoder, a head, and the buffers that they work in.
pub(crate) struct PackedEncoder {
    encoder: Encoder,
    head: Head,
    team: Arc<Team>,
    scratch: Scratch,
    batch: PackedBatch,
    /// One vector per token of the batch.
    hidden: Vec<f32>,
}

/// The step from token vectors to one row per text.
enum Head {
    Pool(Pooling),
    /// Both products are f32 in every precision: they are small, and the scores depend on them most.
    Classifier(Box<Classifier>),
}

struct Classifier {
    pooler: Linear,
    function: HeadFunction,
    output: Linear,
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
            head: Head::load(weights)?,
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
        let sorted = head.forward(team, hidden, &batch.lengths, encoder.hidden())?;

        let mut rows = vec![Vec::new(); texts.len()];
        for (row, text) in sorted.chunks_exact(sorted.len() / texts.len().max(1)).zip(order) {
            rows[text] = row.to_vec();
        }
        Ok(rows)
    }
}

impl Head {
    fn load(weights: &EncoderWeights<'_>) -> Result<Self, LoadError> {
        Ok(match weights.spec().head {
            HeadSpec::Pool(pooling) => Self::Pool(pooling),
            HeadSpec::Classifier { function, .. } => {
                let product = |part| weights.fits(weights.dense(part)?.pack(weights.spec().hidden, WeightFormat::F32));
                let (pooler, output) = (product(EncoderPart::Pooler)?, product(EncoderPart::Classifier)?);
                Self::Classifier(Box::new(Classifier { pooler, function, output }))
            }
        })
    }

    /// Computes one row per text, end to end.
    fn forward(&self, team: &Team, hidden: &[f32], lengths: &[usize], columns: usize) -> Result<Vec<f32>, KernelError> {
        let mut pooled = vec![0.0; lengths.len() * columns];
        match self {
            Self::Pool(pooling) => {
                pool(hidden, lengths, columns, *pooling, &mut pooled)?;
                Ok(pooled)
            }
            Self::Classifier(head) => {
                let Classifier { pooler, function, output } = &**head;
                pool(hidden, lengths, columns, Pooling::Cls, &mut pooled)?;
                let mut inner = vec![0.0; lengths.len() * pooler.outputs()];
                let activation = match function {
                    HeadFunction::Relu => linear::Activation::Relu,
                    HeadFunction::Tanh => linear::Activation::Identity,
                };
                pooler.forward(team, &pooled, &mut inner, activation)?;
                if *function == HeadFunction::Tanh {
                    for x in &mut inner {
                        *x = x.tanh();
                    }
                }
                let mut logits = vec![0.0; lengths.len() * output.outputs()];
                output.forward(team, &inner, &mut logits, linear::Activation::Identity)?;
                Ok(logits)
            }
        }
    }
}
