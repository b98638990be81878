//! The tasks of encoders of text: the input that a task takes, and the answer that it makes of the head's row.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    Classification, Input, InputError, InputKind, LabelFunction, LoadError, ModelDirectory, Output, Prepared,
    Processor, Score, Task, TextProcessor, Truncation, config, excerpt, labels,
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
}

impl TextTask {
    /// Reads the labels and the last step of a classifier.
    pub(crate) fn classification(directory: &ModelDirectory) -> Result<Self, LoadError> {
        #[derive(Deserialize)]
        struct Fields {
            problem_type: Option<String>,
            id2label: Option<Value>,
            num_labels: Option<usize>,
        }
        let Fields { problem_type, id2label, num_labels } = directory.config()?;
        let invalid = |message| directory.invalid("config.json", message);
        let labels = labels::in_order(id2label.as_ref(), num_labels).map_err(invalid)?;
        let function = config::label_function(problem_type.as_deref(), labels.len()).map_err(invalid)?;
        if labels.len() > 1 {
            return Ok(Self::Labels { labels, function });
        }
        Ok(Self::Score { labels, function: declared_function(directory)?.unwrap_or(function) })
    }

    /// The labels of a classifier; none of other tasks.
    pub(crate) fn labels(&self) -> &[String] {
        match self {
            Self::Embedding { .. } => &[],
            Self::Labels { labels, .. } | Self::Score { labels, .. } => labels,
        }
    }

    pub(crate) fn input(&self, max_tokens: usize) -> InputKind {
        match self {
            Self::Embedding { .. } | Self::Labels { .. } => InputKind::Text { max_tokens },
            Self::Score { .. } => InputKind::Pair { max_tokens },
        }
    }

    pub(crate) fn output(&self) -> Task {
        match self {
            Self::Embedding { dimensions, .. } => Task::Embedding { dimensions: *dimensions },
            Self::Labels { labels, .. } => Task::Classification { labels: Arc::clone(labels) },
            Self::Score { .. } => Task::Score,
        }
    }

    pub(crate) fn processor(&self, text: TextProcessor) -> Arc<dyn Processor> {
        Arc::new(TaskProcessor { text, task: self.clone() })
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
}

impl Processor for TaskProcessor {
    fn prepare(&self, input: Input, truncation: Truncation) -> Result<Prepared, InputError> {
        match (&self.task, input) {
            (TextTask::Score { .. }, Input::Pair(pair)) => self.text.prepare_pair(Input::Pair(pair), truncation),
            (_, input) => self.text.prepare(input, truncation),
        }
    }

    fn finish(&self, row: Vec<f32>) -> Output {
        match &self.task {
            TextTask::Embedding { normalize, dimensions } => {
                // As in sentence-transformers, the vector of length 1 is cut and not scaled again.
                let mut vector = if *normalize { of_length_one(row) } else { row };
                vector.truncate(*dimensions);
                Output::Embedding(vector)
            }
            TextTask::Labels { labels, function } => {
                Output::Classification(Classification::with_function(Arc::clone(labels), row, *function))
            }
            TextTask::Score { labels, function } => {
                Output::Score(Score::from_logit(Arc::clone(labels), row[0], *function))
            }
        }
    }
}

fn of_length_one(mut vector: Vec<f32>) -> Vec<f32> {
    /// The smallest divisor, as in `torch.nn.functional.normalize`: zeros stay zeros.
    const MIN_LENGTH: f32 = 1e-12;
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(MIN_LENGTH);
    for x in &mut vector {
        *x /= length;
    }
    vector
}
