//! Outputs. All properties of a kind of output are in this file: the task that gives it, its tensors, its JSON. A new
//! kind is an arm of each `match` in this file, and a family that gives it.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::tensor::{Datatype, OutputElements, OutputTensor};

/// The answer for one item. As JSON it is an object: `{"embedding": […]}`, `{"label": …, "score": …, "scores": {…}}` or
/// `{"score": …, "scores": {…}}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Output {
    /// A vector that represents the input.
    #[serde(serialize_with = "embedding_object")]
    Embedding(Vec<f32>),
    /// A score for each label.
    Classification(Classification),
    /// The score of a classifier with one label, such as how well the two texts of a pair match.
    Score(Score),
}

/// The kind of output that a model gives for one item.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Task {
    /// A vector.
    Embedding {
        /// Length of the vector.
        dimensions: usize,
    },
    /// A score for each label.
    Classification {
        /// The labels, in the order of the scores.
        labels: Arc<[String]>,
    },
    /// One score.
    Score,
}

const EMBEDDING: &str = "embedding";
const SCORES: &str = "scores";
const LABEL: &str = "label";
const SCORE: &str = "score";

impl Task {
    /// `embedding`, `classification` or `score`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embedding { .. } => "embedding",
            Self::Classification { .. } => "classification",
            Self::Score => "score",
        }
    }

    /// The tensors that carry the output.
    #[must_use]
    pub fn tensors(&self) -> Vec<OutputTensor> {
        let of = |name, datatype, width| OutputTensor { name, datatype, width };
        match self {
            Self::Embedding { dimensions } => vec![of(EMBEDDING, Datatype::Fp32, *dimensions)],
            Self::Classification { labels } => {
                vec![of(SCORES, Datatype::Fp32, labels.len()), of(LABEL, Datatype::Bytes, 1)]
            }
            Self::Score => vec![of(SCORE, Datatype::Fp32, 1)],
        }
    }

    /// The labels of a classification.
    #[must_use]
    pub fn labels(&self) -> Option<&Arc<[String]>> {
        match self {
            Self::Classification { labels } => Some(labels),
            Self::Embedding { .. } | Self::Score => None,
        }
    }

    /// The name of the tensor with a score for each label of a classification.
    #[must_use]
    pub fn scores(&self) -> Option<&'static str> {
        self.labels().map(|_| SCORES)
    }

    /// The length of the vector of an embedding.
    #[must_use]
    pub fn dimensions(&self) -> Option<usize> {
        match self {
            Self::Embedding { dimensions } => Some(*dimensions),
            Self::Classification { .. } | Self::Score => None,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding { dimensions } => write!(f, "embedding, {dimensions} dimensions"),
            Self::Classification { labels } => write!(f, "classification, {} labels", labels.len()),
            Self::Score => f.write_str("score of a pair"),
        }
    }
}

impl Output {
    /// The elements of the tensor `name` of [`Task::tensors`]; `None` for any other name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<OutputElements<'_>> {
        match (self, name) {
            (Self::Embedding(values), EMBEDDING) => Some(OutputElements::F32(values)),
            (Self::Classification(answer), SCORES) => Some(OutputElements::F32(&answer.scores)),
            (Self::Classification(answer), LABEL) => Some(OutputElements::Text(answer.label())),
            (Self::Score(score), SCORE) => Some(OutputElements::F32(std::slice::from_ref(&score.score))),
            (Self::Embedding(_) | Self::Classification(_) | Self::Score(_), _) => None,
        }
    }

    /// The numbers of the answer: the vector, or the scores.
    #[must_use]
    pub fn numbers(&self) -> &[f32] {
        match self {
            Self::Embedding(values) => values,
            Self::Classification(classification) => &classification.scores,
            Self::Score(score) => std::slice::from_ref(&score.score),
        }
    }

    /// The embedding, if the output is one.
    #[must_use]
    pub fn embedding(&self) -> Option<&[f32]> {
        match self {
            Self::Embedding(values) => Some(values),
            Self::Classification(_) | Self::Score(_) => None,
        }
    }

    /// The classification, if the output is one.
    #[must_use]
    pub fn classification(&self) -> Option<&Classification> {
        match self {
            Self::Classification(classification) => Some(classification),
            Self::Embedding(_) | Self::Score(_) => None,
        }
    }

    /// The score, if the output is one.
    #[must_use]
    pub fn score(&self) -> Option<&Score> {
        match self {
            Self::Score(score) => Some(score),
            Self::Embedding(_) | Self::Classification(_) => None,
        }
    }
}

fn embedding_object<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Object<'a> {
        embedding: &'a [f32],
    }
    Object { embedding: values }.serialize(serializer)
}

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
    fn scores(self, logits: &[f32]) -> Vec<f32> {
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

    #[test]
    fn each_task_has_its_tensors_in_its_outputs_and_one_form_as_json() {
        let labels: Arc<[String]> = ["cat", "dog"].map(String::from).into();
        let classification =
            Classification { labels: Arc::clone(&labels), logits: vec![0.0; 2], scores: vec![0.25, 0.75] };
        let score = Score::from_logit(["match".to_owned()].into(), 0.0, LabelFunction::Sigmoid);
        let cases = [
            (Task::Embedding { dimensions: 2 }, Output::Embedding(vec![0.5, 1.0]), r#"{"embedding":[0.5,1.0]}"#),
            (
                Task::Classification { labels },
                Output::Classification(classification),
                r#"{"label":"dog","score":0.75,"scores":{"cat":0.25,"dog":0.75}}"#,
            ),
            (Task::Score, Output::Score(score), r#"{"score":0.5,"scores":{"match":0.5}}"#),
        ];
        for (task, output, json) in cases {
            assert_eq!(serde_json::to_string(&output).unwrap(), json);
            for OutputTensor { name, datatype, width } in task.tensors() {
                match output.tensor(name).unwrap() {
                    OutputElements::F32(values) => {
                        assert_eq!((datatype, width), (Datatype::Fp32, values.len()), "{name}");
                    }
                    OutputElements::Text(_) => assert_eq!((datatype, width), (Datatype::Bytes, 1), "{name}"),
                }
            }
            assert_eq!(output.tensor("another"), None);
        }
    }
}
