//! BERT as candle's operations, for devices that have no engine of their own.

use candle_core::{Device, Tensor};
use sconce_kernels::device::check_for_candle;

use super::HeadKind;
use super::config::Config;
use super::encoder::{Encoder, PackedTokens, Run};
use crate::dense::Dense;
use crate::{LoadError, ModelDirectory, Weights};

pub(super) struct TensorBert {
    encoder: Encoder,
    head: Head,
    device: Device,
}

impl TensorBert {
    pub(super) fn load(
        directory: &ModelDirectory,
        config: &Config,
        weights: &Weights,
        prefix: &str,
        head: HeadKind,
        device: &Device,
    ) -> Result<Self, LoadError> {
        check_for_candle(device)?;
        let encoder = Encoder::load(directory, weights, prefix, config)?;
        let hidden = config.hidden_size;
        let head = match head {
            HeadKind::Mean => Head::Mean,
            HeadKind::Cls => Head::Cls,
            HeadKind::Classifier { labels } => Head::Classifier {
                pooler: Dense::load(weights, "bert.pooler.dense", hidden, hidden)?,
                classifier: Dense::load(weights, "classifier", hidden, labels)?,
            },
        };
        Ok(Self { encoder, head, device: device.clone() })
    }

    /// One row per item, each of them ids and segments that are within the tables.
    pub(super) fn forward(&self, items: &[(&[u32], &[u32])]) -> candle_core::Result<Vec<Vec<f32>>> {
        let mut by_length: Vec<usize> = (0..items.len()).collect();
        by_length.sort_by_key(|item| items[*item].0.len());
        let tokens = pack(by_length.iter().map(|item| items[*item]));
        let hidden = self.encoder.forward(&tokens, &self.device)?;
        let sorted_rows = self.head.forward(&hidden, &tokens.runs)?.to_vec2::<f32>()?;
        let mut rows = vec![Vec::new(); items.len()];
        for (item, row) in by_length.into_iter().zip(sorted_rows) {
            rows[item] = row;
        }
        Ok(rows)
    }
}

/// From token vectors to one row per text.
enum Head {
    Mean,
    Cls,
    Classifier { pooler: Dense, classifier: Dense },
}

impl Head {
    fn forward(&self, hidden: &Tensor, runs: &[Run]) -> candle_core::Result<Tensor> {
        match self {
            Self::Mean => {
                let means: Vec<Tensor> = runs.iter().map(|run| mean(hidden, *run)).collect::<Result<_, _>>()?;
                Tensor::cat(&means, 0)
            }
            Self::Cls => first_tokens(hidden, runs),
            Self::Classifier { pooler, classifier } => {
                classifier.forward(&pooler.forward(&first_tokens(hidden, runs)?)?.tanh()?)
            }
        }
    }
}

fn mean(hidden: &Tensor, run: Run) -> candle_core::Result<Tensor> {
    let texts = hidden.narrow(0, run.start, run.tokens())?.reshape((run.texts, run.length, ()))?;
    // A product, because candle's sum over a middle dimension is many times slower on the CPU.
    let weights = Tensor::full(1.0 / run.length as f32, (run.texts, 1, run.length), hidden.device())?;
    weights.matmul(&texts)?.squeeze(1)
}

fn first_tokens(hidden: &Tensor, runs: &[Run]) -> candle_core::Result<Tensor> {
    let rows = runs.iter().flat_map(|run| (0..run.texts).map(|text| run.start + text * run.length));
    let rows: Vec<u32> = rows.map(|row| u32::try_from(row).expect("a batch has fewer than 2^32 tokens")).collect();
    hidden.index_select(&Tensor::new(rows, hidden.device())?, 0)
}

/// Puts texts end to end; neighbours of equal length become one run.
fn pack<'a>(texts: impl Iterator<Item = (&'a [u32], &'a [u32])>) -> PackedTokens {
    let mut packed =
        PackedTokens { input_ids: Vec::new(), token_type_ids: Vec::new(), positions: Vec::new(), runs: Vec::new() };
    for (input_ids, token_type_ids) in texts {
        let (start, length) = (packed.input_ids.len(), input_ids.len());
        match packed.runs.last_mut() {
            Some(run) if run.length == length => run.texts += 1,
            _ => packed.runs.push(Run { start, texts: 1, length }),
        }
        packed.input_ids.extend_from_slice(input_ids);
        packed.token_type_ids.extend_from_slice(token_type_ids);
        packed.positions.extend((0..).take(length));
    }
    packed
}
