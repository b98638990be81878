//! Answers made of several pairs of texts: documents ranked by a query, and labels that a request names.

use std::sync::Arc;

use sconce_models::{Classification, Input, InputError, InputKind, LabelFunction, Task};

use crate::{Answer, InferError, InferManyError, Model, RequestGroup};

/// A document with its score.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Ranked {
    /// The document's place in the list that was given.
    pub index: usize,
    /// How well it matches the query, by the model's own scale.
    pub score: f32,
    /// The whole answer.
    pub answer: Answer,
}

/// Labels for a text by a model of natural language inference, as in the zero-shot pipeline of transformers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZeroShot {
    /// The labels, at least one.
    pub labels: Vec<String>,
    /// A sentence with `{}` in place of the label.
    pub template: String,
    /// True if each label is right or wrong by itself; false if one of them is right.
    pub multi_label: bool,
}

impl ZeroShot {
    /// One of these labels is right, by the template `This example is {}.`.
    pub fn new(labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            labels: labels.into_iter().map(Into::into).collect(),
            template: "This example is {}.".to_owned(),
            multi_label: false,
        }
    }

    /// Sets the sentence.
    #[must_use]
    pub fn template(self, template: impl Into<String>) -> Self {
        Self { template: template.into(), ..self }
    }

    /// Lets each label be right or wrong by itself.
    #[must_use]
    pub fn multi_label(self) -> Self {
        Self { multi_label: true, ..self }
    }
}

impl<L: Into<String>> From<Vec<L>> for ZeroShot {
    fn from(labels: Vec<L>) -> Self {
        Self::new(labels)
    }
}

/// Words of errors of models that do something else.
const RERANKING: &str = "reranking, which needs a classifier of pairs with one label";
const ZERO_SHOT: &str = "zero-shot classification, which needs a classifier of pairs with a label 'entailment'";

impl Model {
    /// Scores how well each document matches a query. The answers are in the order of the documents;
    /// [`rerank_top`](Self::rerank_top) sorts them. All documents are admitted together, as with
    /// [`infer_many`](Self::infer_many), which takes [`RequestGroup::pairs`] on other terms.
    ///
    /// # Errors
    /// [`InferManyError`]: the first document that failed, or the refusal of all, also of a model that is no reranker.
    ///
    /// # Panics
    /// As [`infer_many`](Self::infer_many).
    pub async fn rerank(
        &self,
        query: &str,
        documents: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Ranked>, InferManyError> {
        if self.signature().task != Task::Score {
            return Err(InferManyError::of_all(self.unsuited(RERANKING)));
        }
        let answers = self.infer_many(RequestGroup::pairs(query, documents)).await?;
        let ranked = |(index, answer): (usize, Answer)| {
            let score = answer.output.score().expect("a model of this task gives scores").score;
            Ranked { index, score, answer }
        };
        Ok(answers.into_iter().enumerate().map(ranked).collect())
    }

    /// As [`rerank`](Self::rerank), the best document first, and at most `top_n` of them. Documents of one score stay in
    /// their order.
    ///
    /// # Errors
    /// As [`rerank`](Self::rerank).
    ///
    /// # Panics
    /// As [`infer_many`](Self::infer_many).
    pub async fn rerank_top(
        &self,
        query: &str,
        documents: impl IntoIterator<Item = impl Into<String>>,
        top_n: usize,
    ) -> Result<Vec<Ranked>, InferManyError> {
        let mut ranked = self.rerank(query, documents).await?;
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        ranked.truncate(top_n);
        Ok(ranked)
    }

    /// Classifies a text by labels that the model has not seen: each becomes a sentence, and a model of natural language
    /// inference says if the text entails it. The scores are in the order of the labels. All pairs are admitted together.
    ///
    /// ```no_run
    /// # async fn of(model: sconce::Model) -> Result<(), Box<dyn std::error::Error>> {
    /// let answer = model.classify_zero_shot("The train is late.", vec!["travel", "cooking"]).await?;
    /// assert_eq!(answer.label(), "travel");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InferManyError`], also for a model without the label `entailment`, no labels, or a template without `{}`.
    ///
    /// # Panics
    /// As [`infer_many`](Self::infer_many).
    pub async fn classify_zero_shot(
        &self,
        text: &str,
        labels: impl Into<ZeroShot>,
    ) -> Result<Classification, InferManyError> {
        let ZeroShot { labels, template, multi_label } = labels.into();
        let entailment = self.entailment().ok_or_else(|| InferManyError::of_all(self.unsuited(ZERO_SHOT)))?;
        let invalid = |error: InputError| InferManyError::of_all(error.into());
        if labels.is_empty() {
            return Err(invalid(InputError::NoLabels));
        }
        if !template.contains("{}") {
            return Err(invalid(InputError::Template { template }));
        }
        let sentences = labels.iter().map(|label| template.replacen("{}", label, 1));
        let answers = self.infer_many(RequestGroup::pairs(text, sentences)).await?;
        let logits: Vec<&[f32]> = answers
            .iter()
            .map(|answer| &*answer.output.classification().expect("a model of this task classifies").logits)
            .collect();
        let of_entailment: Vec<f32> = logits.iter().map(|logits| logits[entailment]).collect();
        let labels: Arc<[String]> = labels.into();
        if !multi_label && labels.len() > 1 {
            return Ok(Classification::with_function(labels, of_entailment, LabelFunction::Softmax));
        }
        // The softmax of entailment and contradiction is the sigmoid of their difference.
        let contradiction = |logits: &[f32]| if entailment == 0 { logits[logits.len() - 1] } else { logits[0] };
        let differences = logits.iter().map(|logits| logits[entailment] - contradiction(logits)).collect();
        Ok(Classification::with_function(labels, differences, LabelFunction::Sigmoid))
    }

    /// The place of the label that says that one text follows from another, in a classifier of pairs.
    fn entailment(&self) -> Option<usize> {
        let signature = self.signature();
        let InputKind::TextOrPair { .. } = signature.input.kind else { return None };
        let Task::Classification { labels } = &signature.task else { return None };
        labels.iter().position(|label| label.to_lowercase().starts_with("entail"))
    }

    fn unsuited(&self, wanted: &'static str) -> InferError {
        InferError::Unsuited { model: self.name().to_owned(), task: self.signature().task.name(), wanted }
    }
}

impl RequestGroup {
    /// Pairs of one text with each of several others, such as a query with documents.
    pub fn pairs(first: &str, others: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::new(others.into_iter().map(|other| Input::from((first.to_owned(), other.into()))))
    }
}
