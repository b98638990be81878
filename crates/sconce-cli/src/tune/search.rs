//! The search for settings: the fewest replicas that meet the objective, and with them the settings with the lowest p99.

use std::collections::HashSet;
use std::time::Duration;

use sconce::BatcherConfig;

use super::calibrate::Calibrated;
use super::simulate::{SimulatedRun, simulate};
use super::{Setting, share};
use crate::replay::PlannedRequest;

/// Requests of a simulation that only compares settings.
const SCREENED: usize = 4000;

/// The seeds of the simulations that predict. Their spread tells how much is chance.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;

/// Settings whose p99 is within this factor of the best are as good: the first of them is advised, which is the default if
/// it is one of them.
const AS_GOOD: f64 = 1.03;

/// The objective.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Objective {
    pub(crate) slo: Duration,
    pub(crate) max_replicas: usize,
}

/// A search over the measured settings.
pub(crate) struct Search<'a> {
    /// The default first.
    pub(crate) calibrated: &'a [Calibrated],
    pub(crate) objective: Objective,
    /// The whole load.
    pub(crate) requests: &'a [PlannedRequest],
}

/// The result of a search.
#[derive(Debug, Clone)]
pub(crate) struct FoundSettings {
    /// The fewest replicas that meet the objective, or as many as there may be.
    pub(crate) replicas: usize,
    pub(crate) advised: Predicted,
    /// The default settings with as many replicas.
    pub(crate) default: Predicted,
    /// The fewest replicas with which the default settings meet the objective; `None` if no number does.
    pub(crate) default_replicas: Option<usize>,
    /// Settings that were simulated.
    pub(crate) simulated: usize,
}

/// Settings, and what a simulation says of them.
#[derive(Debug, Clone)]
pub(crate) struct Predicted {
    pub(crate) setting: Setting,
    /// Index of the measurement that the simulation draws from.
    pub(crate) calibrated: usize,
    /// The median over several simulations, and the smallest and the largest; `None` if more than 1 % are not answered.
    pub(crate) p99: Option<Duration>,
    pub(crate) p99_range: Option<(Duration, Duration)>,
    pub(crate) p50: Duration,
    pub(crate) throughput: f64,
    pub(crate) utilisation: f64,
    pub(crate) batch_size: f64,
}

impl Predicted {
    pub(crate) fn meets(&self, slo: Duration) -> bool {
        self.p99.is_some_and(|p99| p99 <= slo)
    }
}

impl Search<'_> {
    pub(crate) fn run(&self) -> FoundSettings {
        let candidates = self.candidates();
        let max = self.objective.max_replicas.min(self.requests.len().max(1));
        let meets = |replicas: usize| self.best_of(&candidates, replicas).1;
        let default_meets = |replicas: usize| self.best_of(&candidates[..1], replicas).1;
        let replicas = least(max, meets);
        let default_replicas = least(max, default_meets);
        let replicas_or_max = replicas.unwrap_or(max);
        let (best, _) = self.best_of(&candidates, replicas_or_max);
        FoundSettings {
            replicas: replicas_or_max,
            advised: self.predict(&candidates[best], replicas_or_max),
            default: self.predict(&candidates[0], replicas_or_max),
            default_replicas,
            simulated: candidates.len(),
        }
    }

    /// Index of the best candidate with so many replicas, and true if it meets the objective.
    fn best_of(&self, candidates: &[(usize, Setting)], replicas: usize) -> (usize, bool) {
        let mut requests = share(self.requests, replicas);
        requests.truncate(SCREENED);
        let p99s: Vec<Duration> = candidates
            .iter()
            .map(|(calibrated, setting)| {
                let Calibrated { samples, correction, .. } = &self.calibrated[*calibrated];
                let p99 = simulate(&requests, &setting.config, samples, 1).p99();
                p99.map_or(Duration::MAX, |p99| p99.mul_f64(correction.tail))
            })
            .collect();
        let best = p99s.iter().min().copied().unwrap_or(Duration::MAX);
        let as_good = |p99: &Duration| p99.as_secs_f64() <= best.as_secs_f64() * AS_GOOD;
        (p99s.iter().position(as_good).unwrap_or(0), best <= self.objective.slo)
    }

    /// Predicts the run of one of so many replicas over the whole load.
    fn predict(&self, (calibrated, setting): &(usize, Setting), replicas: usize) -> Predicted {
        let requests = share(self.requests, replicas);
        let Calibrated { samples, correction, .. } = &self.calibrated[*calibrated];
        let mut runs: Vec<SimulatedRun> =
            SEEDS.map(|seed| simulate(&requests, &setting.config, samples, seed)).collect();
        runs.sort_by_key(|run| run.p99().unwrap_or(Duration::MAX));
        let p99 = |run: &SimulatedRun| Some(run.p99()?.mul_f64(correction.tail));
        let p99_range = runs.first().and_then(p99).zip(runs.last().and_then(p99));
        let middle = &runs[runs.len() / 2];
        Predicted {
            setting: setting.clone(),
            calibrated: *calibrated,
            p99: p99(middle),
            p99_range,
            p50: middle.latency.quantile(0.5).mul_f64(correction.median),
            throughput: middle.throughput,
            utilisation: middle.utilisation,
            batch_size: middle.batch_size,
        }
    }

    /// Every setting to simulate, each with its measurement; the default first.
    fn candidates(&self) -> Vec<(usize, Setting)> {
        let mut candidates = Vec::new();
        for (index, calibrated) in self.calibrated.iter().enumerate() {
            let own = bounds(calibrated, self.objective.slo);
            candidates.extend(own.into_iter().map(|config| (index, Setting { config, ..calibrated.setting.clone() })));
        }
        candidates
    }
}

/// Bounds of batches to try for one measurement: those that it was measured with first.
fn bounds(calibrated: &Calibrated, slo: Duration) -> Vec<BatcherConfig> {
    let base = &calibrated.setting.config;
    let line = calibrated.samples.line();
    // Batches that take a certain part of the objective.
    let weight_within = |part: f64| {
        let seconds = slo.as_secs_f64() * part - line.fixed;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and it saturates")]
        let weight = (seconds.max(0.0) / line.per_weight.max(1e-12)) as usize;
        weight.clamp(calibrated.heaviest, base.max_queue_weight)
    };
    let weights = [base.max_batch_weight, weight_within(0.5), weight_within(0.33), weight_within(0.2)];
    let sizes = [base.max_batch_size, base.max_batch_size * 4, 1];
    // In whole microseconds, as sconce.toml has them.
    let delay = |part: f64| {
        let delay = Duration::try_from_secs_f64((line.fixed * part).min(1.0)).unwrap_or_default();
        delay.saturating_sub(Duration::from_nanos(u64::from(delay.subsec_nanos() % 1000)))
    };
    let delays = [base.max_queue_delay, Duration::ZERO, delay(0.5), delay(2.0)];
    let mut tried = HashSet::new();
    let mut configs = Vec::new();
    for max_batch_weight in weights {
        for max_batch_size in sizes {
            for max_queue_delay in delays {
                let max_batch_size = max_batch_size.min(base.max_queue_size).max(1);
                if tried.insert((max_batch_weight, max_batch_size, max_queue_delay)) {
                    configs.push(BatcherConfig { max_batch_size, max_batch_weight, max_queue_delay, ..base.clone() });
                }
            }
        }
    }
    configs
}

/// The least number up to `max` for which `meets` is true, if it is true for all above; `None` if it is not true for `max`.
fn least(max: usize, meets: impl Fn(usize) -> bool) -> Option<usize> {
    let mut high = 1;
    while !meets(high) {
        if high == max {
            return None;
        }
        high = (high * 2).min(max);
    }
    // It is not true for half of `high`.
    let mut low = high / 2;
    while low + 1 < high {
        let middle = low.midpoint(high);
        if meets(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use sconce::Precision;

    use super::super::calibrate::Correction;
    use super::super::samples::ServiceSamples;
    use super::super::samples::tests::requests;
    use super::*;

    fn calibrated(threads: usize, a: f64, c: f64) -> Calibrated {
        let measured = requests(a, c, 500);
        let setting = Setting {
            threads: NonZeroUsize::new(threads).unwrap(),
            precision: Precision::F32,
            config: BatcherConfig::default(),
        };
        let samples = ServiceSamples::of(&measured, &measured, &measured).unwrap();
        Calibrated {
            setting,
            samples,
            correction: Correction::NONE,
            capacity: 0.0,
            weight_bytes: 0,
            bytes_per_weight: 0,
            heaviest: 64,
        }
    }

    fn load(rate: usize, count: usize) -> Vec<PlannedRequest> {
        let at = |index: usize| Duration::from_secs_f64(index as f64 / rate as f64);
        (0..count).map(|index| PlannedRequest::sized(at(index), vec![32])).collect()
    }

    fn search(calibrated: &[Calibrated], requests: &[PlannedRequest], slo_ms: u64) -> FoundSettings {
        let objective = Objective { slo: Duration::from_millis(slo_ms), max_replicas: 64 };
        Search { calibrated, objective, requests }.run()
    }

    #[test]
    fn the_least_number_is_found_and_none_if_there_is_none() {
        for least_of_all in [1, 2, 3, 7, 8, 64] {
            assert_eq!(least(64, |number| number >= least_of_all), Some(least_of_all));
        }
        assert_eq!(least(64, |number| number > 64), None);
    }

    #[test]
    fn as_many_replicas_are_advised_as_the_load_needs() {
        // An item takes 3.2 ms beside a fixed 1 ms: at most 312 a second.
        let found = search(&[calibrated(2, 1.0, 0.1)], &load(1000, 4000), 50);
        assert_eq!((found.replicas, found.advised.meets(Duration::from_millis(50))), (4, true), "{found:?}");
        assert!(found.default_replicas.is_some_and(|replicas| replicas >= 4));
    }

    #[test]
    fn batches_are_bounded_where_large_ones_take_too_long() {
        // Twenty at a time every half second: in one batch they take 65 ms, alone 4.2 ms.
        let bursts: Vec<PlannedRequest> = (0..1000_u64)
            .map(|index| PlannedRequest::sized(Duration::from_millis(index / 20 * 500 + index % 20 * 6), vec![32]))
            .collect();
        let found = search(&[calibrated(2, 1.0, 0.1)], &bursts, 20);
        assert!(found.replicas == 1 && found.advised.meets(Duration::from_millis(20)), "{found:?}");
    }

    #[test]
    fn the_default_is_kept_where_nothing_is_better_and_faster_threads_are_chosen() {
        let two = calibrated(2, 1.0, 0.1);
        let found = search(&[two], &load(50, 500), 50);
        assert_eq!(found.advised.setting, found.default.setting);
        let found = search(&[calibrated(2, 1.0, 0.1), calibrated(1, 0.5, 0.05)], &load(50, 500), 50);
        assert_eq!(found.advised.setting.threads.get(), 1);
    }

    #[test]
    fn an_objective_that_no_number_meets_is_told_as_such() {
        let found = search(&[calibrated(2, 5.0, 0.1)], &load(100, 1000), 1);
        assert!(!found.advised.meets(Duration::from_millis(1)) && found.default_replicas.is_none());
    }
}
