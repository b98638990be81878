//! The paired bootstrap: how far a candidate's metric may really be from the reference's, as far as the examples show.
//!
//! Examples (of rankings whole queries) are drawn with replacement, as many as there are, and both metrics are made of the
//! same draw: the ease of an example is common to both and cancels. The interval is made of the percentiles of the
//! differences (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13; paired as by Koehn, "Statistical
//! Significance Tests for Machine Translation Evaluation", 2004).

use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::Estimate;
use crate::metrics::{ExampleFigures, quantile};

/// The settings of a paired bootstrap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedBootstrap {
    /// The seed: the same draws for every candidate, and in every run.
    pub seed: u64,
    /// Number of draws. Fewer than a thousand leave the ends of an interval to chance; more take time.
    pub draws: usize,
    /// The confidence of the intervals, between 0.5 and 1; each end is exceeded with half of the rest.
    pub confidence: f64,
}

/// A candidate's metric and how much lower it is than the reference's, with their intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ComparedMetric {
    /// The candidate's metric.
    pub metric: Estimate,
    /// The reference's metric less the candidate's.
    pub drop: Estimate,
}

impl PairedBootstrap {
    /// A bootstrap of 2,000 draws.
    #[must_use]
    pub fn new(seed: u64, confidence: f64) -> Self {
        Self { seed, draws: 2000, confidence }
    }

    /// Compares a candidate with the reference on the same examples.
    ///
    /// Draws of few examples show no loss that none of these has. So the upper end of the drop is never below what so many
    /// examples leave possible: with the confidence `k`, up to a share of 1 − ((1 − k) / 2)^(1 / n) of all inputs may be lost
    /// whole without one of them among the examples (the exact form of the rule of three). If all figures are means and none
    /// differs, the same holds downwards.
    ///
    /// # Panics
    /// If there is no example, or the candidate has others than the reference.
    #[must_use]
    pub fn compare(&self, candidate: &ExampleFigures, reference: &ExampleFigures) -> ComparedMetric {
        let examples = candidate.len();
        assert!(examples > 0, "examples to compare on");
        assert_eq!(examples, reference.len(), "the same examples");
        let mut random = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let mut sample = vec![0; examples];
        let (mut metrics, mut drops) = (Vec::with_capacity(self.draws), Vec::with_capacity(self.draws));
        for _ in 0..self.draws {
            sample.fill_with(|| random.random_range(0..examples));
            let metric = candidate.metric_of(&sample);
            metrics.push(metric);
            drops.push(reference.metric_of(&sample) - metric);
        }
        let metric = candidate.metric();
        let mut drop = self.interval(reference.metric() - metric, drops);
        let possible = 1.0 - self.tail().powf(1.0 / examples as f64);
        drop.high = drop.high.max(possible);
        if let (ExampleFigures::Mean(one), ExampleFigures::Mean(other)) = (candidate, reference)
            && one == other
        {
            drop.low = -possible;
        }
        ComparedMetric { metric: self.interval(metric, metrics), drop }
    }

    /// The interval of one figure.
    fn interval(&self, value: f64, mut drawn: Vec<f64>) -> Estimate {
        drawn.sort_by(f64::total_cmp);
        let (low, high) = (quantile(&drawn, self.tail()), quantile(&drawn, 1.0 - self.tail()));
        // The figure itself can lie outside if it is at the end of what is possible, such as an accuracy of 1.
        Estimate { value, low: low.min(value), high: high.max(value) }
    }

    /// The probability beyond each end.
    fn tail(&self) -> f64 {
        (1.0 - self.confidence) / 2.0
    }
}

/// The numbers from 0 below `count` in an order that the seed decides.
#[must_use]
pub fn shuffled(seed: u64, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(seed));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of which the reference has 80 % right, and a candidate that loses `lost` of a thousand and wins `won`.
    fn answers(lost: usize, won: usize) -> (ExampleFigures, ExampleFigures) {
        let reference: Vec<f64> = (0..1000).map(|at| if at < 800 { 1.0 } else { 0.0 }).collect();
        let mut candidate = reference.clone();
        candidate[..lost].fill(0.0);
        candidate[800..800 + won].fill(1.0);
        (ExampleFigures::Mean(candidate), ExampleFigures::Mean(reference))
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_another_nearly_the_same() {
        let (candidate, reference) = answers(30, 10);
        let with = |seed| PairedBootstrap::new(seed, 0.95).compare(&candidate, &reference);
        assert_eq!(with(7), with(7));
        assert_ne!(with(7), with(8));
        assert!((with(7).drop.high - with(8).drop.high).abs() < 0.002);
    }

    #[test]
    fn the_interval_of_a_difference_is_that_of_theory() {
        // 30 lost and 10 won of 1000: the mean is 0.02, the deviation of the mean sqrt(0.0396 / 1000).
        let (candidate, reference) = answers(30, 10);
        let Estimate { value, low, high } = PairedBootstrap::new(1, 0.95).compare(&candidate, &reference).drop;
        let deviation = (0.0396f64 / 1000.0).sqrt();
        assert!((value - 0.02).abs() < 1e-12);
        assert!((low - (0.02 - 1.96 * deviation)).abs() < 0.0015 && (high - (0.02 + 1.96 * deviation)).abs() < 0.0015);
    }

    #[test]
    fn pairing_finds_a_difference_that_separate_intervals_hide() {
        let (candidate, reference) = answers(20, 0);
        let compared = PairedBootstrap::new(1, 0.95).compare(&candidate, &reference);
        assert!(compared.metric.high > reference.metric(), "by itself the candidate could be as good");
        assert!(compared.drop.low > 0.0, "on the same examples it is worse: {:?}", compared.drop);
    }

    #[test]
    fn equal_examples_leave_possible_what_so_few_cannot_show() {
        let of = |examples: usize| {
            let same = ExampleFigures::Mean(vec![1.0; examples]);
            PairedBootstrap::new(1, 0.95).compare(&same, &same).drop.high
        };
        // The rule of three for one end at 97.5 %: 3.69 divided by the number of examples.
        assert!((of(450) - 3.69 / 450.0).abs() < 1e-4, "{}", of(450));
        assert!(of(10) > 0.3);
    }

    #[test]
    fn a_correlation_is_ranked_anew_in_every_draw() {
        let human: Vec<f64> = (0..200).map(f64::from).collect();
        let exact = ExampleFigures::Spearman { found: human.clone(), human: human.clone() };
        let found = (0..200).map(|at| f64::from(at) + f64::from(at * 7919 % 200)).collect();
        let noisy = ExampleFigures::Spearman { found, human };
        let compared = PairedBootstrap::new(3, 0.9).compare(&noisy, &exact);
        assert!(compared.drop.low > 0.0 && compared.drop.high < 1.0);
        assert!(compared.metric.low < compared.metric.value && compared.metric.value < compared.metric.high);
        assert!((compared.drop.value - (1.0 - noisy.metric())).abs() < 1e-12);
    }

    #[test]
    fn an_order_has_every_number_once_and_is_the_seeds() {
        let mut order = shuffled(5, 100);
        assert_eq!(order, shuffled(5, 100));
        assert_ne!(order, shuffled(6, 100));
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
