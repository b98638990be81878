//! What batches cost on a device, by running some.

use std::time::{Duration, Instant};

use sconce_batch::CostModel;
use sconce_models::{
    Array, ArrayData, Features, ForwardError, Input, InputKind, Network, Processor, Signature, Truncation,
};

/// Weights of the batches that are run, as far as they are within bounds; several, so that the fixed cost can be told apart.
const WEIGHTS: [usize; 6] = [1, 16, 64, 128, 256, 512];
/// Of a text in a batch that is measured.
const TEXT_TOKENS: usize = 64;

/// Runs batches of several weights until their cost is known well, or the time is over: then it may stay unknown. The first batch
/// of each weight is not counted: it finds memory and caches cold.
pub(crate) fn measure(
    network: &mut dyn Network,
    processor: &dyn Processor,
    signature: &Signature,
    max_weight: usize,
    time: Duration,
) -> Result<CostModel, ForwardError> {
    /// More say little more.
    const ROUNDS: usize = 8;
    let began = Instant::now();
    let batches: Vec<Vec<Features>> = WEIGHTS
        .into_iter()
        .filter(|weight| *weight <= max_weight)
        .map(|weight| sample(processor, signature, weight))
        .filter(|batch| !batch.is_empty())
        .collect();
    let mut cost = CostModel::default();
    for round in 0..=ROUNDS {
        for batch in &batches {
            let started = Instant::now();
            network.forward(batch)?;
            if round > 0 {
                cost.observe(batch.iter().map(Features::weight).sum(), started.elapsed());
            }
            if began.elapsed() > time {
                return Ok(cost);
            }
        }
    }
    Ok(cost)
}

/// A batch of about that weight, of inputs that are made up; empty if the model does not take them.
pub(crate) fn sample(processor: &dyn Processor, signature: &Signature, weight: usize) -> Vec<Features> {
    let prepare = |input| processor.prepare(input, Truncation::Truncate).ok().map(|prepared| prepared.features);
    let mut batch = Vec::new();
    let mut left = weight;
    while left > 0 {
        let Some(item) = prepare(input(&signature.input.kind, left.min(TEXT_TOKENS))) else { break };
        left = left.saturating_sub(item.weight().max(1));
        batch.push(item);
    }
    batch
}

/// An input of about so many tokens, where that is something to choose.
fn input(kind: &InputKind, tokens: usize) -> Input {
    match kind {
        InputKind::Image { shape } => {
            let pixels =
                (0..shape.iter().product::<usize>()).map(|at| u8::try_from(at * 7 % 17).unwrap_or(0)).collect();
            Input::Array(Array { shape: shape.to_vec(), data: ArrayData::U8(pixels) })
        }
        InputKind::Content => Input::Bytes(b"fn main() { println!(\"a sconce holds candles\"); }\n".repeat(40)),
        // Common words are one token each in most vocabularies; two are special.
        _ => Input::from("the ".repeat(tokens.saturating_sub(2).max(1)).trim_end()),
    }
}
