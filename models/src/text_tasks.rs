//! The tasks of encoders of text: the input that a task takes, and the answer that it makes of the head's row.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::output::{entities, scale_to_length_one};
use crate::text::YesNoQuestion;
use crate::{
    Aggregation, Classification, Finishing, Input, InputError, InputKind, LabelFunction, LoadError, ModelDirectory,
    Output, Prepared, Processor, Score, SparseVector, Task, TextProcessor, TokenVectors, Truncation, VectorOptions,
    config, excerpt, labels,
};

/// A task, with what its last step needs.
#[derive(Debug, Clone)]
pub(crate) enum TextTask {
    /// The row as a vector, of which the first `dimensions` elements are kept.
    Embedding { normalize: bool, dimensions: usize },
    /// A score for each label.
    Labels { labels: Arc<[String]>, function: LabelFunction },
    /// One score for a text or a pair of texts, as of a reranker.
    Score { labels: Arc<[String]>, function: LabelFunction },
    /// Entities made up of the labels of tokens.
    Entities { labels: Arc<[String]>, aggregation: Aggregation },
    /// A vector over `words`, of which the `max_active` greatest elements are kept.
    SparseEmbedding { words: usize, max_active: Option<usize> },
    /// A vector of each token.
    TokenEmbeddings { normalize: bool, dimensions: usize },
}

/// The fields of `config.json` about labels.
#[derive(Deserialize)]
struct LabelFields {
    problem_type: Option<String>,
    id2label: Option<Value>,
    num_labels: Option<usize>,
}

impl TextTask {
    /// Reads the labels and the last step of a classifier.
    pub(crate) fn classification(directory: &ModelDirectory) -> Result<Self, LoadError> {
        let LabelFields { problem_type, id2label, num_labels } = directory.config()?;
        let invalid = |message| directory.invalid("config.json", message);
        let labels = labels::in_order(id2label.as_ref(), num_labels).map_err(invalid)?;
        let function = config::label_function(problem_type.as_deref(), labels.len()).map_err(invalid)?;
        if labels.len() > 1 {
            return Ok(Self::Labels { labels, function });
        }
        Ok(Self::Score { labels, function: declared_function(directory)?.unwrap_or(function) })
    }

    /// The score of a language model's answer.
    pub(crate) fn yes_or_no(directory: &ModelDirectory) -> Result<Self, LoadError> {
        let function = declared_function(directory)?.unwrap_or(LabelFunction::Sigmoid);
        Ok(Self::Score { labels: ["yes".to_owned()].into(), function })
    }

    /// Reads the labels of a classifier of tokens.
    pub(crate) fn labels_of(directory: &ModelDirectory) -> Result<Arc<[String]>, LoadError> {
        let LabelFields { id2label, num_labels, .. } = directory.config()?;
        labels::in_order(id2label.as_ref(), num_labels).map_err(|message| directory.invalid("config.json", message))
    }

    /// The labels of a classifier; none of other tasks.
    pub(crate) fn labels(&self) -> &[String] {
        match self {
            Self::Labels { labels, .. } | Self::Score { labels, .. } | Self::Entities { labels, .. } => labels,
            Self::Embedding { .. } | Self::SparseEmbedding { .. } | Self::TokenEmbeddings { .. } => &[],
        }
    }

    /// The input of a model that takes pairs of texts, or not.
    pub(crate) fn input(&self, max_tokens: usize, takes_pairs: bool) -> InputKind {
        match self {
            Self::Score { .. } => InputKind::Pair { max_tokens },
            Self::Labels { .. } if takes_pairs => InputKind::TextOrPair { max_tokens },
            Self::Embedding { .. }
            | Self::Labels { .. }
            | Self::Entities { .. }
            | Self::SparseEmbedding { .. }
            | Self::TokenEmbeddings { .. } => InputKind::Text { max_tokens },
        }
    }

    pub(crate) fn output(&self) -> Task {
        match self {
            Self::Embedding { dimensions, .. } => Task::Embedding { dimensions: *dimensions },
            Self::Labels { labels, .. } => Task::Classification { labels: Arc::clone(labels) },
            Self::Score { .. } => Task::Score,
            Self::Entities { labels, .. } => Task::TokenClassification { labels: Arc::clone(labels) },
            Self::SparseEmbedding { words, .. } => Task::SparseEmbedding { words: *words },
            Self::TokenEmbeddings { dimensions, .. } => Task::TokenEmbeddings { dimensions: *dimensions },
        }
    }

    /// The processor of a model that takes pairs of texts, or not, or pairs as a `question` alone.
    pub(crate) fn processor(
        &self,
        text: TextProcessor,
        takes_pairs: bool,
        question: Option<YesNoQuestion>,
    ) -> Arc<dyn Processor> {
        Arc::new(TaskProcessor { text, task: self.clone(), takes_pairs, question })
    }
}

/// Reads the last step of a reranker, if sentence-transformers declares it in `config.json`.
fn declared_function(directory: &ModelDirectory) -> Result<Option<LabelFunction>, LoadError> {
    #[derive(Deserialize)]
    struct Declared {
        sbert_ce_default_activation_function: Option<String>,
        sentence_transformers: Option<Nested>,
    }
    #[derive(Deserialize)]
    struct Nested {
        activation_fn: Option<String>,
    }
    let Declared { sbert_ce_default_activation_function: old, sentence_transformers: new } = directory.config()?;
    let declared = new.and_then(|nested| nested.activation_fn).or(old);
    match declared.as_deref().map(|name| name.rsplit('.').next().unwrap_or_default()) {
        None => Ok(None),
        Some("Sigmoid") => Ok(Some(LabelFunction::Sigmoid)),
        Some("Identity") => Ok(Some(LabelFunction::Identity)),
        Some(other) => {
            let other = excerpt(&other);
            let message = format!("field 'activation_fn' is '{other}'; known are: Sigmoid, Identity");
            Err(directory.invalid("config.json", message))
        }
    }
}

struct TaskProcessor {
    text: TextProcessor,
    task: TextTask,
    takes_pairs: bool,
    question: Option<YesNoQuestion>,
}

impl Processor for TaskProcessor {
    fn prepare(&self, input: Input, truncation: Truncation) -> Result<Prepared, InputError> {
        if let Some(question) = &self.question {
            return self.text.prepare_question(input, truncation, question);
        }
        match (&self.task, input) {
            (_, input @ Input::Pair(_)) if self.takes_pairs => self.text.prepare_pair(input, truncation),
            // Its answers have places in the input itself.
            (TextTask::Entities { .. }, input) => self.text.prepare_with_prompt(input, truncation, ""),
            (_, input) => self.text.prepare(input, truncation),
        }
    }

    fn keeps_input(&self) -> bool {
        matches!(self.task, TextTask::Entities { .. })
    }

    fn text(&self) -> Option<&TextProcessor> {
        Some(&self.text)
    }

    fn finish(&self, mut row: Vec<f32>, of: Finishing<'_>) -> Output {
        match &self.task {
            TextTask::Embedding { normalize, dimensions } => {
                let length = finish_vector(&mut row, *normalize, *dimensions, of.vectors);
                row.truncate(length);
                Output::Embedding(row)
            }
            TextTask::Labels { labels, function } => {
                Output::Classification(Classification::with_function(Arc::clone(labels), row, *function))
            }
            TextTask::Score { labels, function } => {
                Output::Score(Score::from_logit(Arc::clone(labels), row[0], *function))
            }
            TextTask::Entities { labels, aggregation } => {
                let input = of.input.expect("the caller gives the input, which this processor keeps").clone();
                let (text, tokens) = self.text.spans(input).expect("the input was prepared before");
                Output::Entities(entities(&text, &tokens, &row, labels, *aggregation))
            }
            TextTask::SparseEmbedding { max_active, .. } => {
                Output::Sparse(SparseVector::of_row(&row).with_greatest(max_active.unwrap_or(usize::MAX)))
            }
            TextTask::TokenEmbeddings { normalize, dimensions } => {
                let asked = of.vectors.dimensions.unwrap_or(*dimensions).min(*dimensions);
                let mut values = Vec::with_capacity(row.len() / dimensions * asked);
                for vector in row.chunks_exact_mut(*dimensions) {
                    let length = finish_vector(vector, *normalize, *dimensions, of.vectors);
                    values.extend_from_slice(&vector[..length]);
                }
                Output::TokenVectors(TokenVectors { dimensions: asked, values })
            }
        }
    }
}

/// Scales a vector as the model and the request say, and returns the number of its elements that are kept.
fn finish_vector(vector: &mut [f32], normalize: bool, dimensions: usize, asked: VectorOptions) -> usize {
    let normalize = asked.normalize.unwrap_or(normalize);
    if normalize {
        scale_to_length_one(vector);
    }
    // As in sentence-transformers, the vector that the model's files cut is not scaled again; one that a request cuts is.
    let length = dimensions.min(vector.len());
    match asked.dimensions {
        Some(asked) if asked < length => {
            if normalize {
                scale_to_length_one(&mut vector[..asked]);
            }
            asked
        }
        _ => length,
    }
}
