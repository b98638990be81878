//! BERT on the CPU: the encoder of `sconce-kernels` with a head, on packed tokens, without candle.

use std::sync::Arc;

use sconce_kernels::embedding::TableFormat;
use sconce_kernels::encoder::{self, Scratch};
use sconce_kernels::linear::{self, BlockFormat, Linear, WeightFormat};
use sconce_kernels::pooling::{self, pool};
use sconce_kernels::{KernelError, Team};

use super::HeadKind;
use super::batch::Batch;
use super::parts::Parts;
use crate::{LoadError, Precision, Target};

/// An encoder and a head with the memory that they work in.
pub(super) struct PackedBert {
    encoder: encoder::Encoder,
    head: Head,
    team: Arc<Team>,
    scratch: Scratch,
    batch: Batch,
    /// One vector per token of the batch.
    hidden: Vec<f32>,
}

/// From token vectors to one row per text.
enum Head {
    Pool(pooling::Pooling),
    /// Both in f32 whatever the precision: they are small, and the scores depend on them most.
    Classifier(Box<Classifier>),
}

struct Classifier {
    pooler: Linear,
    classifier: Linear,
}

impl PackedBert {
    pub(super) fn load(parts: Parts<'_>, head: HeadKind, target: &Target) -> Result<Self, LoadError> {
        Ok(Self {
            encoder: encoder_of(&parts, target.precision)?,
            head: Head::new(&parts, head)?,
            team: Arc::clone(&target.team),
            scratch: Scratch::default(),
            batch: Batch::default(),
            hidden: Vec::new(),
        })
    }

    /// One row per item, each of them ids and segments that are within the tables.
    pub(super) fn forward(&mut self, items: &[(&[u32], &[u32])]) -> Result<Vec<Vec<f32>>, KernelError> {
        // The longest first, so that no thread is left with a long one at the end.
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|item| std::cmp::Reverse(items[*item].0.len()));
        let Self { encoder, head, team, scratch, batch, hidden } = self;
        batch.pack(order.iter().map(|item| items[*item]));
        hidden.resize(batch.ids.len() * encoder.hidden(), 0.0);
        encoder.forward(team, scratch, batch.tokens(), hidden)?;
        let sorted = head.forward(team, hidden, &batch.lengths, encoder.hidden())?;

        let mut rows = vec![Vec::new(); items.len()];
        for (row, item) in sorted.chunks_exact(sorted.len() / items.len().max(1)).zip(order) {
            rows[item] = row.to_vec();
        }
        Ok(rows)
    }
}

/// The weights in the format of a precision; the tables of vectors in int8 in every precision but f32.
fn encoder_of(parts: &Parts<'_>, precision: Precision) -> Result<encoder::Encoder, LoadError> {
    let (format, table) = match precision {
        Precision::F32 => (WeightFormat::F32, TableFormat::F32),
        Precision::Int8 => (WeightFormat::Int8, TableFormat::Int8),
        Precision::Q8_0 => (WeightFormat::Blocks(BlockFormat::Q8_0), TableFormat::Int8),
        Precision::Q4K => (WeightFormat::Blocks(BlockFormat::Q4K), TableFormat::Int8),
        Precision::F16 | Precision::Bf16 => unreachable!("the family has them on GPUs alone"),
    };
    let embeddings = parts.embeddings(table)?;
    let layer = |index| parts.fits(parts.layer(index)?.pack(format));
    let layers = (0..parts.config.num_hidden_layers).map(layer).collect::<Result<_, LoadError>>()?;
    parts.fits(encoder::Encoder::new(embeddings, layers, parts.config.num_attention_heads))
}

impl Head {
    fn new(parts: &Parts<'_>, head: HeadKind) -> Result<Self, LoadError> {
        Ok(match head {
            HeadKind::Mean => Self::Pool(pooling::Pooling::Mean),
            HeadKind::Cls => Self::Pool(pooling::Pooling::Cls),
            HeadKind::Classifier { labels } => {
                let hidden = parts.config.hidden_size;
                let [pooler, classifier] = parts.classifier(labels)?.map(|dense| dense.pack(hidden, WeightFormat::F32));
                let (pooler, classifier) = (parts.fits(pooler)?, parts.fits(classifier)?);
                Self::Classifier(Box::new(Classifier { pooler, classifier }))
            }
        })
    }

    /// One row per text, end to end.
    fn forward(&self, team: &Team, hidden: &[f32], lengths: &[usize], columns: usize) -> Result<Vec<f32>, KernelError> {
        let mut pooled = vec![0.0; lengths.len() * columns];
        match self {
            Self::Pool(pooling) => {
                pool(hidden, lengths, columns, *pooling, &mut pooled)?;
                Ok(pooled)
            }
            Self::Classifier(head) => {
                let Classifier { pooler, classifier } = &**head;
                pool(hidden, lengths, columns, pooling::Pooling::Cls, &mut pooled)?;
                let mut inner = vec![0.0; lengths.len() * pooler.outputs()];
                pooler.forward(team, &pooled, &mut inner, linear::Activation::Identity)?;
                for x in &mut inner {
                    *x = x.tanh();
                }
                let mut logits = vec![0.0; lengths.len() * classifier.outputs()];
                classifier.forward(team, &inner, &mut logits, linear::Activation::Identity)?;
                Ok(logits)
            }
        }
    }
}
