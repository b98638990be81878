//! Answers of classifiers: scores over labels, or one score.

use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The last step from logits to scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelFunction {
    /// `eˣ / Σ eˣ`: one of the labels is right.
    Softmax,
    /// `1 / (1 + e⁻ˣ)`: each label is right or wrong by itself.
    Sigmoid,
    /// `x`: the logit is the score.
    Identity,
}

impl LabelFunction {
    pub(crate) fn scores(self, logits: &[f32]) -> Vec<f32> {
        match self {
            Self::Softmax => {
                let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let mut scores: Vec<f32> = logits.iter().map(|logit| (logit - max).exp()).collect();
                let sum: f32 = scores.iter().sum();
                for score in &mut scores {
                    *score /= sum;
                }
                scores
            }
            Self::Sigmoid => logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
            Self::Identity => logits.to_vec(),
        }
    }
}

/// The score of a classifier with one label.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The label, in a list of one that all answers of a model share.
    pub labels: Arc<[String]>,
    /// The score; between 0 and 1, unless the model's files say that it is the logit itself.
    pub score: f32,
    /// The output of the last layer.
    pub logit: f32,
}

impl Score {
    /// The score of a logit.
    ///
    /// # Panics
    /// If there is not exactly one label.
    #[must_use]
    pub fn from_logit(labels: Arc<[String]>, logit: f32, function: LabelFunction) -> Self {
        assert_eq!(labels.len(), 1, "one label");
        Self { labels, score: function.scores(&[logit])[0], logit }
    }
}

impl Serialize for Score {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut object = serializer.serialize_struct("Score", 2)?;
        object.serialize_field("score", &self.score)?;
        object.serialize_field("scores", &ByLabel(&self.labels, std::slice::from_ref(&self.score)))?;
        object.end()
    }
}

/// Scores over a fixed list of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Classification {
    /// The labels, shared by all answers of a model.
    pub labels: Arc<[String]>,
    /// The outputs of the last layer, one per label.
    pub logits: Vec<f32>,
    /// The scores, one per label, made of the logits by the model's [`LabelFunction`].
    pub scores: Vec<f32>,
}

impl Serialize for Classification {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut object = serializer.serialize_struct("Classification", 3)?;
        object.serialize_field("label", self.label())?;
        object.serialize_field("score", &self.score())?;
        object.serialize_field("scores", &ByLabel(&self.labels, &self.scores))?;
        object.end()
    }
}

/// Scores by label, in the model's order.
struct ByLabel<'a>(&'a [String], &'a [f32]);

impl Serialize for ByLabel<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}

impl Classification {
    /// Makes scores of logits by softmax, one logit per label.
    ///
    /// # Panics
    /// If there is not exactly one logit per label, or no label at all.
    #[must_use]
    pub fn from_logits(labels: Arc<[String]>, logits: Vec<f32>) -> Self {
        Self::with_function(labels, logits, LabelFunction::Softmax)
    }

    /// As [`from_logits`](Self::from_logits), with another last step.
    ///
    /// # Panics
    /// As [`from_logits`](Self::from_logits).
    #[must_use]
    pub fn with_function(labels: Arc<[String]>, logits: Vec<f32>, function: LabelFunction) -> Self {
        assert!(!labels.is_empty() && labels.len() == logits.len(), "one logit per label");
        let scores = function.scores(&logits);
        Self { labels, logits, scores }
    }

    /// Index of the highest score; the first if several are equal.
    #[must_use]
    pub fn best(&self) -> usize {
        (1..self.scores.len()).fold(0, |best, at| if self.scores[at] > self.scores[best] { at } else { best })
    }

    /// The label with the highest score.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.labels[self.best()]
    }

    /// The highest score.
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
