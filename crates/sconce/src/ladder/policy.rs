//! The policy of a precision ladder: the rung that answers, decided from figures.
//!
//! Nothing here sleeps, locks, sends or looks at a clock: `now` and every figure are arguments. The rules:
//!
//! 1. It steps down when a new request would wait for more than [`MAX_WAIT`] of the target: to the highest rung that is fast
//!    enough for the present arrivals, else to the lowest.
//! 2. It steps up, one rung at a time, when the present arrivals would have kept the higher rung busy for less than
//!    [`CALM`] of the time, for as long as it has to rest.
//! 3. Within [`SETTLING`] of a step it takes no step up, and a step down only if the rung cannot keep up at all: one rung
//!    is given time to show that it is the right one, unless the load changes.
//! 4. A step up that did not last doubles the next rest.

use std::fmt;
use std::time::{Duration, Instant};

use sconce_batch::{CostLine, Forecast};

/// The share of the target above which the expected wait of a new request makes the model step down. Smaller: it steps down
/// for waits that would have been in time. Larger: what is queued by then is late, since it shares the device with the lower
/// rung.
const MAX_WAIT: f64 = 0.8;
/// The utilisation of the higher rung, predicted from the present arrivals, below which the model may step up. Smaller: it
/// stays in the lower precision although the higher one would do. Larger: it steps up and has to step down again. The gap to
/// the load at which it steps down, near 1, is what keeps it from going up and down at a steady load.
const CALM: f64 = 0.7;
/// The utilisation from which a rung cannot keep up: queues grow without bound at 1. Smaller: a step within [`SETTLING`] may
/// be taken for chance. Larger: a load that has grown is noticed later.
const SATURATED: f64 = 0.95;
/// The time after a step in which there is no other at the same load. Smaller: it goes up and down more often than people can
/// follow. Larger: the higher precision comes back later.
const SETTLING: Duration = Duration::from_mins(1);
/// The time for which a higher rung must last for the next rest to be short again.
const PROVEN: Duration = Duration::from_mins(10);
/// The longest rest before a step up. Smaller: loads that come and go make it step more often. Larger: it stays in the lower
/// precision for that long after they are gone.
pub(crate) const MAX_REST: Duration = Duration::from_mins(32);
/// The time over which arrivals are averaged to tell if a rung is [`SATURATED`]. Smaller: chance makes the load look as if it
/// grew. Larger: a load that has grown is noticed later.
const SHORT_MEMORY: Duration = Duration::from_secs(5);
/// The time over which arrivals are averaged to tell if it is [`CALM`]. Smaller: chance interrupts the rest of a model that
/// could step up. Larger: a load that has fallen is noticed later.
const LONG_MEMORY: Duration = Duration::from_secs(30);

/// The share of the target that a batch takes at most, in the reckoning of a rung's speed: so that an item which just missed a
/// batch makes the next one in time, as in the batcher.
const BATCH_SHARE: f64 = 0.5;
/// The share that a batch may take for twice its fixed cost, as in the batcher. It also keeps a rung whose full batches alone are
/// known, so that its cost looks fixed, from looking as slow as in batches of one.
const LARGEST_BATCH_SHARE: f64 = 0.75;

/// Decides which rung of a ladder answers. Rungs are numbered from the highest precision on, which is 0.
#[derive(Debug, Clone)]
pub(crate) struct LadderPolicy {
    /// The rung that answers when there is no load.
    home: usize,
    /// The lowest rung that may answer.
    bottom: usize,
    active: usize,
    recent_arrivals: ArrivalRate,
    usual_arrivals: ArrivalRate,
    looked: Option<Instant>,
    last_step: Option<Instant>,
    last_up: Option<Instant>,
    /// The beginning of the time in which the higher rung would have done.
    calm_since: Option<Instant>,
    /// Time for which it must be calm before a step up.
    rest: Duration,
}

/// The figures by which a [`LadderPolicy`] decides.
#[derive(Debug, Clone)]
pub(crate) struct LadderFigures<'a> {
    /// Counts of what arrived since the model was loaded.
    pub(crate) arrived: Arrived,
    /// The time within which requests are to be answered.
    pub(crate) target: Duration,
    /// Most items of a batch.
    pub(crate) max_batch_size: usize,
    /// Most weight of a batch.
    pub(crate) max_batch_weight: usize,
    /// The forecast of each rung.
    pub(crate) forecasts: &'a [Forecast],
}

/// Counts of items that arrived to be computed, refused ones included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// All items.
    pub(crate) items: u64,
    /// Items of known weight: those that were prepared.
    pub(crate) weighed: u64,
    /// The weight of those.
    pub(crate) weight: u64,
}

/// A step of a ladder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LadderStep {
    /// The rung that answered.
    pub(crate) from: usize,
    /// The rung that answers from now on.
    pub(crate) to: usize,
    /// The reason.
    pub(crate) reason: StepReason,
}

/// The reason for a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum StepReason {
    /// A new request would have waited for too long.
    Wait {
        /// The expected wait.
        wait: Duration,
        /// The target.
        target: Duration,
    },
    /// The higher rung is fast enough for the present arrivals.
    Calm {
        /// The predicted utilisation of the higher rung.
        utilisation: f64,
    },
    /// The rung's answers differ too much from those in f32.
    Shadow,
}

impl fmt::Display for StepReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait { wait, target } => {
                write!(out, "a new request would wait for {wait:.1?}, with {target:?} to be answered in")
            }
            Self::Calm { utilisation } => {
                write!(out, "the present load would keep the higher precision busy for {:.0} %", utilisation * 100.0)
            }
            Self::Shadow => write!(out, "too many answers differ from those in f32"),
        }
    }
}

impl LadderPolicy {
    /// Makes the policy of a ladder whose rung `home` answers when there is no load, and whose lowest is `bottom`.
    pub(crate) fn new(home: usize, bottom: usize) -> Self {
        Self {
            home,
            bottom,
            active: home,
            recent_arrivals: ArrivalRate::over(SHORT_MEMORY),
            usual_arrivals: ArrivalRate::over(LONG_MEMORY),
            looked: None,
            last_step: None,
            last_up: None,
            calm_since: None,
            rest: SETTLING,
        }
    }

    /// The rung that answers.
    pub(crate) fn active(&self) -> usize {
        self.active
    }

    /// Decides whether to step. To be called often while requests come: a few times within the target.
    pub(crate) fn look(&mut self, now: Instant, figures: &LadderFigures<'_>) -> Option<LadderStep> {
        let looked = self.looked.replace(now);
        self.recent_arrivals.observe(now, figures.arrived);
        self.usual_arrivals.observe(now, figures.arrived);
        self.step_down(now, figures).or_else(|| self.step_up(now, looked, figures))
    }

    /// Lets neither this rung nor a lower one answer any more; returns the step if one of them did.
    pub(crate) fn forbid(&mut self, now: Instant, rung: usize) -> Option<LadderStep> {
        self.bottom = self.bottom.min(rung.checked_sub(1)?);
        self.home = self.home.min(self.bottom);
        let to = self.active.min(self.bottom);
        (to < self.active).then(|| self.step(now, to, StepReason::Shadow))
    }

    fn step_down(&mut self, now: Instant, figures: &LadderFigures<'_>) -> Option<LadderStep> {
        let (wait, target) = (figures.forecasts[self.active].wait, figures.target);
        if self.active >= self.bottom || wait <= target.mul_f64(MAX_WAIT) {
            return None;
        }
        if self.is_settling(now) && self.recent_arrivals.utilisation(self.active, figures) < SATURATED {
            return None;
        }
        let arrivals = &self.recent_arrivals;
        let present = arrivals.speed(self.active, figures);
        // A lower precision may save memory alone. One that was never measured may be faster.
        let is_faster = |rung: &usize| {
            let speed = arrivals.speed(*rung, figures);
            speed.is_none() || speed > present
        };
        let mut faster = (self.active + 1..=self.bottom).filter(is_faster);
        let keeps_up = |rung: &usize| arrivals.utilisation(*rung, figures) < SATURATED;
        let to = faster.clone().find(keeps_up).or_else(|| faster.next_back())?;
        let lasted = self.last_up.is_none_or(|up| now.saturating_duration_since(up) >= PROVEN);
        self.rest = if lasted { SETTLING } else { (self.rest * 2).min(MAX_REST) };
        Some(self.step(now, to, StepReason::Wait { wait, target }))
    }

    fn step_up(&mut self, now: Instant, looked: Option<Instant>, figures: &LadderFigures<'_>) -> Option<LadderStep> {
        if self.active <= self.home {
            return None;
        }
        let utilisation = self.usual_arrivals.utilisation(self.active - 1, figures);
        let has_grown = self.recent_arrivals.utilisation(self.active - 1, figures) >= SATURATED;
        if utilisation >= CALM || has_grown {
            self.calm_since = None;
            return None;
        }
        // Each arrival makes it look, so nothing came between two looks that are far apart.
        let since = *self.calm_since.get_or_insert(looked.unwrap_or(now));
        if self.is_settling(now) || now.saturating_duration_since(since) < self.rest {
            return None;
        }
        self.last_up = Some(now);
        Some(self.step(now, self.active - 1, StepReason::Calm { utilisation }))
    }

    fn step(&mut self, now: Instant, to: usize, reason: StepReason) -> LadderStep {
        let from = std::mem::replace(&mut self.active, to);
        (self.last_step, self.calm_since) = (Some(now), None);
        LadderStep { from, to, reason }
    }

    fn is_settling(&self, now: Instant) -> bool {
        self.last_step.is_some_and(|step| now.saturating_duration_since(step) < SETTLING)
    }
}

/// The weight that a device computes in a second, in batches that are full or take their share of the target.
fn speed(line: CostLine, mean_weight: f64, figures: &LadderFigures<'_>) -> f64 {
    let by_size = figures.max_batch_size as f64 * mean_weight;
    let target = figures.target.as_secs_f64();
    let time = (target * BATCH_SHARE).max((2.0 * line.fixed).min(target * LARGEST_BATCH_SHARE));
    let by_time = if line.per_weight > 0.0 { (time - line.fixed) / line.per_weight } else { f64::INFINITY };
    let full = by_size.min(figures.max_batch_weight as f64).min(by_time).max(mean_weight);
    full / (line.fixed + line.per_weight * full).max(f64::MIN_POSITIVE)
}

/// The rate of arrivals: sums that forget exponentially.
#[derive(Debug, Clone, Copy)]
struct ArrivalRate {
    /// Time after which an arrival counts for 1/e.
    memory: Duration,
    last: Option<(Instant, Arrived)>,
    /// Seconds, items, weighed items and their weight, each worth less the longer ago it was.
    sums: [f64; 4],
}

impl ArrivalRate {
    fn over(memory: Duration) -> Self {
        Self { memory, last: None, sums: [0.0; 4] }
    }

    fn observe(&mut self, now: Instant, arrived: Arrived) {
        let (last, before) = *self.last.get_or_insert((now, arrived));
        let passed = now.saturating_duration_since(last).as_secs_f64();
        if passed == 0.0 {
            return;
        }
        self.last = Some((now, arrived));
        let kept = (-passed / self.memory.as_secs_f64()).exp();
        // The integral of what is kept of the time that passed.
        let time = self.memory.as_secs_f64() * (1.0 - kept);
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / passed;
        let items = rate(arrived.items, before.items);
        let (weighed, weight) = (rate(arrived.weighed, before.weighed), rate(arrived.weight, before.weight));
        for (sum, rate) in self.sums.iter_mut().zip([1.0, items, weighed, weight]) {
            *sum = *sum * kept + rate * time;
        }
    }

    /// The share of the time for which these arrivals would keep a rung busy; above 1 it cannot keep up. It is 0 as long as
    /// the rung's cost is not known, which its first batches will tell.
    fn utilisation(&self, rung: usize, figures: &LadderFigures<'_>) -> f64 {
        self.speed(rung, figures).map_or(0.0, |speed| self.weight_per_second() / speed)
    }

    /// The weight that a rung computes in a second; `None` as long as its cost is not known.
    fn speed(&self, rung: usize, figures: &LadderFigures<'_>) -> Option<f64> {
        let costs = &figures.forecasts[rung].costs;
        let speed = || costs.iter().map(|line| speed(*line, self.mean_weight(), figures)).sum();
        (!costs.is_empty()).then(speed)
    }

    /// Average weight of an item; 1 until one was weighed.
    fn mean_weight(&self) -> f64 {
        let [_, _, weighed, weight] = self.sums;
        if weighed > 0.0 { (weight / weighed).max(1.0) } else { 1.0 }
    }

    fn weight_per_second(&self) -> f64 {
        let [seconds, items, ..] = self.sums;
        if seconds > 0.0 { items / seconds * self.mean_weight() } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TARGET: Duration = Duration::from_millis(100);

    /// Figures of a second of arrivals after another, of weight 1.
    struct Load {
        now: Instant,
        arrived: u64,
    }

    impl Load {
        /// Looks a second later, with this many arrivals since and this wait on every rung. The higher rung can do 1000 a
        /// second, the lower 2000.
        fn look(&mut self, policy: &mut LadderPolicy, arrivals: u64, wait: Duration) -> Option<LadderStep> {
            self.now += SECOND;
            self.arrived += arrivals;
            let arrived = Arrived { items: self.arrived, weighed: self.arrived, weight: self.arrived };
            let forecast = |per_weight| {
                let mut forecast = Forecast::default();
                (forecast.wait, forecast.costs) = (wait, vec![CostLine { fixed: 0.0, per_weight }]);
                forecast
            };
            let forecasts = [forecast(0.001), forecast(0.0005)];
            let (max_batch_size, max_batch_weight) = (32, 1024);
            let figures =
                LadderFigures { arrived, target: TARGET, max_batch_size, max_batch_weight, forecasts: &forecasts };
            policy.look(self.now, &figures)
        }
    }

    fn load() -> Load {
        Load { now: Instant::now(), arrived: 0 }
    }

    #[test]
    fn it_steps_down_for_a_long_wait_and_up_after_a_minute_of_calm() {
        let (mut load, mut policy) = (load(), LadderPolicy::new(0, 1));
        assert_eq!(load.look(&mut policy, 900, TARGET / 2), None);
        let down = load.look(&mut policy, 900, TARGET).expect("it waits for too long");
        assert_eq!((down.from, down.to), (0, 1));
        for _ in 0..30 {
            assert_eq!(load.look(&mut policy, 1500, TARGET / 4), None, "the load is too high");
        }
        let calm = (0..120).position(|_| load.look(&mut policy, 500, TARGET / 4).is_some()).expect("it steps up");
        assert!((60..110).contains(&calm), "{calm} seconds");
        assert_eq!(policy.active(), 0);
    }

    #[test]
    fn after_a_step_up_a_long_wait_counts_only_if_the_load_has_grown() {
        let (mut load, mut policy) = (load(), LadderPolicy::new(0, 1));
        assert!(load.look(&mut policy, 900, TARGET).is_some());
        while load.look(&mut policy, 500, TARGET / 4).is_none() {}
        assert_eq!(load.look(&mut policy, 500, TARGET), None, "that may be chance");
        let step = (0..30).find_map(|_| load.look(&mut policy, 1200, TARGET)).expect("f32 cannot keep up with that");
        assert_eq!(step.to, 1);
    }

    #[test]
    fn each_step_up_that_did_not_last_doubles_the_rest() {
        let (mut load, mut policy) = (load(), LadderPolicy::new(0, 1));
        let mut rests = Vec::new();
        for _ in 0..8 {
            while load.look(&mut policy, 500, TARGET).is_none() {}
            rests.push((1..100_000).find(|_| load.look(&mut policy, 500, TARGET / 4).is_some()).expect("it steps up"));
        }
        assert_eq!(rests, [60, 120, 240, 480, 960, 1920, 1920, 1920]);
        (0..PROVEN.as_secs()).for_each(|_| _ = load.look(&mut policy, 500, TARGET / 4));
        assert!(load.look(&mut policy, 500, TARGET).is_some());
        assert_eq!(
            (1..100_000).find(|_| load.look(&mut policy, 500, TARGET / 4).is_some()),
            Some(60),
            "that one lasted"
        );
    }

    #[test]
    fn it_does_not_step_down_to_what_is_no_faster() {
        let (mut load, mut policy) = (load(), LadderPolicy::new(1, 1));
        policy.home = 0;
        assert_eq!(load.look(&mut policy, 900, TARGET), None, "there is no lower one");
        let slower = [0.001, 0.002].map(|per_weight| {
            let mut forecast = Forecast::default();
            (forecast.wait, forecast.costs) = (TARGET * 2, vec![CostLine { fixed: 0.0, per_weight }]);
            forecast
        });
        let arrived = Arrived::default();
        let (max_batch_size, max_batch_weight) = (32, 1024);
        let figures = LadderFigures { arrived, target: TARGET, max_batch_size, max_batch_weight, forecasts: &slower };
        assert_eq!(LadderPolicy::new(0, 1).look(load.now, &figures), None);
    }

    #[test]
    fn an_idle_hour_counts_as_calm() {
        let (mut load, mut policy) = (load(), LadderPolicy::new(0, 1));
        assert!(load.look(&mut policy, 1500, TARGET).is_some());
        load.now += Duration::from_hours(1);
        assert!(load.look(&mut policy, 1, Duration::ZERO).is_some());
    }

    #[test]
    fn a_rung_that_is_forbidden_answers_no_more_whatever_the_load() {
        let (mut load, mut policy) = (load(), LadderPolicy::new(0, 1));
        assert!(load.look(&mut policy, 1500, TARGET).is_some());
        let step = policy.forbid(load.now, 1).expect("it answers in it");
        assert_eq!((step.from, step.to, step.reason), (1, 0, StepReason::Shadow));
        assert!((0..200).all(|_| load.look(&mut policy, 5000, TARGET * 10).is_none()));
        let mut lower_only = LadderPolicy::new(1, 1);
        assert_eq!(lower_only.forbid(load.now, 1).map(|step| step.to), Some(0));
        assert_eq!(lower_only.forbid(load.now, 1), None);
        assert_eq!(LadderPolicy::new(0, 1).forbid(load.now, 0), None, "the highest is the reference");
    }
}
