//! References: the value of a stage under each condition, learned once and then frozen.
//!
//! A reference that followed the samples would follow a slow decay too, and hide it. A reference without conditions would
//! take longer texts for a decay. So samples are grouped by condition, and each group has a line of its own.

use std::time::{Duration, Instant};

use crate::DriftRules;

/// Largest number of conditions; samples of further ones are not watched.
const MAX_GROUPS: usize = 96;
/// Largest number of samples that a reference is made of. When there are more, every other one is dropped, so that they
/// are spread over the whole time.
const MAX_SAMPLES: usize = 2048;
/// Samples after which the precision of a reference is looked at again.
const LOOKS_EVERY: usize = 64;
/// Multiple of the standard deviation beyond which a sample counts no more, while a line is fitted.
const OUTLIER: f64 = 3.0;
/// Steepest slope of a reference in its logarithms: the cost of attention grows with the square of the length.
const MAX_SLOPE: f64 = 2.0;

/// The condition under which a sample was taken. Samples are compared only with those of the same group.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Condition {
    /// The group, below 96.
    pub group: usize,
    /// A figure on which the value depends linearly within the group, such as the logarithm of a weight.
    pub x: f64,
}

impl Condition {
    /// The condition of a sample of this weight: one group for each power of two.
    #[must_use]
    pub fn weight(weight: usize) -> Self {
        let weight = weight.max(1);
        Self { group: weight.ilog2() as usize, x: (weight as f64).ln() }
    }
}

/// The references of all conditions.
#[derive(Debug, Clone, Default)]
pub(crate) struct References {
    groups: Vec<ReferenceGroup>,
}

#[derive(Debug, Clone, Default)]
enum ReferenceGroup {
    #[default]
    Unseen,
    Learning(Learning),
    Frozen(Reference),
}

#[derive(Debug, Clone)]
struct Learning {
    since: Instant,
    samples: Vec<(f32, f32)>,
    /// Number of samples of which one is kept, and the number until the next.
    stride: u32,
    skip: u32,
}

/// A line through the samples of one condition, frozen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reference {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) slope: f64,
    /// Standard deviation of the clipped differences between samples and line.
    pub(crate) deviation: f64,
    pub(crate) samples: usize,
}

impl Reference {
    pub(crate) fn at(&self, x: f64) -> f64 {
        self.y + self.slope * (x - self.x)
    }
}

/// The fate of a sample.
pub(crate) enum Compared {
    /// The reference of its condition.
    With(Reference),
    /// The sample was used to learn the reference.
    Learned,
    /// The sample completed the reference of its condition.
    Froze,
    /// There are too many conditions.
    Ignored,
}

impl References {
    /// Compares a sample, or learns from it. A reference that is completed now is corrected by `level`, the present change
    /// of the other conditions, so that it describes the time before that change.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        rules: &DriftRules,
        Condition { group, x }: Condition,
        y: f64,
        level: f64,
    ) -> Compared {
        if group >= MAX_GROUPS {
            return Compared::Ignored;
        }
        if self.groups.len() <= group {
            self.groups.resize_with(group + 1, ReferenceGroup::default);
        }
        match &mut self.groups[group] {
            ReferenceGroup::Frozen(reference) => Compared::With(*reference),
            ReferenceGroup::Learning(learning) => match learning.take(now, rules, x, y) {
                None => Compared::Learned,
                Some(mut reference) => {
                    reference.y -= level;
                    self.groups[group] = ReferenceGroup::Frozen(reference);
                    Compared::Froze
                }
            },
            unseen @ ReferenceGroup::Unseen => {
                *unseen =
                    ReferenceGroup::Learning(Learning { since: now, samples: vec![narrow(x, y)], stride: 1, skip: 0 });
                Compared::Learned
            }
        }
    }

    /// The frozen references.
    pub(crate) fn frozen(&self) -> impl Iterator<Item = &Reference> + Clone {
        self.groups
            .iter()
            .filter_map(|group| if let ReferenceGroup::Frozen(reference) = group { Some(reference) } else { None })
    }
}

impl Learning {
    fn take(&mut self, now: Instant, rules: &DriftRules, x: f64, y: f64) -> Option<Reference> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.skip = self.stride - 1;
        self.samples.push(narrow(x, y));
        let full = self.samples.len() >= MAX_SAMPLES;
        if !full && !self.samples.len().is_multiple_of(LOOKS_EVERY) {
            return None;
        }
        let long_enough = now.saturating_duration_since(self.since) >= rules.min_reference_time;
        if long_enough && (full || self.samples.len() >= rules.min_reference_samples) {
            let reference = fit(&self.samples, rules.max_sample);
            let error = reference.deviation / (self.samples.len() as f64).sqrt();
            if full || error <= rules.reference_error {
                return Some(reference);
            }
        }
        if full {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride = self.stride.saturating_mul(2);
        }
        None
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a sample needs no more than seven digits")]
fn narrow(x: f64, y: f64) -> (f32, f32) {
    (x as f32, y as f32)
}

/// Fits a line by least squares, three times, each time with the outliers of the line before moved to its edge (Huber,
/// "Robust Statistics", 1981, section 7.9).
fn fit(samples: &[(f32, f32)], max_sample: f64) -> Reference {
    let samples: Vec<(f64, f64)> = samples.iter().map(|(x, y)| (f64::from(*x), f64::from(*y))).collect();
    let n = samples.len() as f64;
    let x = samples.iter().map(|(x, _)| x).sum::<f64>() / n;
    let spread = samples.iter().map(|(at, _)| (at - x).powi(2)).sum::<f64>() / n;
    let mut line = Reference { x, y: median(samples.iter().map(|(_, y)| *y)), slope: 0.0, deviation: 0.0, samples: 0 };
    for _ in 0..3 {
        let differences = || samples.iter().map(|(x, y)| y - line.at(*x));
        // The median of absolute differences is 0.6745 of a normal distribution's standard deviation.
        let scale = median(differences().map(f64::abs)) / 0.6745;
        let bound = (OUTLIER * scale).max(1e-9);
        let moved = || differences().map(|difference| difference.clamp(-bound, bound));
        let mean = moved().sum::<f64>() / n;
        let slope = if spread > 1e-4 {
            let covariance = samples.iter().zip(moved()).map(|((at, _), by)| (at - x) * by).sum::<f64>() / n;
            (line.slope + covariance / spread).clamp(0.0, MAX_SLOPE)
        } else {
            0.0
        };
        line = Reference { y: line.y + mean, slope, ..line };
    }
    let clipped = || samples.iter().map(|(x, y)| (y - line.at(*x)).clamp(-max_sample, max_sample));
    let center = clipped().sum::<f64>() / n;
    let variance = clipped().map(|by| (by - center).powi(2)).sum::<f64>() / n;
    // Samples are compared clipped, so their mean must be that of the clipped ones.
    Reference { y: line.y + center, deviation: variance.sqrt(), samples: samples.len(), ..line }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Time for which a stage is watched before it is compared, unless its rules say otherwise.
pub(crate) const MIN_REFERENCE_TIME: Duration = Duration::from_mins(1);
