//! Measures of accuracy, each made of figures of the single examples, so that a bootstrap can make it of any of them.

use serde::{Deserialize, Serialize};

use crate::Likeness;

/// The rank down to which [`ndcg`] counts.
const NDCG_DEPTH: usize = 10;

/// The figures of one candidate for each example, and how a metric is made of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExampleFigures {
    /// The metric is the mean of a figure that each example has by itself: 1 for a right label, or the average precision of a
    /// query.
    Mean(Vec<f64>),
    /// The metric is Spearman's correlation of similarities with human scores of the same pairs.
    Spearman {
        /// The candidate's similarity of each pair.
        found: Vec<f64>,
        /// The human score of each pair.
        human: Vec<f64>,
    },
    /// The metric is the mean F1 over the labels that are right or found in any example.
    MacroF1 {
        /// The label that the candidate gives, by its number.
        found: Vec<usize>,
        /// The right label.
        right: Vec<usize>,
    },
}

impl ExampleFigures {
    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Mean(figures) => figures.len(),
            Self::Spearman { found, .. } => found.len(),
            Self::MacroF1 { found, .. } => found.len(),
        }
    }

    /// Returns true if there is no example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The metric over all examples.
    #[must_use]
    pub fn metric(&self) -> f64 {
        self.metric_of(&(0..self.len()).collect::<Vec<_>>())
    }

    /// The metric over the examples of these indices, which may repeat.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    #[must_use]
    pub fn metric_of(&self, sample: &[usize]) -> f64 {
        let take = |figures: &[f64]| sample.iter().map(|&at| figures[at]).collect::<Vec<_>>();
        match self {
            Self::Mean(figures) => mean(&take(figures)),
            Self::Spearman { found, human } => spearman(&take(found), &take(human)),
            Self::MacroF1 { found, right } => macro_f1(sample.iter().map(|&at| (found[at], right[at]))),
        }
    }
}

/// Spearman's rank correlation: Pearson's correlation of the ranks, where equal values share their mean rank. 0 if all
/// values of one of the two are equal.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn spearman(xs: &[f64], ys: &[f64]) -> f64 {
    assert_eq!(xs.len(), ys.len(), "as many of one as of the other");
    pearson(&ranks(xs), &ranks(ys))
}

/// The mean F1 of labels, over those that are right or found at least once, as scikit-learn's `f1_score` with
/// `average="macro"`. Takes pairs of the found label and the right one.
#[must_use]
pub fn macro_f1(labels: impl Iterator<Item = (usize, usize)>) -> f64 {
    // Of each label: how often it is found, right, and both.
    let mut counts = std::collections::BTreeMap::<usize, [u32; 3]>::new();
    for (found, right) in labels {
        counts.entry(found).or_default()[0] += 1;
        counts.entry(right).or_default()[1] += 1;
        counts.entry(right).or_default()[2] += u32::from(found == right);
    }
    let f1 = |[found, right, both]: &[u32; 3]| 2.0 * f64::from(*both) / f64::from(found + right);
    mean(&counts.values().map(f1).collect::<Vec<_>>())
}

/// Average precision of a ranking: the mean, over the relevant documents, of the share of relevant ones down to there.
/// Among equal scores the relevant documents count as last, so that ties earn nothing. 0 if none is relevant.
#[must_use]
pub fn average_precision(scores: &[f64], relevance: &[f64]) -> f64 {
    let (mut found, mut sum) = (0.0, 0.0);
    for (rank, at) in ranking(scores, relevance).into_iter().enumerate() {
        if relevance[at] > 0.0 {
            found += 1.0;
            sum += found / (rank + 1) as f64;
        }
    }
    if found > 0.0 { sum / found } else { 0.0 }
}

/// 1 divided by the rank of the first relevant document; ties and no relevant document as in [`average_precision`].
#[must_use]
pub fn reciprocal_rank(scores: &[f64], relevance: &[f64]) -> f64 {
    let first = ranking(scores, relevance).into_iter().position(|at| relevance[at] > 0.0);
    first.map_or(0.0, |rank| 1.0 / (rank + 1) as f64)
}

/// Normalised discounted cumulative gain of the first ten documents, with the relevance as gain (Järvelin and Kekäläinen
/// 2002, as in `trec_eval`); ties and no relevant document as in [`average_precision`].
#[must_use]
pub fn ndcg(scores: &[f64], relevance: &[f64]) -> f64 {
    let gain = |order: Vec<usize>| -> f64 {
        let first = order.into_iter().take(NDCG_DEPTH).enumerate();
        first.map(|(rank, at)| relevance[at].max(0.0) / ((rank + 2) as f64).log2()).sum()
    };
    let ideal = gain(ranking(relevance, relevance));
    if ideal > 0.0 { gain(ranking(scores, relevance)) / ideal } else { 0.0 }
}

/// Indices of the documents, the highest score first; among equal scores the least relevant first.
#[must_use]
pub fn ranking(scores: &[f64], relevance: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(relevance[a].total_cmp(&relevance[b])));
    order
}

/// Cosine of two vectors; −1 if it is not a number, or the lengths differ, so that a broken answer counts as unlike.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    if a.len() == b.len() && cosine.is_finite() { cosine.clamp(-1.0, 1.0) } else { -1.0 }
}

impl Likeness {
    /// Summary of the likeness of each example; of none all figures are 1.
    #[must_use]
    pub fn of(examples: &[f64]) -> Self {
        let mut sorted = examples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let Some(&least) = sorted.first() else { return Self { mean: 1.0, p01: 1.0, least: 1.0 } };
        Self { mean: mean(examples), p01: quantile(&sorted, 0.01), least }
    }
}

/// The quantile of sorted values, interpolated between the two nearest.
///
/// # Panics
/// If there is no value.
#[must_use]
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the number of values")]
    let below = place as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for ties in order.chunk_by(|&a, &b| values[a].total_cmp(&values[b]).is_eq()) {
        let mean_rank = start as f64 + (ties.len() - 1) as f64 / 2.0;
        for &at in ties {
            ranks[at] = mean_rank;
        }
        start += ties.len();
    }
    ranks
}

fn pearson(xs: &[f64], ys: &[f64]) -> f64 {
    let (mean_x, mean_y) = (mean(xs), mean(ys));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in xs.iter().zip(ys) {
        let (dx, dy) = (x - mean_x, y - mean_y);
        xy += dx * dy;
        xx += dx * dx;
        yy += dy * dy;
    }
    if xx * yy > 0.0 { xy / (xx * yy).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 1e-9
    }

    #[test]
    fn spearman_sees_order_alone_and_ties_share_their_rank() {
        assert!(near(spearman(&[1.0, 2.0, 30.0], &[0.1, 0.2, 0.3]), 1.0));
        assert!(near(spearman(&[1.0, 2.0, 3.0], &[9.0, 4.0, 1.0]), -1.0));
        // By hand: ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3.
        assert!(near(spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]), 0.948_683_298_050_513_8));
        assert!(near(spearman(&[1.0, 1.0], &[1.0, 2.0]), 0.0), "equal values rank nothing");
    }

    #[test]
    fn macro_f1_is_that_of_scikit_learn() {
        // f1_score([0, 0, 1, 2], [0, 1, 1, 0], average="macro"): 1/2, 2/3 and 0.
        let labels = [(0, 0), (1, 0), (1, 1), (0, 2)];
        assert!(near(macro_f1(labels.into_iter()), (0.5 + 2.0 / 3.0) / 3.0));
        assert!(near(macro_f1([(3, 3), (3, 3)].into_iter()), 1.0), "absent labels do not count");
    }

    #[test]
    fn rankings_are_scored_as_by_hand() {
        let relevance = [1.0, 0.0, 1.0, 0.0];
        let scores = [0.2, 0.9, 0.8, 0.1];
        // The relevant ones have the ranks 2 and 3.
        assert!(near(average_precision(&scores, &relevance), f64::midpoint(1.0 / 2.0, 2.0 / 3.0)));
        assert!(near(reciprocal_rank(&scores, &relevance), 0.5));
        let expected = (1.0 / 3f64.log2() + 1.0 / 4f64.log2()) / (1.0 + 1.0 / 3f64.log2());
        assert!(near(ndcg(&scores, &relevance), expected));
        // Graded: the better document first is better.
        assert!(ndcg(&[2.0, 1.0], &[3.0, 1.0]) > ndcg(&[1.0, 2.0], &[3.0, 1.0]));
        assert!(near(ndcg(&[2.0, 1.0], &[3.0, 1.0]), 1.0));
        for metric in [average_precision, reciprocal_rank, ndcg] {
            assert!(near(metric(&[0.1, 0.2], &[0.0, 0.0]), 0.0), "nothing is relevant");
        }
        // The eleventh document is beyond the depth.
        let scores: Vec<f64> = (0..11).rev().map(f64::from).collect();
        let last: Vec<f64> = (0..11).map(|at| f64::from(u8::from(at == 10))).collect();
        assert!(near(ndcg(&scores, &last), 0.0) && near(reciprocal_rank(&scores, &last), 1.0 / 11.0));
    }

    #[test]
    fn equal_scores_earn_nothing() {
        for relevance in [[1.0, 0.0], [0.0, 1.0]] {
            assert!(near(average_precision(&[0.5, 0.5], &relevance), 0.5));
            assert!(near(reciprocal_rank(&[0.5, 0.5], &relevance), 0.5));
        }
    }

    #[test]
    fn a_vector_that_is_no_number_is_unlike_any() {
        assert!(near(cosine(&[1.0, 0.0], &[2.0, 0.0]), 1.0) && near(cosine(&[1.0, 0.0], &[0.0, 3.0]), 0.0));
        for broken in [&[f32::NAN, 1.0][..], &[0.0, 0.0], &[1.0]] {
            assert!(near(cosine(broken, &[1.0, 0.0]), -1.0));
        }
    }

    #[test]
    fn likeness_tells_the_mean_the_low_end_and_the_least() {
        let examples: Vec<f64> = (0..=100).map(|at| f64::from(at) / 100.0).collect();
        let Likeness { mean, p01, least } = Likeness::of(&examples);
        assert!(near(mean, 0.5) && near(p01, 0.01) && near(least, 0.0));
    }

    #[test]
    fn a_metric_is_made_of_any_examples() {
        let mean = ExampleFigures::Mean(vec![1.0, 0.0, 1.0, 1.0]);
        assert!(near(mean.metric(), 0.75) && near(mean.metric_of(&[1, 1, 0, 1]), 0.25));
        let spearman = ExampleFigures::Spearman { found: vec![0.1, 0.2, 0.9], human: vec![1.0, 3.0, 2.0] };
        assert!(near(spearman.metric(), 0.5) && near(spearman.metric_of(&[0, 1, 0]), 1.0));
        let f1 = ExampleFigures::MacroF1 { found: vec![0, 1, 1], right: vec![0, 1, 0] };
        assert!(near(f1.metric_of(&[0, 1]), 1.0) && f1.metric() < 1.0);
    }
}
