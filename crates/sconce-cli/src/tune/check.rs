//! The check of an advice: it and the default are run in turns under the load of one replica.

use std::time::{Duration, Instant};

use sconce_trace::RequestTrace;

use super::calibrate::Bench;
use super::search::FoundSettings;
use super::simulate::p99_of_all;
use super::{Setting, share_of_trace};
use crate::error::Error;
use crate::progress;
use crate::replay::{ReplayPlan, Replayer, StageFigures};

/// Time for which each setting runs before it is measured, so that its batcher has learned what batches cost.
const WARM_UP: Duration = Duration::from_secs(1);

/// The measured runs of the settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checked {
    pub(crate) advised: MeasuredRuns,
    /// `None` if the advice is the default.
    pub(crate) default: Option<MeasuredRuns>,
}

/// Measured runs of one setting.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MeasuredRuns {
    pub(crate) runs: Vec<MeasuredRun>,
    /// Bytes of memory that the process had resident at the end.
    pub(crate) resident_bytes: Option<u64>,
}

/// One measured run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MeasuredRun {
    pub(crate) p50: Duration,
    /// `None` if more than 1 % were not answered.
    pub(crate) p99: Option<Duration>,
    pub(crate) throughput: f64,
}

impl MeasuredRuns {
    /// The median p99; `None` if more than 1 % were not answered.
    pub(crate) fn p99(&self) -> Option<Duration> {
        let p99s = self.sorted(|run| run.p99.unwrap_or(Duration::MAX).as_nanos());
        p99s.get(p99s.len() / 2).and_then(|run| run.p99)
    }

    pub(crate) fn p50(&self) -> Duration {
        let p50s = self.sorted(|run| run.p50.as_nanos());
        p50s.get(p50s.len() / 2).map_or(Duration::ZERO, |run| run.p50)
    }

    pub(crate) fn throughput(&self) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and it saturates")]
        let throughputs = self.sorted(|run| (run.throughput * 1e6) as u128);
        throughputs.get(throughputs.len() / 2).map_or(0.0, |run| run.throughput)
    }

    /// The difference between the slowest and the fastest p99, as a share of the median; `None` if one is not known.
    pub(crate) fn spread(&self) -> Option<f64> {
        let p99s: Option<Vec<f64>> = self.runs.iter().map(|run| Some(run.p99?.as_secs_f64())).collect();
        let p99s = p99s?;
        let (low, high) =
            (p99s.iter().copied().fold(f64::INFINITY, f64::min), p99s.iter().copied().fold(0.0, f64::max));
        Some((high - low) / self.p99()?.as_secs_f64().max(1e-9))
    }

    fn sorted(&self, by: impl Fn(&MeasuredRun) -> u128) -> Vec<MeasuredRun> {
        let mut runs = self.runs.clone();
        runs.sort_by_key(by);
        runs
    }

    /// Returns true if these runs are slower than the others: at the p99, or in answers per second.
    pub(crate) fn is_slower_than(&self, other: &Self) -> bool {
        let p99 = |measured: &Self| measured.p99().unwrap_or(Duration::MAX);
        p99(self) > p99(other) || self.throughput() < other.throughput() * 0.98
    }
}

/// Runs the advice and, if it differs, the default, in turns, each under the load of one replica.
pub(crate) async fn check(
    bench: &Bench<'_>,
    found: &FoundSettings,
    trace: &RequestTrace,
    rounds: usize,
) -> Result<Checked, Error> {
    let load = share_of_trace(trace, found.replicas);
    let mut settings: Vec<&Setting> = vec![&found.advised.setting];
    if found.advised.setting != found.default.setting {
        settings.push(&found.default.setting);
    }
    let started = settings.iter().map(|setting| bench.start(Some(setting)));
    let started = started.collect::<Result<Vec<_>, _>>()?;
    let turns = load.len() * settings.len() * rounds;
    let bar = progress::count_bar(turns as u64, format!("running {} with the advice and the default", bench.name));
    let quiet = indicatif::ProgressBar::hidden();
    let mut measured = vec![MeasuredRuns::default(); settings.len()];
    for (_, model) in &started {
        let plan = ReplayPlan::new(&load.busiest(WARM_UP), model);
        Replayer { model, progress: &quiet, stop: bench.stop }.run(&plan).await;
    }
    for _ in 0..rounds {
        for ((runtime, model), measured) in started.iter().zip(&mut measured) {
            let plan = ReplayPlan::new(&load, model);
            let begun = Instant::now();
            let replayed = Replayer { model, progress: &bar, stop: bench.stop }.run(&plan).await;
            let first = plan.requests.first().map_or(Duration::ZERO, |request| request.at);
            let took = begun.elapsed().saturating_sub(first).as_secs_f64().max(1e-9);
            let figures = StageFigures::of(&replayed);
            measured.runs.push(MeasuredRun {
                p50: figures.latency.quantile(0.5),
                p99: p99_of_all(&figures.latency, figures.failed),
                throughput: figures.latency.len() as f64 / took,
            });
            measured.resident_bytes = runtime.metrics().resident_bytes;
        }
    }
    bar.finish_and_clear();
    for (runtime, _) in started {
        runtime.shutdown().await;
    }
    let mut measured = measured.into_iter();
    Ok(Checked { advised: measured.next().unwrap_or_default(), default: measured.next() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(p99s_ms: &[u64], throughput: f64) -> MeasuredRuns {
        let run = |ms: &u64| {
            let p99 = (*ms > 0).then(|| Duration::from_millis(*ms));
            MeasuredRun { p50: Duration::from_millis(1), p99, throughput }
        };
        MeasuredRuns { runs: p99s_ms.iter().map(run).collect(), resident_bytes: None }
    }

    #[test]
    fn the_median_counts_and_a_run_with_failures_is_the_slowest() {
        assert_eq!(measured(&[30, 10, 20], 1.0).p99(), Some(Duration::from_millis(20)));
        assert_eq!(measured(&[0, 10, 20], 1.0).p99(), Some(Duration::from_millis(20)));
        assert_eq!(measured(&[0, 0, 20], 1.0).p99(), None);
        assert!(measured(&[30, 10, 20], 1.0).spread().is_some_and(|spread| (spread - 1.0).abs() < 1e-9));
        assert_eq!(measured(&[0, 10], 1.0).spread(), None);
    }

    #[test]
    fn an_advice_is_slower_at_its_p99_or_in_its_throughput() {
        let default = measured(&[20, 21, 22], 100.0);
        assert!(!measured(&[20, 20, 20], 99.0).is_slower_than(&default));
        assert!(measured(&[20, 22, 22], 100.0).is_slower_than(&default));
        assert!(measured(&[20, 20, 20], 90.0).is_slower_than(&default));
        assert!(measured(&[0, 0, 20], 100.0).is_slower_than(&default));
    }
}
