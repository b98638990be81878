//! Outputs. All properties of a kind of output are in this file: the task that gives it, its tensors, its JSON. A new
//! kind is an arm of each `match` in this file, and a family that gives it.

mod classification;
mod converted;
mod entities;
mod vectors;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

pub use classification::{Classification, LabelFunction, Score};
pub use converted::{ConvertedElements, ConvertedEmbedding, OutputDtype, UnknownOutputDtype};
pub use entities::{Aggregation, Entities, Entity};
pub(crate) use entities::{TokenSpan, entities};
pub(crate) use vectors::scale_to_length_one;
pub use vectors::{SparseVector, TokenVectors, VectorOptions};

use crate::InputError;
use crate::tensor::{Datatype, OutputElements, OutputShape, OutputTensor};

/// The answer for one item. As JSON it is an object: `{"embedding": […]}`, `{"label": …, "score": …, "scores": {…}}`,
/// `{"score": …, "scores": {…}}`, `{"entities": […]}`, `{"sparse": […]}` or `{"token_embeddings": [[…], …]}`.
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
    /// The entities in a text, such as names of persons.
    Entities(Entities),
    /// A vector over the words of the model's vocabulary.
    Sparse(SparseVector),
    /// A vector for each token.
    TokenVectors(TokenVectors),
    /// An embedding or the vectors of tokens, in another element type than `FP32`.
    Converted(ConvertedEmbedding),
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
    /// A label for each token, and the entities that these make up.
    TokenClassification {
        /// The labels, such as `B-PER`.
        labels: Arc<[String]>,
    },
    /// A vector over the words of a vocabulary.
    SparseEmbedding {
        /// Number of words.
        words: usize,
    },
    /// A vector for each token.
    TokenEmbeddings {
        /// Length of each vector.
        dimensions: usize,
    },
}

const EMBEDDING: &str = "embedding";
const SCORES: &str = "scores";
const LABEL: &str = "label";
const SCORE: &str = "score";
const ENTITIES: &str = "entities";
const INDICES: &str = "indices";
const VALUES: &str = "values";
const TOKEN_EMBEDDINGS: &str = "token_embeddings";
const TOKENS: &str = "tokens";

impl Task {
    /// `embedding`, `classification`, `score`, `token_classification`, `sparse_embedding` or `token_embeddings`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embedding { .. } => "embedding",
            Self::Classification { .. } => "classification",
            Self::Score => "score",
            Self::TokenClassification { .. } => "token_classification",
            Self::SparseEmbedding { .. } => "sparse_embedding",
            Self::TokenEmbeddings { .. } => "token_embeddings",
        }
    }

    /// The tensors that carry the output.
    #[must_use]
    pub fn tensors(&self) -> Vec<OutputTensor> {
        let of = |name, datatype, shape| OutputTensor { name, datatype, shape };
        let fixed = |name, datatype, width| of(name, datatype, OutputShape::Fixed(width));
        match self {
            Self::Embedding { dimensions } => vec![fixed(EMBEDDING, Datatype::Fp32, *dimensions)],
            Self::Classification { labels } => {
                vec![fixed(SCORES, Datatype::Fp32, labels.len()), fixed(LABEL, Datatype::Bytes, 1)]
            }
            Self::Score => vec![fixed(SCORE, Datatype::Fp32, 1)],
            Self::TokenClassification { .. } => vec![fixed(ENTITIES, Datatype::Bytes, 1)],
            Self::SparseEmbedding { .. } => vec![
                of(INDICES, Datatype::Int32, OutputShape::Varying),
                of(VALUES, Datatype::Fp32, OutputShape::Varying),
            ],
            Self::TokenEmbeddings { dimensions } => vec![
                of(TOKEN_EMBEDDINGS, Datatype::Fp32, OutputShape::Rows(*dimensions)),
                fixed(TOKENS, Datatype::Int32, 1),
            ],
        }
    }

    /// The labels of a classification, of texts or of tokens.
    #[must_use]
    pub fn labels(&self) -> Option<&Arc<[String]>> {
        match self {
            Self::Classification { labels } | Self::TokenClassification { labels } => Some(labels),
            Self::Embedding { .. } | Self::Score | Self::SparseEmbedding { .. } | Self::TokenEmbeddings { .. } => None,
        }
    }

    /// The name of the tensor with a score for each label of a classification of texts.
    #[must_use]
    pub fn scores(&self) -> Option<&'static str> {
        match self {
            Self::Classification { .. } => Some(SCORES),
            Self::Embedding { .. }
            | Self::Score
            | Self::TokenClassification { .. }
            | Self::SparseEmbedding { .. }
            | Self::TokenEmbeddings { .. } => None,
        }
    }

    /// The length of the vectors of an embedding, whether of a text, of tokens, or over the words of a vocabulary.
    #[must_use]
    pub fn dimensions(&self) -> Option<usize> {
        match self {
            Self::Embedding { dimensions } | Self::TokenEmbeddings { dimensions } => Some(*dimensions),
            Self::SparseEmbedding { words } => Some(*words),
            Self::Classification { .. } | Self::Score | Self::TokenClassification { .. } => None,
        }
    }

    /// Checks that answers of this task can be given as asked for.
    ///
    /// # Errors
    /// [`InputError`] names the option, and the task or the bound that it does not fit.
    pub fn check(&self, options: VectorOptions) -> Result<(), InputError> {
        let max = match self {
            Self::Embedding { dimensions } | Self::TokenEmbeddings { dimensions } => *dimensions,
            Self::Classification { .. }
            | Self::Score
            | Self::TokenClassification { .. }
            | Self::SparseEmbedding { .. } => {
                let set = [
                    ("dimensions", options.dimensions.is_some()),
                    ("normalize", options.normalize.is_some()),
                    ("output_dtype", options.output_dtype != OutputDtype::Float32),
                ];
                return match set.into_iter().find(|(_, is_set)| *is_set) {
                    Some((option, _)) => Err(InputError::NoMeaning { option, task: self.name() }),
                    None => Ok(()),
                };
            }
        };
        match options.dimensions {
            Some(got) if !(1..=max).contains(&got) => Err(InputError::Dimensions { got, max }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedding { dimensions } => write!(f, "embedding, {dimensions} dimensions"),
            Self::Classification { labels } => write!(f, "classification, {} labels", labels.len()),
            Self::Score => f.write_str("score of a pair"),
            Self::TokenClassification { labels } => write!(f, "token classification, {} labels", labels.len()),
            Self::SparseEmbedding { words } => write!(f, "sparse embedding, {words} words"),
            Self::TokenEmbeddings { dimensions } => write!(f, "token embeddings, {dimensions} dimensions"),
        }
    }
}

impl Output {
    /// The elements of the tensor `name` of [`Task::tensors`]; `None` for any other name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<OutputElements<'_>> {
        // Words and tokens are fewer than 2³¹.
        let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        match (self, name) {
            (Self::Embedding(values), EMBEDDING) => Some(OutputElements::F32(values)),
            (Self::Classification(answer), SCORES) => Some(OutputElements::F32(&answer.scores)),
            (Self::Classification(answer), LABEL) => Some(OutputElements::Text(answer.label().into())),
            (Self::Score(score), SCORE) => Some(OutputElements::F32(std::slice::from_ref(&score.score))),
            (Self::Entities(answer), ENTITIES) => {
                // Strings and numbers have a JSON form.
                let json = serde_json::to_string(&answer.entities).unwrap_or_default();
                Some(OutputElements::Text(json.into()))
            }
            (Self::Sparse(vector), INDICES) => {
                Some(OutputElements::I32(vector.indices.iter().map(|index| number(*index as usize)).collect()))
            }
            (Self::Sparse(vector), VALUES) => Some(OutputElements::F32(&vector.values)),
            (Self::TokenVectors(vectors), TOKEN_EMBEDDINGS) => Some(OutputElements::F32(&vectors.values)),
            (Self::TokenVectors(vectors), TOKENS) => Some(OutputElements::I32(vec![number(vectors.tokens())])),
            (Self::Converted(embedding), TOKENS) => {
                embedding.tokens().map(|tokens| OutputElements::I32(vec![number(tokens)]))
            }
            (Self::Converted(embedding), name) => {
                (name == embedding.tensor_name()).then(|| embedding.output_elements())
            }
            (
                Self::Embedding(_)
                | Self::Classification(_)
                | Self::Score(_)
                | Self::Entities(_)
                | Self::Sparse(_)
                | Self::TokenVectors(_),
                _,
            ) => None,
        }
    }

    /// The numbers of the answer: the elements of vectors, or the scores.
    #[must_use]
    pub fn numbers(&self) -> Cow<'_, [f32]> {
        match self {
            Self::Embedding(values) => values.into(),
            Self::Classification(classification) => (&classification.scores).into(),
            Self::Score(score) => std::slice::from_ref(&score.score).into(),
            Self::Entities(answer) => answer.entities.iter().map(|entity| entity.score).collect(),
            Self::Sparse(vector) => (&vector.values).into(),
            Self::TokenVectors(vectors) => (&vectors.values).into(),
            Self::Converted(embedding) => embedding.elements.to_f32().into(),
        }
    }

    /// The embedding, if the output is one of `FP32`.
    #[must_use]
    pub fn embedding(&self) -> Option<&[f32]> {
        if let Self::Embedding(values) = self { Some(values) } else { None }
    }

    /// The classification, if the output is one.
    #[must_use]
    pub fn classification(&self) -> Option<&Classification> {
        if let Self::Classification(classification) = self { Some(classification) } else { None }
    }

    /// The score, if the output is one.
    #[must_use]
    pub fn score(&self) -> Option<&Score> {
        if let Self::Score(score) = self { Some(score) } else { None }
    }

    /// The entities, if the output has them.
    #[must_use]
    pub fn entities(&self) -> Option<&[Entity]> {
        if let Self::Entities(answer) = self { Some(&answer.entities) } else { None }
    }

    /// The sparse vector, if the output is one.
    #[must_use]
    pub fn sparse(&self) -> Option<&SparseVector> {
        if let Self::Sparse(vector) = self { Some(vector) } else { None }
    }

    /// The vector of each token, if the output has them in `FP32`.
    #[must_use]
    pub fn token_vectors(&self) -> Option<&TokenVectors> {
        if let Self::TokenVectors(vectors) = self { Some(vectors) } else { None }
    }

    /// The embedding or the vectors of tokens, if they were asked for in another element type than `FP32`.
    #[must_use]
    pub fn converted_embedding(&self) -> Option<&ConvertedEmbedding> {
        if let Self::Converted(embedding) = self { Some(embedding) } else { None }
    }
}

fn embedding_object<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Object<'a> {
        embedding: &'a [f32],
    }
    Object { embedding: values }.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (
                Task::TokenClassification { labels: ["O".to_owned()].into() },
                Output::Entities(Entities {
                    entities: vec![Entity {
                        entity_group: "PER".to_owned(),
                        score: 0.5,
                        text: "Ada".to_owned(),
                        start: 3,
                        end: 6,
                    }],
                }),
                r#"{"entities":[{"entity_group":"PER","score":0.5,"text":"Ada","start":3,"end":6}]}"#,
            ),
            (
                Task::SparseEmbedding { words: 9 },
                Output::Sparse(SparseVector::of_row(&[2.0, 0.5, 7.0, 1.5])),
                r#"{"sparse":[{"index":2,"value":0.5},{"index":7,"value":1.5}]}"#,
            ),
            (
                Task::TokenEmbeddings { dimensions: 2 },
                Output::TokenVectors(TokenVectors { dimensions: 2, values: vec![0.5, 1.0, 1.5, 2.0] }),
                r#"{"token_embeddings":[[0.5,1.0],[1.5,2.0]]}"#,
            ),
        ];
        for (task, output, json) in cases {
            assert_eq!(serde_json::to_string(&output).unwrap(), json);
            for OutputTensor { name, datatype, shape } in task.tensors() {
                let (got, elements) = match output.tensor(name).unwrap() {
                    OutputElements::F32(values) => (Datatype::Fp32, values.len()),
                    OutputElements::F16(_) | OutputElements::I8(_) | OutputElements::U8(_) => unreachable!("unasked"),
                    OutputElements::I32(values) => (Datatype::Int32, values.len()),
                    OutputElements::Text(_) => (Datatype::Bytes, 1),
                };
                assert_eq!(datatype, got, "{name}");
                match shape {
                    OutputShape::Fixed(width) => assert_eq!(width, elements, "{name}"),
                    OutputShape::Varying => {}
                    OutputShape::Rows(width) => assert!(elements.is_multiple_of(width), "{name}"),
                }
            }
            assert_eq!(output.tensor("another"), None);
        }
    }

    #[test]
    fn options_of_vectors_are_refused_where_they_have_no_meaning_or_are_out_of_bounds() {
        let of = |dimensions, normalize| VectorOptions { dimensions, normalize, ..VectorOptions::default() };
        let embedding = Task::Embedding { dimensions: 8 };
        for fine in [of(None, None), of(Some(1), Some(false)), of(Some(8), Some(true))] {
            assert_eq!(embedding.check(fine), Ok(()));
        }
        for got in [0, 9] {
            let refused = embedding.check(of(Some(got), None)).unwrap_err().to_string();
            assert_eq!(refused, format!("option 'dimensions' is {got}; it must be between 1 and 8"));
        }
        let refused = |task: Task, options| task.check(options).unwrap_err().to_string();
        let message = "option 'dimensions' has no meaning for the task score; leave it out";
        assert_eq!(refused(Task::Score, of(Some(1), None)), message);
        assert!(refused(Task::SparseEmbedding { words: 8 }, of(None, Some(true))).contains("'normalize'"));
        assert_eq!(Task::Score.check(of(None, None)), Ok(()));
        let bits = VectorOptions { output_dtype: OutputDtype::Binary, ..VectorOptions::default() };
        assert!(refused(Task::Score, bits).contains("'output_dtype'"));
        assert_eq!(embedding.check(bits), Ok(()));
    }
}
