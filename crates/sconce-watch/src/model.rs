//! The watches over one model: its stages, and what each is compared under.

use std::time::{Duration, Instant};

use crate::cost_parts::{CostPart, CostParts};
use crate::drift::Observed;
use crate::{Condition, Drift, DriftRules, DriftWatch, Transition};

/// Added to times, so that changes of less than about a microsecond do not count.
const FLOOR: f64 = 10e-6;
/// Least time between two samples of one stage: a thousand in a second tell as much as a million, and cost less.
const SPACING: Duration = Duration::from_millis(1);
/// Least time and least number of requests over which shares are counted.
const TALLY: Duration = Duration::from_secs(1);
const MIN_TALLY: u32 = 32;
/// Added to waits before they are compared with the time of a batch, as the time that waking a thread takes.
const WAKE: f64 = 100e-6;
/// Number of groups of utilisation.
const LOADS: f64 = 20.0;

/// The stage of a request that has become slower, or the share that has become larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WatchedStage {
    /// Preparing inputs, compared at the same weight.
    Prepare,
    /// Looking answers up, compared at the same source.
    Cache,
    /// Waiting in the queue, in multiples of a batch's time, compared at the same utilisation.
    Queue,
    /// Running batches, compared at the same weight and device.
    Run,
    /// Running batches, compared with the line a + c·weight on which the decision about the precision rests.
    Decision,
    /// Finishing outputs, compared at the same weight.
    Finish,
    /// The share of requests that the cache did not answer, compared at the same traffic.
    Misses,
    /// The share of requests that failed without a fault of the caller.
    Errors,
}

impl WatchedStage {
    /// The stage in one word, such as `prepare`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Cache => "cache",
            Self::Queue => "queue",
            Self::Run => "run",
            Self::Decision => "decision",
            Self::Finish => "finish",
            Self::Misses => "misses",
            Self::Errors => "errors",
        }
    }
}

/// A stage that is worse than it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Degradation {
    /// The stage.
    pub stage: WatchedStage,
    /// The device, for a run and for a decision.
    pub device: Option<usize>,
    /// The part of a batch's cost that has grown; `None` if it cannot be told, or for other stages.
    pub part: Option<CostPart>,
    /// The estimated beginning.
    pub since: Instant,
    /// The instant at which it was reported.
    pub reported: Instant,
    /// The figure as it was: seconds; multiples of a batch's time for the queue; shares of requests for misses and errors.
    pub usual: f64,
    /// The figure as it is now, in the same unit and under the same conditions.
    pub present: f64,
}

impl Degradation {
    /// The figure now, as a multiple of what it was.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.present / self.usual.max(f64::MIN_POSITIVE)
    }
}

/// The beginning or the end of a degradation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DegradationEvent {
    /// A stage is worse.
    Began(Degradation),
    /// A stage is as it was.
    Ended(Degradation),
}

/// The watches over a model's stages: a pure state machine. Each method takes the figures of one request or batch.
#[derive(Debug, Clone)]
pub struct ModelWatch {
    prepare: TimeWatch,
    cache: TimeWatch,
    queue: DriftWatch,
    /// One for each device that has run a batch.
    run: Vec<RunWatch>,
    /// Number of devices that run at a time; `None`: all that have run a batch.
    devices: Option<usize>,
    /// Watches over batches on the devices on which a decision rests, by the device.
    decided: Vec<(usize, DecidedWatch)>,
    finish: TimeWatch,
    misses: DriftWatch,
    errors: DriftWatch,
    waits: Option<Waits>,
    answers: Option<Answers>,
}

impl Default for ModelWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelWatch {
    /// Makes the watches, which begin by learning what is usual.
    #[must_use]
    pub fn new() -> Self {
        Self {
            prepare: TimeWatch::new(),
            cache: TimeWatch::new(),
            queue: DriftWatch::new(queue_rules()),
            run: Vec::new(),
            devices: None,
            decided: Vec::new(),
            finish: TimeWatch::new(),
            misses: DriftWatch::new(miss_rules()),
            errors: DriftWatch::new(error_rules()),
            waits: None,
            answers: None,
        }
    }

    /// Also compares batches on a device with the seconds `fixed + per_weight · weight` on which a decision rests.
    #[must_use]
    pub fn decided_on(mut self, device: usize, fixed: f64, per_weight: f64) -> Self {
        let watch = DriftWatch::new(decision_rules());
        self.decided.push((device, DecidedWatch { fixed, per_weight, watch, next: None }));
        self
    }

    /// Takes the time for which an input of this weight was prepared, without waiting for a thread.
    pub fn prepared(&mut self, now: Instant, weight: usize, time: Duration) -> Option<DegradationEvent> {
        let observed = self.prepare.observe(now, Condition::weight(weight), time)?;
        event(observed.transition, |drift| timed(WatchedStage::Prepare, drift))
    }

    /// Takes the time of a lookup in the cache, compared with others of the same `source`, a number below 96.
    pub fn looked_up(&mut self, now: Instant, source: usize, time: Duration) -> Option<DegradationEvent> {
        let observed = self.cache.observe(now, Condition { group: source, x: 0.0 }, time)?;
        event(observed.transition, |drift| timed(WatchedStage::Cache, drift))
    }

    /// Sets the number of devices that run at a time, where not all that are numbered do: their utilisation is the condition
    /// under which waits are compared.
    #[must_use]
    pub fn running_at_a_time(self, devices: usize) -> Self {
        Self { devices: Some(devices), ..self }
    }

    /// Takes the time for which an output of this weight was finished.
    pub fn finished(&mut self, now: Instant, weight: usize, time: Duration) -> Option<DegradationEvent> {
        let observed = self.finish.observe(now, Condition::weight(weight), time)?;
        event(observed.transition, |drift| timed(WatchedStage::Finish, drift))
    }

    /// Takes a batch that a device ran at the first try. To be called for each batch, as its time makes the utilisation.
    pub fn ran(&mut self, now: Instant, device: usize, weight: usize, run: Duration) -> [Option<DegradationEvent>; 2] {
        if let Some(waits) = &mut self.waits {
            waits.busy += run;
        }
        if self.run.len() <= device {
            self.run.resize_with(device + 1, RunWatch::new);
        }
        let watch = &mut self.run[device];
        let transition = watch.observe(now, weight, run);
        let run_event = event(transition, |drift| watch.degradation(device, drift));
        let decided = self.decided.iter_mut().find(|(decided, _)| *decided == device);
        let transition = decided.and_then(|(_, decided)| decided.observe(now, weight, run));
        [run_event, event(transition, |drift| decided_degradation(device, drift))]
    }

    /// Takes the time that an item waited in the queue, and that of its batch.
    pub fn waited(&mut self, now: Instant, wait: Duration, run: Duration) -> Option<DegradationEvent> {
        let waits = self.waits.get_or_insert(Waits::new(now));
        waits.items += 1;
        waits.wait += wait;
        waits.run += run;
        let window = now.saturating_duration_since(waits.since);
        if window < TALLY || waits.items < MIN_TALLY / 4 {
            return None;
        }
        let sample = waits.sample(window, self.devices.unwrap_or(self.run.len()).max(1));
        self.waits = Some(Waits::new(now));
        let (condition, value) = sample?;
        event(self.queue.observe(now, condition, value).transition, queued)
    }

    /// Counts a request that ended: `hit` says if the cache had the answer, where it was asked.
    pub fn answered(&mut self, now: Instant, hit: Option<bool>, failed: bool) -> [Option<DegradationEvent>; 2] {
        let answers = self.answers.get_or_insert(Answers::new(now));
        answers.requests += 1;
        answers.failed += u32::from(failed);
        answers.keyed += u32::from(hit.is_some());
        answers.missed += u32::from(hit == Some(false));
        let window = now.saturating_duration_since(answers.since);
        if answers.requests < MIN_TALLY || window < TALLY {
            return [None; 2];
        }
        let Answers { requests, failed, keyed, missed, .. } = *answers;
        self.answers = Some(Answers::new(now));
        let share = |part: u32, of: u32| f64::from(part) / f64::from(of);
        let errors = self.errors.observe(now, Condition::default(), share(failed, requests)).transition;
        let misses = (keyed >= MIN_TALLY).then(|| {
            // Half of all keyed requests a second and more have a group of their own for each doubling.
            let rate = f64::from(keyed) / window.as_secs_f64();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 40")]
            let group = (rate.log2() + 4.0).clamp(0.0, 40.0) as usize;
            self.misses.observe(now, Condition { group, x: 0.0 }, share(missed, keyed)).transition
        });
        let began = |transition: Option<Transition>, stage| event(transition, |drift| shared(stage, drift));
        [began(errors, WatchedStage::Errors), began(misses.flatten(), WatchedStage::Misses)]
    }

    /// The degradations that are reported now.
    #[must_use]
    pub fn degradations(&self) -> Vec<Degradation> {
        let of = |watch: &DriftWatch, degradation: fn(Drift) -> Degradation| watch.drift().map(degradation);
        let runs = self.run.iter().enumerate();
        let runs = runs.filter_map(|(device, run)| Some(run.degradation(device, run.time.watch.drift()?)));
        let decided = self.decided.iter();
        let decided = decided.filter_map(|(device, it)| Some(decided_degradation(*device, it.watch.drift()?)));
        [
            of(&self.prepare.watch, |drift| timed(WatchedStage::Prepare, drift)),
            of(&self.cache.watch, |drift| timed(WatchedStage::Cache, drift)),
            of(&self.queue, queued),
            of(&self.finish.watch, |drift| timed(WatchedStage::Finish, drift)),
            of(&self.misses, |drift| shared(WatchedStage::Misses, drift)),
            of(&self.errors, |drift| shared(WatchedStage::Errors, drift)),
        ]
        .into_iter()
        .flatten()
        .chain(decided)
        .chain(runs)
        .collect()
    }
}

/// A watch over the logarithms of times.
#[derive(Debug, Clone)]
struct TimeWatch {
    watch: DriftWatch,
    next: Option<Instant>,
}

impl TimeWatch {
    fn new() -> Self {
        Self { watch: DriftWatch::new(DriftRules::default()), next: None }
    }

    /// Takes a sample, unless the last one was taken just before.
    fn observe(&mut self, now: Instant, condition: Condition, time: Duration) -> Option<Observed> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + SPACING);
        Some(self.watch.observe(now, condition, (time.as_secs_f64() + FLOOR).ln()))
    }
}

/// A watch over the batches of one device.
#[derive(Debug, Clone)]
struct RunWatch {
    time: TimeWatch,
    parts: CostParts,
}

impl RunWatch {
    fn new() -> Self {
        Self { time: TimeWatch::new(), parts: CostParts::default() }
    }

    fn observe(&mut self, now: Instant, weight: usize, run: Duration) -> Option<Transition> {
        let Observed { difference, froze, transition } = self.time.observe(now, Condition::weight(weight), run)?;
        if froze {
            self.parts.fit(self.time.watch.references());
        }
        let watch = &self.time.watch;
        if !watch.is_suspicious() && watch.drift().is_none() {
            self.parts.forget();
        } else if let Some(difference) = difference {
            self.parts.observe(weight, difference);
        }
        transition
    }

    fn degradation(&self, device: usize, drift: Drift) -> Degradation {
        Degradation { device: Some(device), part: self.parts.part(), ..timed(WatchedStage::Run, drift) }
    }
}

/// A watch over batches against the line that a decision rests on.
#[derive(Debug, Clone)]
struct DecidedWatch {
    fixed: f64,
    per_weight: f64,
    watch: DriftWatch,
    next: Option<Instant>,
}

impl DecidedWatch {
    fn observe(&mut self, now: Instant, weight: usize, run: Duration) -> Option<Transition> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + SPACING);
        let usual = (self.fixed + self.per_weight * weight as f64 + FLOOR).ln();
        self.watch.observe_against(now, usual, (run.as_secs_f64() + FLOOR).ln())
    }
}

/// The waits of items within about a second, and the time for which devices were busy.
#[derive(Debug, Clone, Copy)]
struct Waits {
    since: Instant,
    items: u32,
    wait: Duration,
    run: Duration,
    busy: Duration,
}

impl Waits {
    fn new(since: Instant) -> Self {
        Self { since, items: 0, wait: Duration::ZERO, run: Duration::ZERO, busy: Duration::ZERO }
    }

    /// The logarithm of the average wait, in multiples of a batch's time, at this utilisation.
    fn sample(&self, window: Duration, devices: usize) -> Option<(Condition, f64)> {
        let [wait, run] = [self.wait, self.run].map(|sum| sum.as_secs_f64() / f64::from(self.items));
        let utilisation = self.busy.as_secs_f64() / window.as_secs_f64() / devices as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and LOADS")]
        let group = (utilisation * LOADS).clamp(0.0, LOADS) as usize;
        (run > 0.0).then(|| (Condition { group, x: 0.0 }, ((wait + WAKE) / run).ln()))
    }
}

/// The requests that ended within about a second.
#[derive(Debug, Clone, Copy)]
struct Answers {
    since: Instant,
    requests: u32,
    failed: u32,
    keyed: u32,
    missed: u32,
}

impl Answers {
    fn new(since: Instant) -> Self {
        Self { since, requests: 0, failed: 0, keyed: 0, missed: 0 }
    }
}

/// Rules for the line of a decision: it is a straight one, measured at another time, so a quarter more is tolerated.
fn decision_rules() -> DriftRules {
    DriftRules {
        allowance: 0.22,
        threshold: 3.0,
        end_threshold: 1.0,
        max_change: 0.5,
        max_sample: 1.0,
        min_deviation: 0.1,
        ..DriftRules::default()
    }
}

/// Rules for waits: they vary more than times of computing do, and less of a change matters.
fn queue_rules() -> DriftRules {
    DriftRules {
        allowance: 0.5,
        threshold: 10.0,
        end_threshold: 2.0,
        max_change: 1.0,
        max_sample: 2.0,
        block: Duration::from_secs(5),
        min_block_samples: 4,
        block_error: 0.2,
        min_reference_samples: 64,
        reference_error: 0.05,
        min_deviation: 0.1,
        ..DriftRules::default()
    }
}

/// Rules for the share of misses, which follows the traffic: a tenth of all requests is tolerated.
fn miss_rules() -> DriftRules {
    DriftRules {
        allowance: 0.1,
        threshold: 3.0,
        end_threshold: 0.5,
        max_change: 0.3,
        max_sample: 1.0,
        block: Duration::from_secs(5),
        min_block_samples: 4,
        block_error: 0.05,
        min_reference_samples: 64,
        reference_error: 0.02,
        ..DriftRules::default()
    }
}

/// Rules for the share of errors: one of a hundred requests is tolerated.
fn error_rules() -> DriftRules {
    DriftRules {
        allowance: 0.01,
        threshold: 0.2,
        end_threshold: 0.05,
        max_change: 0.07,
        max_sample: 1.0,
        min_block_samples: 1,
        block_error: 0.05,
        min_reference_samples: 64,
        reference_error: 0.005,
        min_deviation: 0.001,
        ..DriftRules::default()
    }
}

fn event(transition: Option<Transition>, degradation: impl FnOnce(Drift) -> Degradation) -> Option<DegradationEvent> {
    Some(match transition? {
        Transition::Began(drift) => DegradationEvent::Began(degradation(drift)),
        Transition::Ended(drift) => DegradationEvent::Ended(degradation(drift)),
    })
}

/// A degradation of a time, from the change of its logarithm.
fn timed(stage: WatchedStage, drift: Drift) -> Degradation {
    let [usual, present] = [drift.usual, drift.usual + drift.change].map(|value| value.exp() - FLOOR);
    degradation(stage, drift, usual, present)
}

fn decided_degradation(device: usize, drift: Drift) -> Degradation {
    Degradation { device: Some(device), ..timed(WatchedStage::Decision, drift) }
}

fn queued(drift: Drift) -> Degradation {
    degradation(WatchedStage::Queue, drift, drift.usual.exp(), (drift.usual + drift.change).exp())
}

fn shared(stage: WatchedStage, drift: Drift) -> Degradation {
    degradation(stage, drift, drift.usual, drift.usual + drift.change)
}

fn degradation(stage: WatchedStage, drift: Drift, usual: f64, present: f64) -> Degradation {
    let Drift { since, reported, .. } = drift;
    Degradation { stage, device: None, part: None, since, reported, usual, present }
}
