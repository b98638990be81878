//! The load that candidates are timed under: requests alone, and as many as fill batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sconce::decide::metrics::quantile;
use sconce::decide::{CostOfBatch, Estimate};
use sconce::{Answer, CostModel, InferError, Model, Request};
use serde::{Deserialize, Serialize};

use super::contender::LoadedContender;
use super::error::DecideError;

/// Clients of a full load for each place in a batch: while one batch runs, the next one fills.
const CLIENTS_PER_PLACE: usize = 2;
/// Batches of each kind that a turn keeps for learning the cost of a batch.
const MAX_KEPT: usize = 64;
/// Least distance of the ends of the interval of a time or a rate, as a share of it: rounds of one run are more alike than
/// runs.
const MIN_SPREAD: f64 = 0.1;
/// The same for the 99th percentile, which few requests decide.
const MIN_TAIL_SPREAD: f64 = 0.25;
/// The distance with one round, which says nothing about the next.
const ONE_ROUND_SPREAD: f64 = 1.0;
/// Largest factor between a figure and an end of its interval: two rounds that differ much say nothing at all.
const MAX_FACTOR: f64 = 100.0;
/// Student's t beyond which 0.5 % lie to each side, for 1, 2, … degrees of freedom; beyond the last it is nearly constant.
const STUDENT_T: [f64; 16] =
    [63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055, 3.012, 2.977, 2.947, 2.921];

/// The figures of a candidate in one round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// Milliseconds of requests that were alone.
    pub(crate) alone_ms: Vec<f64>,
    /// Items that were answered under full load, and the seconds that this took.
    pub(crate) answered: u64,
    pub(crate) seconds: f64,
    /// Weight and seconds of some batches of one item, and of some under full load.
    pub(crate) small: Vec<(usize, f64)>,
    pub(crate) large: Vec<(usize, f64)>,
}

/// The speed of a candidate over all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Speed {
    pub(crate) p50_ms: Estimate,
    pub(crate) p99_ms: Estimate,
    /// Items a second.
    pub(crate) throughput: Estimate,
    pub(crate) cost: CostOfBatch,
}

/// The requests that candidates are timed with, in the same order for all.
#[derive(Clone)]
pub(crate) struct TimedRequests {
    pub(crate) requests: Arc<[Request]>,
    /// Time of each of the two loads.
    pub(crate) turn: Duration,
}

impl TimedRequests {
    /// Times a candidate: requests alone, then full load. Begins with the request of number `first`.
    pub(crate) async fn turn(&self, loaded: &LoadedContender, first: usize) -> Result<Turn, DecideError> {
        let mut turn = Turn::default();
        let mut small = Vec::new();
        let began = Instant::now();
        let mut number = first;
        while number == first || began.elapsed() < self.turn {
            let started = Instant::now();
            let answer = self.ask(&loaded.model, number).await;
            let took = started.elapsed();
            let answer = answer.map_err(|source| loaded.failed(number % self.requests.len() + 1, source))?;
            loaded.check_device(&answer)?;
            turn.alone_ms.push(took.as_secs_f64() * 1e3);
            small.push((answer.tokens.unwrap_or(1), answer.timing.run.as_secs_f64()));
            number += 1;
        }
        let answers = self.full_load(loaded, number, &mut turn).await?;
        turn.small = thinned(small);
        turn.large = thinned(batches(&answers));
        Ok(turn)
    }

    /// Keeps as many requests in flight as fill batches. Returns the answers.
    async fn full_load(
        &self,
        loaded: &LoadedContender,
        first: usize,
        turn: &mut Turn,
    ) -> Result<Vec<BatchMember>, DecideError> {
        let size = usize::try_from(loaded.contender.candidate.max_batch_size).unwrap_or(usize::MAX);
        let next = Arc::new(AtomicUsize::new(first));
        let began = Instant::now();
        let client = || {
            let (this, model, next) = (self.clone(), loaded.model.clone(), Arc::clone(&next));
            async move {
                let mut members = Vec::new();
                while members.is_empty() || began.elapsed() < this.turn {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let answer = this.ask(&model, number).await.map_err(|source| (number, source))?;
                    members.push(BatchMember::of(&answer));
                }
                Ok(members)
            }
        };
        let clients: Vec<_> = (0..size.saturating_mul(CLIENTS_PER_PLACE)).map(|_| tokio::spawn(client())).collect();
        let mut members = Vec::new();
        for client in clients {
            let ended: Result<Vec<BatchMember>, (usize, InferError)> =
                client.await.expect("a client does not panic and is not aborted");
            members.extend(ended.map_err(|(number, source)| loaded.failed(number % self.requests.len() + 1, source))?);
        }
        (turn.answered, turn.seconds) = (members.len() as u64, began.elapsed().as_secs_f64());
        Ok(members)
    }

    async fn ask(&self, model: &Model, number: usize) -> Result<Answer, InferError> {
        model.infer(self.requests[number % self.requests.len()].clone()).await
    }
}

/// The part of an answer that tells its batch from others.
#[derive(Debug, Clone, Copy)]
struct BatchMember {
    weight: usize,
    run: Duration,
    batch_size: usize,
}

impl BatchMember {
    fn of(answer: &Answer) -> Self {
        let Answer { tokens, timing, .. } = answer;
        Self { weight: tokens.unwrap_or(1), run: timing.run, batch_size: timing.batch_size }
    }
}

/// Weight and seconds of the batches whose members all came: those of one batch have the same time, to the nanosecond.
fn batches(members: &[BatchMember]) -> Vec<(usize, f64)> {
    let mut found = BTreeMap::<(Duration, usize), (usize, usize)>::new();
    for BatchMember { weight, run, batch_size } in members {
        let (count, sum) = found.entry((*run, *batch_size)).or_default();
        (*count, *sum) = (*count + 1, *sum + weight);
    }
    let whole = found.into_iter().filter(|((_, batch_size), (count, _))| count == batch_size);
    whole.map(|((run, _), (_, weight))| (weight, run.as_secs_f64())).collect()
}

/// At most [`MAX_KEPT`] of them, evenly.
fn thinned(batches: Vec<(usize, f64)>) -> Vec<(usize, f64)> {
    let step = batches.len().div_ceil(MAX_KEPT).max(1);
    batches.into_iter().step_by(step).collect()
}

impl Speed {
    /// The speed over some rounds, at least one.
    pub(crate) fn of(turns: &[Turn]) -> Self {
        let sorted = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times
        };
        let all = sorted(turns.iter().flat_map(|turn| turn.alone_ms.iter().copied()).collect());
        let alone = |part: f64, spread: f64| {
            let rounds: Vec<f64> = turns.iter().map(|turn| quantile(&sorted(turn.alone_ms.clone()), part)).collect();
            estimate(quantile(&all, part), &rounds, spread)
        };
        let rates: Vec<f64> = turns.iter().map(|turn| turn.answered as f64 / turn.seconds).collect();
        // The median: a disturbed round does not count.
        let throughput = quantile(&sorted(rates.clone()), 0.5);
        Self {
            p50_ms: alone(0.5, MIN_SPREAD),
            p99_ms: alone(0.99, MIN_TAIL_SPREAD),
            throughput: estimate(throughput, &rates, MIN_SPREAD),
            cost: cost_of_batch(turns),
        }
    }
}

/// A figure with the interval in which another round would fall with 99 % confidence, so that all of a dozen figures most
/// often do: the prediction interval of a log-normal quantity (Hahn and Meeker, "Statistical Intervals", 1991), and at
/// least the share `spread` to each side.
fn estimate(value: f64, rounds: &[f64], spread: f64) -> Estimate {
    let logarithms: Vec<f64> = rounds.iter().map(|round| round.ln()).collect();
    let count = logarithms.len() as f64;
    let mean = logarithms.iter().sum::<f64>() / count;
    let squares: f64 = logarithms.iter().map(|it| (it - mean).powi(2)).sum();
    let factor = match logarithms.len() {
        0 | 1 => 1.0 + ONE_ROUND_SPREAD,
        rounds => {
            let student = STUDENT_T[(rounds - 2).min(STUDENT_T.len() - 1)];
            (student * (squares / (count - 1.0) * (1.0 + 1.0 / count)).sqrt()).exp().min(MAX_FACTOR)
        }
    };
    let (low, high) = (mean.exp() / factor, mean.exp() * factor);
    Estimate { value, low: low.min(value * (1.0 - spread)), high: high.max(value * (1.0 + spread)) }
}

/// The cost of a batch as the runtime learns it, from batches of one item and full ones in turns.
fn cost_of_batch(turns: &[Turn]) -> CostOfBatch {
    let mut cost = CostModel::default();
    let mut large = turns.iter().flat_map(|turn| &turn.large).copied();
    let small = turns.iter().flat_map(|turn| &turn.small).copied();
    for (weight, seconds) in
        small.zip(std::iter::from_fn(|| Some(large.next()))).flat_map(|(one, other)| [Some(one), other]).flatten()
    {
        cost.observe(weight, Duration::from_secs_f64(seconds));
    }
    let line = cost.line().unwrap_or_default();
    let weights: Vec<f64> = turns.iter().flat_map(|turn| &turn.large).map(|(weight, _)| *weight as f64).collect();
    let usual_weight = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
    CostOfBatch { fixed: line.fixed, per_weight: line.per_weight, usual_weight }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_put_together_from_the_times_of_their_members() {
        let member = |weight, run, batch_size| BatchMember { weight, run: Duration::from_nanos(run), batch_size };
        let members =
            [member(3, 2_000_000_000, 2), member(9, 1_000_000_000, 1), member(4, 2_000_000_000, 2), member(5, 7, 2)];
        assert_eq!(batches(&members), [(9, 1.0), (7, 2.0)], "a batch with a member that is missing is left out");
    }

    #[test]
    fn the_line_of_costs_is_found_again() {
        let batch = |weight: usize| (weight, 0.002 + 0.000_1 * weight as f64);
        let turn = Turn {
            alone_ms: vec![1.0, 2.0, 3.0],
            answered: 200,
            seconds: 2.0,
            small: (5..25).map(batch).collect(),
            large: (300..310).map(batch).collect(),
        };
        let Speed { p50_ms, p99_ms, throughput, cost } = Speed::of(&[turn.clone(), Turn { answered: 160, ..turn }]);
        assert!((cost.fixed - 0.002).abs() < 1e-9 && (cost.per_weight - 0.000_1).abs() < 1e-9, "{cost:?}");
        assert!((cost.usual_weight - 304.5).abs() < 1e-9);
        assert!((p50_ms.value - 2.0).abs() < 1e-9 && (p50_ms.low, p50_ms.high) == (1.8, 2.2), "{p50_ms:?}");
        assert!(p99_ms.value > 2.9 && p99_ms.holds(3.0));
        assert!((throughput.value - 90.0).abs() < 1e-9 && throughput.low < 80.0 && throughput.high > 100.0);
    }

    #[test]
    fn another_round_falls_into_the_interval() {
        // Logarithms −0.1, 0 and 0.1: deviation 0.1, and t is 9.925 with 2 degrees of freedom.
        let rounds = [(-0.1f64).exp(), 1.0, 0.1f64.exp()];
        let Estimate { low, high, .. } = estimate(1.0, &rounds, 0.1);
        let expected = (9.925 * 0.1 * (4.0f64 / 3.0).sqrt()).exp();
        assert!((high - expected).abs() < 1e-9 && (low - 1.0 / expected).abs() < 1e-9, "{low} to {high}");
        let Estimate { low, high, .. } = estimate(2.0, &[2.0; 40], 0.1);
        assert!((low - 1.8).abs() < 1e-12 && (high - 2.2).abs() < 1e-12, "rounds that are too alike: {low} to {high}");
        let Estimate { low, high, .. } = estimate(2.0, &[2.0], 0.1);
        assert!((low - 1.0).abs() < 1e-12 && (high - 4.0).abs() < 1e-12, "one round: {low} to {high}");
        let Estimate { low, high, .. } = estimate(1.0, &[0.01, 100.0], 0.1);
        assert!((low - 0.01).abs() < 1e-9 && (high - 100.0).abs() < 1e-9, "two unlike rounds: {low} to {high}");
    }

    #[test]
    fn few_batches_are_kept_from_the_whole_turn() {
        let kept = thinned((0..1000).map(|at| (at, 0.0)).collect());
        assert!(kept.len() <= MAX_KEPT && kept.last().is_some_and(|(at, _)| *at > 950), "{}", kept.len());
        assert_eq!(thinned(vec![(1, 0.0)]).len(), 1);
    }
}
