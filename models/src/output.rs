//! What a model answers: typed, one per item.

use std::sync::Arc;

/// The answer for one item.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// A vector that stands for the input.
    Embedding(Vec<f32>),
    /// A score for each label.
    Classification(Classification),
}

impl Output {
    /// The embedding, if that is what the model computes.
    #[must_use]
    pub fn embedding(&self) -> Option<&[f32]> {
        match self {
            Self::Embedding(values) => Some(values),
            Self::Classification(_) => None,
        }
    }

    /// The classification, if that is what the model computes.
    #[must_use]
    pub fn classification(&self) -> Option<&Classification> {
        match self {
            Self::Classification(classification) => Some(classification),
            Self::Embedding(_) => None,
        }
    }
}

/// Scores over a fixed list of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// The labels, shared by all answers of a model.
    pub labels: Arc<[String]>,
    /// What the last layer gave, one per label.
    pub logits: Vec<f32>,
    /// Softmax of the logits: non-negative, with the sum 1.
    pub scores: Vec<f32>,
}

impl Classification {
    /// Softmax over `logits`, one per label.
    ///
    /// # Panics
    /// If there is not exactly one logit per label, or no label at all.
    #[must_use]
    pub fn from_logits(labels: Arc<[String]>, logits: Vec<f32>) -> Self {
        assert!(!labels.is_empty() && labels.len() == logits.len(), "one logit per label");
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut scores: Vec<f32> = logits.iter().map(|logit| (logit - max).exp()).collect();
        let sum: f32 = scores.iter().sum();
        for score in &mut scores {
            *score /= sum;
        }
        Self { labels, logits, scores }
    }

    /// Index of the highest score; the first one if several are equal.
    #[must_use]
    pub fn best(&self) -> usize {
        (1..self.scores.len()).fold(0, |best, at| if self.scores[at] > self.scores[best] { at } else { best })
    }

    /// The label with the highest score.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.labels[self.best()]
    }

    /// The highest score, between 0 and 1.
    #[must_use]
    pub fn score(&self) -> f32 {
        self.scores[self.best()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_a_softmax_and_the_best_label_is_named() {
        let labels: Arc<[String]> = ["cat", "dog"].map(String::from).into();
        let answer = Classification::from_logits(labels, vec![1000.0, 1001.0]);
        assert_eq!(answer.label(), "dog");
        assert!((answer.score() - 0.731_058_6).abs() < 1e-6);
        assert!((answer.scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
