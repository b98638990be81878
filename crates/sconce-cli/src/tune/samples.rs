//! The measured times of a model: of its batches by weight, and of its requests outside of the queue and the device.
//!
//! The time of a batch is a curve by weight, measured with batches of every weight, times a factor that changes while the load
//! runs: the machine's disturbances, which last. A simulation goes through the measured factors in their order, so it has the
//! tails of the measured machine and not those of a formula.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use sconce::CostLine;

use crate::replay::{BatchRun, ReplayOutcome, ReplayedRequest, SortedTimes, stage};

/// Samples of about the same weight of which the median is a point of the curve, or one is drawn. Fewer: one stall of the
/// machine counts for too much. More: the times of unlike weights are mixed.
const NEIGHBOURS: usize = 64;

/// Batches under the load, below which the factors of all batches are used.
const MIN_FACTORS: usize = 32;

/// Measured times of one model with certain threads in a certain precision.
#[derive(Debug, Clone)]
pub(crate) struct ServiceSamples {
    line: CostLine,
    batches: usize,
    /// Weights, and the median time of batches of about that weight relative to the line, by weight.
    curve: Vec<(f64, f64)>,
    /// Time of each batch relative to the curve, in the order in which they ended.
    factors: Vec<f64>,
    /// Seconds in which these batches ran.
    factors_took: f64,
    /// Weight of each request, its time before the queue, and its time after the run, in seconds, by weight.
    requests: Vec<(f64, f64, f64)>,
    /// Seconds until a sleeping device takes an item.
    wake: f64,
    /// Average of preparing and of finishing a request, in seconds, for the report.
    pub(crate) prepare: f64,
    pub(crate) finish: f64,
}

impl ServiceSamples {
    /// Sums up requests that were sent at their times under the load (`open`), one after the other (`alone`), and by many
    /// callers at once (`closed`); `None` if too few were answered.
    pub(crate) fn of(open: &[ReplayedRequest], alone: &[ReplayedRequest], closed: &[ReplayedRequest]) -> Option<Self> {
        let all: Vec<BatchRun> =
            [open, alone, closed].into_iter().flatten().flat_map(batches_of).map(|(_, batch)| batch).collect();
        let line = fit(&all)?;
        let curve = curve(&all, line);
        let mut timed: Vec<(Duration, BatchRun)> = open.iter().flat_map(batches_of).collect();
        timed.sort_by_key(|(ended, _)| *ended);
        let mut factors_took = timed.last().map_or(0.0, |(ended, _)| ended.as_secs_f64());
        let factor = |batch: &BatchRun| batch.run.as_secs_f64() / (line.at(batch.weight) * at(&curve, batch.weight));
        let mut factors: Vec<f64> = timed.iter().map(|(_, batch)| factor(batch)).collect();
        if factors.len() < MIN_FACTORS {
            factors = all.iter().map(factor).collect();
            factors_took = all.iter().map(|batch| batch.run.as_secs_f64()).sum();
        }
        // Requests that were sent at their times tell most; if there are few, those sent one by one do.
        let told = if open.len() >= NEIGHBOURS { open } else { alone };
        let mut requests: Vec<_> = told.iter().filter_map(around).collect();
        requests.sort_by(|(one, ..), (other, ..)| one.total_cmp(other));
        let time_of =
            |stage: usize| -> SortedTimes { told.iter().filter_map(|request| stage_of(request, stage)).collect() };
        let waits: SortedTimes = alone.iter().filter_map(|request| stage_of(request, stage::QUEUE)).collect();
        (!requests.is_empty()).then(|| Self {
            line,
            batches: all.len(),
            curve,
            factors,
            factors_took: factors_took.max(1e-9),
            requests,
            wake: waits.quantile(0.5).as_secs_f64(),
            prepare: time_of(stage::PREPARE).mean(),
            finish: time_of(stage::FINISH).mean(),
        })
    }

    /// The cost of a batch, a + c · weight.
    pub(crate) fn line(&self) -> CostLine {
        self.line
    }

    /// Number of batches that were measured.
    pub(crate) fn batches(&self) -> usize {
        self.batches
    }

    /// Time until a sleeping device takes an item.
    pub(crate) fn wake(&self) -> Duration {
        Duration::from_secs_f64(self.wake)
    }

    /// The time of a batch that begins `now`, counted from the beginning of the simulation. The factor is that of a batch
    /// which ran about then, when the measured load is repeated again and again.
    pub(crate) fn run(&self, weight: usize, now: Duration, rng: &mut StdRng) -> Duration {
        let part = (now.as_secs_f64() / self.factors_took).fract();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of factors"
        )]
        let place = (part * self.factors.len() as f64) as usize + rng.random_range(0..3);
        let factor = self.factors[place % self.factors.len()];
        Duration::from_secs_f64((self.line.at(weight) * at(&self.curve, weight) * factor).max(1e-9))
    }

    /// The time after which the factors come again.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_secs_f64(self.factors_took)
    }

    /// Draws the times of a request before the queue and after the run.
    pub(crate) fn around(&self, weight: usize, rng: &mut StdRng) -> (Duration, Duration) {
        let at = self.requests.partition_point(|(other, ..)| *other < weight as f64);
        let (_, before, after) = self.requests[near(at, self.requests.len(), rng)];
        (Duration::from_secs_f64(before), Duration::from_secs_f64(after))
    }
}

/// The medians of times relative to the line, over windows of about the same weight.
fn curve(batches: &[BatchRun], line: CostLine) -> Vec<(f64, f64)> {
    let relative = |batch: &BatchRun| (batch.weight as f64, batch.run.as_secs_f64() / line.at(batch.weight).max(1e-12));
    let mut relative: Vec<(f64, f64)> = batches.iter().map(relative).collect();
    relative.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let size = NEIGHBOURS.min(relative.len().div_ceil(4)).max(1);
    let median = |window: &[(f64, f64)]| {
        let mut ratios: Vec<f64> = window.iter().map(|(_, ratio)| *ratio).collect();
        ratios.sort_by(f64::total_cmp);
        (window.iter().map(|(weight, _)| *weight).sum::<f64>() / window.len() as f64, ratios[ratios.len() / 2])
    };
    relative.windows(size).step_by((size / 4).max(1)).map(median).collect()
}

/// The curve at a weight: between its points as a line, beyond them as at the last.
fn at(curve: &[(f64, f64)], weight: usize) -> f64 {
    let weight = weight as f64;
    let behind = curve.partition_point(|(other, _)| *other < weight);
    match (behind.checked_sub(1).and_then(|before| curve.get(before)), curve.get(behind)) {
        (Some((low, one)), Some((high, other))) => one + (other - one) * (weight - low) / (high - low).max(1e-9),
        (Some((_, ratio)), None) | (None, Some((_, ratio))) => *ratio,
        (None, None) => 1.0,
    }
}

/// The batches that were told to a request, each with the time at which it had ended at the latest.
fn batches_of(request: &ReplayedRequest) -> Vec<(Duration, BatchRun)> {
    let ended = request.at + request.latency;
    match &request.outcome {
        ReplayOutcome::Answered { batches, .. } => {
            batches.iter().filter(|batch| batch.weight > 0).map(|batch| (ended, *batch)).collect()
        }
        ReplayOutcome::Failed(_) => Vec::new(),
    }
}

fn around(request: &ReplayedRequest) -> Option<(f64, f64, f64)> {
    let ReplayOutcome::Answered { stages, weight, .. } = &request.outcome else { return None };
    Some((*weight as f64, stages.before_queue().as_secs_f64(), stages.after_run().as_secs_f64()))
}

fn stage_of(request: &ReplayedRequest, stage: usize) -> Option<Duration> {
    match &request.outcome {
        ReplayOutcome::Answered { stages, .. } => Some(stages.times[stage]),
        ReplayOutcome::Failed(_) => None,
    }
}

/// A random index among the [`NEIGHBOURS`] nearest to `at`, of `len`.
fn near(at: usize, len: usize, rng: &mut StdRng) -> usize {
    let first = at.saturating_sub(NEIGHBOURS / 2).min(len.saturating_sub(NEIGHBOURS));
    rng.random_range(first..(first + NEIGHBOURS).min(len))
}

/// Fits a line by least squares of the relative differences, so that small batches count as much as large ones. Neither part
/// is negative. `None` for fewer than 8 batches.
fn fit(batches: &[BatchRun]) -> Option<CostLine> {
    const MIN_BATCHES: usize = 8;
    if batches.len() < MIN_BATCHES {
        return None;
    }
    let (mut ones, mut weights, mut squares, mut runs, mut products) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for BatchRun { weight, run } in batches {
        let (weight, run) = (*weight as f64, run.as_secs_f64().max(1e-9));
        let counts = 1.0 / (run * run);
        ones += counts;
        weights += counts * weight;
        squares += counts * weight * weight;
        runs += counts * run;
        products += counts * weight * run;
    }
    let determinant = ones * squares - weights * weights;
    // If all weigh the same, the two parts cannot be told apart.
    if determinant <= 1e-9 * ones * squares {
        return Some(CostLine { fixed: runs / ones, per_weight: 0.0 });
    }
    let per_weight = (ones * products - weights * runs) / determinant;
    let fixed = (runs - per_weight * weights) / ones;
    Some(match (fixed < 0.0, per_weight < 0.0) {
        (true, _) => CostLine { fixed: 0.0, per_weight: products / squares },
        (_, true) => CostLine { fixed: runs / ones, per_weight: 0.0 },
        _ => CostLine { fixed, per_weight },
    })
}

#[cfg(test)]
pub(super) mod tests {
    use rand::SeedableRng;
    use sconce::Timing;

    use super::*;
    use crate::replay::Stages;

    /// Requests of one item each, alone in their batches, whose time is a + c · weight in milliseconds.
    pub(in crate::tune) fn requests(a: f64, c: f64, count: usize) -> Vec<ReplayedRequest> {
        let request = |index: usize| {
            let weight = 1 + index % 64;
            let run = Duration::from_secs_f64((a + c * weight as f64) / 1e3);
            let mut timing = Timing::default();
            (timing.prepare, timing.run) = (Duration::from_micros(50), run);
            let latency = run + Duration::from_micros(80);
            let stages = Stages::new(timing, Duration::from_micros(10), latency);
            let outcome =
                ReplayOutcome::Answered { stages, weight, batches: vec![BatchRun { weight, run }], truncated: false };
            ReplayedRequest { at: Duration::ZERO, latency, outcome }
        };
        (0..count).map(request).collect()
    }

    #[test]
    fn the_line_and_the_times_around_it_are_learned() {
        let measured = requests(2.0, 0.1, 500);
        let samples = ServiceSamples::of(&measured, &measured, &measured).unwrap();
        let CostLine { fixed, per_weight } = samples.line();
        assert!((fixed - 2e-3).abs() < 1e-6 && (per_weight - 1e-4).abs() < 1e-7, "{fixed} {per_weight}");
        let mut rng = StdRng::seed_from_u64(1);
        let run = samples.run(200, Duration::from_secs(5), &mut rng).as_secs_f64();
        assert!((run - 22e-3).abs() < 1e-5, "a heavier batch than any measured follows the line: {run}");
        let (before, after) = samples.around(10, &mut rng);
        assert_eq!((before.as_micros(), after.as_micros()), (60, 20));
    }

    #[test]
    fn disturbances_come_in_the_order_in_which_they_were_measured() {
        let mut open = requests(2.0, 0.1, 400);
        for (index, request) in open.iter_mut().enumerate() {
            request.at = Duration::from_millis(index as u64 * 10);
            if index >= 200
                && let ReplayOutcome::Answered { batches, .. } = &mut request.outcome
            {
                for batch in batches {
                    batch.run *= 3;
                }
            }
        }
        let quiet = requests(2.0, 0.1, 2000);
        let samples = ServiceSamples::of(&open, &quiet, &quiet).unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        let mut run = |seconds| samples.run(30, Duration::from_secs_f64(seconds), &mut rng).as_secs_f64() * 1e3;
        for (seconds, expected) in [(1.0, 5.0), (3.0, 15.0), (5.0, 5.0), (7.0, 15.0)] {
            let found = run(seconds);
            assert!((found / expected - 1.0).abs() < 0.1, "{seconds} s: {found} ms");
        }
        assert!((samples.period().as_secs_f64() - 4.0).abs() < 0.1, "{:?}", samples.period());
    }

    #[test]
    fn no_part_of_the_line_is_negative_and_few_batches_tell_nothing() {
        let falling: Vec<BatchRun> =
            (1..100).map(|weight| BatchRun { weight, run: Duration::from_micros(200 - weight as u64) }).collect();
        assert!(fit(&falling).unwrap().per_weight.abs() < 1e-12);
        let steep: Vec<BatchRun> =
            (10..100).map(|weight| BatchRun { weight, run: Duration::from_micros((weight as u64 - 9) * 10) }).collect();
        assert!(fit(&steep).unwrap().fixed.abs() < 1e-12);
        let same = [BatchRun { weight: 7, run: Duration::from_millis(3) }; 20];
        assert_eq!(fit(&same).map(|line| (line.fixed * 1e6).round()), Some(3000.0));
        assert_eq!(fit(&same[..7]), None);
        assert!(ServiceSamples::of(&[], &[], &[]).is_none());
    }
}
