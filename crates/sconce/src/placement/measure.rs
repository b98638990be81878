//! Measuring the cost of batches on a device, by running some.

use std::time::{Duration, Instant};

use sconce_batch::CostModel;
use sconce_models::{Features, ForwardError, Network, Processor, Signature, Truncation};

/// Weights of the batches that are run, unless they exceed the largest batch. Several weights, so that the fixed cost
/// can be told from the cost per weight.
const WEIGHTS: [usize; 6] = [1, 16, 64, 128, 256, 512];
/// Tokens of each text in a measured batch.
const TEXT_TOKENS: usize = 64;

/// Runs batches of several weights until their cost is known well or `time` is over, in which case the cost may stay
/// unknown. The first batch of each weight is not counted, since memory and caches are cold.
pub(crate) fn measure(
    network: &mut dyn Network,
    processor: &dyn Processor,
    signature: &Signature,
    max_weight: usize,
    time: Duration,
) -> Result<CostModel, ForwardError> {
    /// Batches counted of each weight; more improve the estimate little.
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

/// A batch of made-up inputs that weighs about `weight`; empty if the model does not take such inputs.
pub(crate) fn sample(processor: &dyn Processor, signature: &Signature, weight: usize) -> Vec<Features> {
    let prepare = |input| processor.prepare(input, Truncation::Truncate).ok().map(|prepared| prepared.features);
    let mut batch = Vec::new();
    let mut left = weight;
    while left > 0 {
        let Some(item) = prepare(signature.input.kind.sample(left.min(TEXT_TOKENS))) else { break };
        left = left.saturating_sub(item.weight().max(1));
        batch.push(item);
    }
    batch
}
