//! The precision ladder: a model that steps down to a lower precision under load, and back up.
//!
//! `policy.rs` decides and is pure; `simulation.rs` runs it in virtual time. `rungs.rs` holds a network and a queue for each
//! precision; a request is given to a rung when it is admitted, and stays there.

mod config;
mod policy;
mod rungs;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sconce_batch::BatcherConfig;

pub(crate) use config::RungPlan;
pub use config::{LadderConfig, LadderError};
pub(crate) use policy::LadderStep;
use policy::{Arrived, LadderFigures, LadderPolicy};
pub(crate) use rungs::{Rung, Rungs};

/// The number of looks at the figures within the target. Fewer: it steps down later, when more is queued. More: requests
/// lock the queues of all rungs more often.
const LOOKS_PER_TARGET: u32 = 32;

/// The policy of a model with several rungs, with the figures that it needs.
pub(crate) struct Ladder {
    policy: Mutex<LadderPolicy>,
    /// The policy's active rung, written under its lock and read without.
    active: AtomicUsize,
    /// The ladder's target; `None` if there is no ladder, and the rungs are there for the shadow check.
    target: Option<Duration>,
    max_batch_size: usize,
    max_batch_weight: usize,
    began: Instant,
    /// Nanoseconds from the beginning to the next look.
    next_look: AtomicU64,
    items: AtomicU64,
    weighed: AtomicU64,
    weight: AtomicU64,
    steps_down: AtomicU64,
    steps_up: AtomicU64,
}

/// Counts of a ladder's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LadderSteps {
    pub(crate) down: u64,
    pub(crate) up: u64,
}

impl Ladder {
    /// Makes the ladder of a plan with several rungs.
    pub(crate) fn new(plan: &RungPlan, batching: &BatcherConfig) -> Self {
        let bottom = if plan.target.is_some() { plan.precisions.len() - 1 } else { plan.home };
        Self {
            policy: Mutex::new(LadderPolicy::new(plan.home, bottom)),
            active: AtomicUsize::new(plan.home),
            target: plan.target,
            max_batch_size: batching.max_batch_size,
            max_batch_weight: batching.max_batch_weight,
            began: Instant::now(),
            next_look: AtomicU64::new(0),
            items: AtomicU64::new(0),
            weighed: AtomicU64::new(0),
            weight: AtomicU64::new(0),
            steps_down: AtomicU64::new(0),
            steps_up: AtomicU64::new(0),
        }
    }

    /// Counts items that came to be computed, with their weight if they were prepared.
    pub(crate) fn arrived(&self, items: usize, weight: Option<usize>) {
        self.items.fetch_add(items as u64, Ordering::Relaxed);
        if let Some(weight) = weight {
            self.weighed.fetch_add(items as u64, Ordering::Relaxed);
            self.weight.fetch_add(weight as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn steps(&self) -> LadderSteps {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LadderSteps { down: of(&self.steps_down), up: of(&self.steps_up) }
    }

    /// The rung that answers requests which ask for no precision.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// Asks the policy if it is time to; one caller looks at a time.
    fn look(&self, now: Instant, rungs: &Rungs) -> Option<LadderStep> {
        let target = self.target?;
        let passed = nanoseconds(now.saturating_duration_since(self.began));
        let due = self.next_look.load(Ordering::Relaxed);
        let next = passed.saturating_add(nanoseconds(target / LOOKS_PER_TARGET));
        if passed < due || self.next_look.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return None;
        }
        self.decide(now, target, rungs)
    }

    fn decide(&self, now: Instant, target: Duration, rungs: &Rungs) -> Option<LadderStep> {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let arrived = Arrived { items: of(&self.items), weighed: of(&self.weighed), weight: of(&self.weight) };
        let mean_weight = arrived.weight.checked_div(arrived.weighed).unwrap_or(1).max(1);
        let mean_weight = usize::try_from(mean_weight).unwrap_or(usize::MAX);
        let forecasts: Vec<_> = rungs.all().iter().map(|rung| rung.queue.forecast(mean_weight)).collect();
        let typical = forecasts.iter().filter_map(|forecast| forecast.typical_time).min();
        let figures = LadderFigures {
            arrived,
            target: typical.map_or(target, |typical| typical.min(target)),
            max_batch_size: self.max_batch_size,
            max_batch_weight: self.max_batch_weight,
            forecasts: &forecasts,
        };
        self.step(|policy| policy.look(now, &figures))
    }

    /// Lets neither a rung nor a lower one answer any more.
    fn forbid(&self, now: Instant, rung: usize) -> Option<LadderStep> {
        self.step(|policy| policy.forbid(now, rung))
    }

    fn step(&self, decide: impl FnOnce(&mut LadderPolicy) -> Option<LadderStep>) -> Option<LadderStep> {
        let mut policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        let step = decide(&mut policy)?;
        self.active.store(policy.active(), Ordering::Relaxed);
        let steps = if step.to > step.from { &self.steps_down } else { &self.steps_up };
        steps.fetch_add(1, Ordering::Relaxed);
        Some(step)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
