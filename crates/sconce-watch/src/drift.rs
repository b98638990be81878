//! The sequential test for a change of one figure: a CUSUM (Page, "Continuous inspection schemes", Biometrika 1954) over
//! averages of clipped differences from a frozen reference.
//!
//! The sum S = max(0, S + x − allowance) grows with every average x of about a second that lies above the allowance, and
//! a change is reported when S reaches the threshold. The change is estimated to have begun when S last left zero. A
//! second sum of the same kind, downwards, ends it. The average run length between false alarms of a CUSUM grows as
//! exp(2 · allowance · threshold / σ²) (Siegmund, "Sequential Analysis", 1985), where σ is the deviation of the averages:
//! with the defaults, σ may be five times what blocks aim at before there is one in a year.

use std::time::{Duration, Instant};

use crate::Condition;
use crate::reference::{Compared, MIN_REFERENCE_TIME, Reference, References};

/// Share of the allowance below which a reported change is about to end, so that it does not begin and end again and again.
const END_SHARE: f64 = 0.8;
/// Weight of the newest average in the present level of the change.
const LEVEL_GAIN: f64 = 0.1;

/// The parameters of a [`DriftWatch`]. The unit of changes is that of the figure; for logarithms of times 0.03 is 3 %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DriftRules {
    /// Change that is tolerated for ever. Too small: noise that lasts is reported. Too large: so much decay stays unseen.
    pub allowance: f64,
    /// Sum of the changes beyond the allowance at which they are reported. Too small: short disturbances are reported.
    /// Too large: reports come late.
    pub threshold: f64,
    /// Sum of the distances below four fifths of the allowance at which a reported change has ended.
    pub end_threshold: f64,
    /// Change that one average counts as at most, so that no single one reaches the threshold.
    pub max_change: f64,
    /// Difference that one sample counts as at most, for heavy-tailed noise.
    pub max_sample: f64,
    /// Least time over which samples are averaged.
    pub block: Duration,
    /// Least number of samples of an average.
    pub min_block_samples: u32,
    /// Standard error that an average has at most: it goes on until it is as exact.
    pub block_error: f64,
    /// Least time over which a reference is learned.
    pub min_reference_time: Duration,
    /// Least number of samples of a reference.
    pub min_reference_samples: usize,
    /// Standard error at which a reference is exact enough.
    pub reference_error: f64,
    /// Least deviation of a sample, for figures that hardly ever vary.
    pub min_deviation: f64,
}

impl Default for DriftRules {
    /// Rules for logarithms of times: 3 % are tolerated, a step of 20 % is reported after eight averages.
    fn default() -> Self {
        Self {
            allowance: 0.03,
            threshold: 0.9,
            end_threshold: 0.3,
            max_change: 0.15,
            max_sample: 0.4,
            block: Duration::from_secs(1),
            min_block_samples: 8,
            block_error: 0.02,
            min_reference_time: MIN_REFERENCE_TIME,
            min_reference_samples: 128,
            reference_error: 0.0075,
            min_deviation: 0.01,
        }
    }
}

/// A watch over one figure: a pure state machine.
#[derive(Debug, Clone)]
pub struct DriftWatch {
    rules: DriftRules,
    references: References,
    block: Option<SampleBlock>,
    /// The CUSUM upwards, and the instant at which it last left zero.
    sum: f64,
    since: Option<Instant>,
    /// The CUSUM downwards, while a change is reported.
    end_sum: f64,
    reported: Option<Instant>,
    /// Moving average of the difference from the reference, and of the reference itself.
    level: f64,
    usual: f64,
}

/// A change that is reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// The estimated beginning of the change.
    pub since: Instant,
    /// The instant at which it was reported.
    pub reported: Instant,
    /// The present change.
    pub change: f64,
    /// The figure's present value without the change.
    pub usual: f64,
}

/// The beginning or the end of a change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Transition {
    /// A change is reported now.
    Began(Drift),
    /// A change that was reported has ended.
    Ended(Drift),
}

/// The verdict on one sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Observed {
    /// Difference from the reference; `None` while the reference is learned.
    pub(crate) difference: Option<f64>,
    /// True if a reference was completed.
    pub(crate) froze: bool,
    pub(crate) transition: Option<Transition>,
}

/// Samples that are averaged.
#[derive(Debug, Clone, Copy)]
struct SampleBlock {
    began: Instant,
    samples: u32,
    clipped: f64,
    /// Clipped around the present level instead of zero, so that large changes are measured rightly.
    around_level: f64,
    variance: f64,
    usual: f64,
}

impl DriftWatch {
    /// Makes a watch that begins by learning its references.
    #[must_use]
    pub fn new(rules: DriftRules) -> Self {
        Self {
            rules,
            references: References::default(),
            block: None,
            sum: 0.0,
            since: None,
            end_sum: 0.0,
            reported: None,
            level: 0.0,
            usual: 0.0,
        }
    }

    /// Takes a sample of the figure.
    pub fn observe(&mut self, now: Instant, condition: Condition, value: f64) -> Observed {
        match self.references.take(now, &self.rules, condition, value, self.level) {
            Compared::With(reference) => {
                let difference = value - reference.at(condition.x);
                let transition = self.compare(now, &reference, condition.x, difference);
                Observed { difference: Some(difference), froze: false, transition }
            }
            Compared::Froze => Observed { froze: true, ..Observed::default() },
            Compared::Learned | Compared::Ignored => Observed::default(),
        }
    }

    /// Takes a sample of a figure whose usual value is known, so that nothing is learned.
    pub(crate) fn observe_against(&mut self, now: Instant, usual: f64, value: f64) -> Option<Transition> {
        let reference = Reference { x: 0.0, y: usual, slope: 0.0, deviation: self.rules.min_deviation, samples: 0 };
        self.compare(now, &reference, 0.0, value - usual)
    }

    /// The change that is reported now.
    #[must_use]
    pub fn drift(&self) -> Option<Drift> {
        Some(Drift { since: self.since?, reported: self.reported?, change: self.level, usual: self.usual })
    }

    /// Returns true while the figure lies above its allowance, reported or not.
    pub(crate) fn is_suspicious(&self) -> bool {
        self.sum > 0.0
    }

    pub(crate) fn references(&self) -> impl Iterator<Item = &Reference> + Clone {
        self.references.frozen()
    }

    fn compare(&mut self, now: Instant, reference: &Reference, x: f64, difference: f64) -> Option<Transition> {
        let rules = &self.rules;
        let empty = SampleBlock { began: now, samples: 0, clipped: 0.0, around_level: 0.0, variance: 0.0, usual: 0.0 };
        let block = self.block.get_or_insert(empty);
        let clip = |difference: f64| difference.clamp(-rules.max_sample, rules.max_sample);
        block.samples += 1;
        block.clipped += clip(difference);
        block.around_level += self.level + clip(difference - self.level);
        block.variance += reference.deviation.max(rules.min_deviation).powi(2);
        block.usual += reference.at(x);
        let samples = f64::from(block.samples);
        let exact = block.samples >= rules.min_block_samples && block.variance.sqrt() / samples <= rules.block_error;
        if !exact || now.saturating_duration_since(block.began) < rules.block {
            return None;
        }
        let block = self.block.take()?;
        self.complete(now, &block)
    }

    fn complete(&mut self, now: Instant, block: &SampleBlock) -> Option<Transition> {
        let samples = f64::from(block.samples);
        let change = (block.clipped / samples).clamp(-self.rules.max_change, self.rules.max_change);
        // A level that has just left the allowance is not to lag behind: before a report it follows faster.
        let gain = if self.reported.is_none() && self.sum > 0.0 { 2.0 * LEVEL_GAIN } else { LEVEL_GAIN };
        self.level += gain * (block.around_level / samples - self.level);
        self.usual = block.usual / samples;
        if self.sum <= 0.0 && self.reported.is_none() {
            self.since = Some(block.began);
        }
        self.sum = (self.sum + change - self.rules.allowance).max(0.0);
        if self.reported.is_none() {
            if self.sum < self.rules.threshold {
                return None;
            }
            self.reported = Some(now);
            self.end_sum = 0.0;
            return self.drift().map(Transition::Began);
        }
        self.end_sum = (self.end_sum + self.rules.allowance * END_SHARE - change).max(0.0);
        if self.end_sum < self.rules.end_threshold {
            return None;
        }
        let ended = self.drift().map(Transition::Ended);
        (self.sum, self.since, self.reported) = (0.0, None, None);
        ended
    }
}
