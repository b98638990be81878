//! Sums of a replay: latencies, and where they went by stage.

use std::time::Duration;

use sconce::Timing;

use super::driver::{ReplayOutcome, ReplayedRequest};

/// The stages of a request, in their order.
pub(crate) const STAGES: [&str; 6] = ["cache", "prepare", "queue", "run", "finish", "hand-offs"];

/// Index of a stage in [`STAGES`].
pub(crate) mod stage {
    pub(crate) const CACHE: usize = 0;
    pub(crate) const PREPARE: usize = 1;
    pub(crate) const QUEUE: usize = 2;
    pub(crate) const RUN: usize = 3;
    pub(crate) const FINISH: usize = 4;
    pub(crate) const HAND_OFFS: usize = 5;
}

/// Times of a request's stages, in the order of [`STAGES`]. The last is all that no other stage has: the request waits
/// for a thread, or its answer does. The sum is the latency.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Stages {
    pub(crate) times: [Duration; STAGES.len()],
    /// The part of the hand-offs before the first stage.
    pub(crate) late: Duration,
}

impl Stages {
    pub(crate) fn new(timing: Timing, late: Duration, latency: Duration) -> Self {
        let Timing { cache, prepare, queue_wait, run, finish, .. } = timing;
        let rest = latency.saturating_sub(cache + prepare + queue_wait + run + finish);
        Self { times: [cache, prepare, queue_wait, run, finish, rest], late }
    }

    /// Time before the item was offered to the queue.
    pub(crate) fn before_queue(&self) -> Duration {
        self.late + self.times[stage::CACHE] + self.times[stage::PREPARE]
    }

    /// Time after the item's batch ran.
    pub(crate) fn after_run(&self) -> Duration {
        self.times[stage::FINISH] + self.times[stage::HAND_OFFS].saturating_sub(self.late)
    }
}

/// Times in ascending order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SortedTimes(Vec<Duration>);

impl FromIterator<Duration> for SortedTimes {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort_unstable();
        Self(times)
    }
}

impl SortedTimes {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time within which this part (0 to 1) of the events ended: the smallest that is at least as large as that part of
    /// them. Zero if there are none.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of times"
        )]
        let rank = (part.clamp(0.0, 1.0) * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The average of the slowest `part` (0 to 1) of them, in seconds; 0 if there are none.
    pub(crate) fn mean_of_slowest(&self, part: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of times"
        )]
        let count = ((part * self.0.len() as f64).ceil() as usize).min(self.0.len());
        let slowest = &self.0[self.0.len() - count..];
        slowest.iter().map(Duration::as_secs_f64).sum::<f64>() / count.max(1) as f64
    }

    /// The average in seconds; 0 if there are none.
    pub(crate) fn mean(&self) -> f64 {
        let sum: f64 = self.0.iter().map(Duration::as_secs_f64).sum();
        sum / self.0.len().max(1) as f64
    }
}

/// The stages to which the time of answered requests went.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StageFigures {
    pub(crate) latency: SortedTimes,
    /// By stage, in the order of [`STAGES`].
    pub(crate) stages: Vec<SortedTimes>,
    /// Average time of each stage, in seconds, over the slowest hundredth of the requests.
    pub(crate) of_slowest: [f64; STAGES.len()],
    pub(crate) failed: usize,
}

impl StageFigures {
    pub(crate) fn of(replayed: &[ReplayedRequest]) -> Self {
        let mut answered: Vec<(Duration, &Stages)> = replayed
            .iter()
            .filter_map(|request| match &request.outcome {
                ReplayOutcome::Answered { stages, .. } => Some((request.latency, stages)),
                ReplayOutcome::Failed(_) => None,
            })
            .collect();
        answered.sort_by_key(|(latency, _)| *latency);
        let slowest = &answered[answered.len() - answered.len().div_ceil(100)..];
        let mean_of_slowest = |stage: usize| {
            let sum: f64 = slowest.iter().map(|(_, stages)| stages.times[stage].as_secs_f64()).sum();
            sum / slowest.len().max(1) as f64
        };
        Self {
            latency: answered.iter().map(|(latency, _)| *latency).collect(),
            stages: (0..STAGES.len())
                .map(|stage| answered.iter().map(|(_, stages)| stages.times[stage]).collect())
                .collect(),
            of_slowest: std::array::from_fn(mean_of_slowest),
            failed: replayed.len() - answered.len(),
        }
    }

    /// The stage's share of all time, from 0 to 1.
    pub(crate) fn share(&self, stage: usize) -> f64 {
        let all: f64 = self.stages.iter().map(SortedTimes::mean).sum();
        if all > 0.0 { self.stages[stage].mean() / all } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_smallest_times_that_cover_their_part() {
        let times: SortedTimes = (1..=100).rev().map(Duration::from_millis).collect();
        let ms = |part| times.quantile(part).as_millis();
        assert_eq!((ms(0.0), ms(0.5), ms(0.99), ms(1.0)), (1, 50, 99, 100));
        assert!((times.mean_of_slowest(0.05) - 0.098).abs() < 1e-9);
        assert_eq!(SortedTimes::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn the_stages_add_up_to_the_latency() {
        let ms = Duration::from_millis;
        let replayed: Vec<ReplayedRequest> = (1..=200)
            .map(|index| {
                let mut timing = Timing::default();
                (timing.prepare, timing.run) = (ms(1), ms(index));
                let latency = ms(index + 3);
                let stages = Stages::new(timing, ms(1), latency);
                let outcome = ReplayOutcome::Answered { stages, weight: 1, batches: Vec::new(), truncated: false };
                ReplayedRequest { at: ms(index), latency, outcome }
            })
            .collect();
        let figures = StageFigures::of(&replayed);
        let sum: f64 = figures.stages.iter().map(SortedTimes::mean).sum();
        assert!((sum - figures.latency.mean()).abs() < 1e-9);
        assert!((figures.of_slowest[stage::RUN] - 0.1995).abs() < 1e-9, "{:?}", figures.of_slowest);
        assert!((0..STAGES.len()).map(|stage| figures.share(stage)).sum::<f64>() > 0.999);
    }
}
