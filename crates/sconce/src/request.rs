//! Requests and answers, of one item or of a group.

use std::sync::Arc;
use std::time::Duration;

use sconce_batch::Priority;
use sconce_models::{DeviceName, Input, Output, OutputDtype, Precision, Truncation, VectorOptions};

/// One item to infer, with its terms. Anything that converts into an [`Input`] converts into a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The input.
    pub input: Input,
    /// The longest time to wait for the answer, preparing included; `None` for no limit.
    pub timeout: Option<Duration>,
    /// The item's priority among requests for the same model.
    pub priority: Priority,
    /// Truncates or refuses a text with more tokens than the model takes.
    pub truncation: Truncation,
    /// True if the runtime's cache, when it has one, may give the answer and keep it.
    pub cache: bool,
    /// The name of the prompt that is put before the text, among those of the model's files; `None`: the model's default.
    pub prompt: Option<String>,
    /// The elements of vectors, their length and their type.
    pub vectors: VectorOptions,
    /// The precision in which the network computes, among those that the model is loaded in
    /// ([`Model::precisions`](crate::Model::precisions)); `None`: the present one of the model. A cache may still answer in a
    /// higher one if its [policy](crate::RuntimeBuilder::cross_precision) allows that.
    pub precision: Option<Precision>,
}

impl Request {
    /// Creates a request without a time limit, of normal priority, cached, that truncates a text with too many tokens.
    pub fn new(input: impl Into<Input>) -> Self {
        Self {
            input: input.into(),
            timeout: None,
            priority: Priority::default(),
            truncation: Truncation::default(),
            cache: true,
            prompt: None,
            vectors: VectorOptions::default(),
            precision: None,
        }
    }

    /// Sets the longest time to wait.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Sets the priority among requests for the same model.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Bypasses the cache: the answer is computed, and not kept.
    #[must_use]
    pub fn uncached(self) -> Self {
        Self { cache: false, ..self }
    }

    /// Sets how a text with too many tokens is handled: truncated or refused.
    #[must_use]
    pub fn truncation(self, truncation: Truncation) -> Self {
        Self { truncation, ..self }
    }

    /// Sets the prompt by its name in the model's files, such as `query`.
    #[must_use]
    pub fn prompt(self, name: impl Into<String>) -> Self {
        Self { prompt: Some(name.into()), ..self }
    }

    /// Sets the precision in which the network computes.
    #[must_use]
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision: Some(precision), ..self }
    }

    /// Cuts vectors to their first elements, and scales them to length 1 again if they are normalised.
    #[must_use]
    pub fn dimensions(self, dimensions: usize) -> Self {
        Self { vectors: VectorOptions { dimensions: Some(dimensions), ..self.vectors }, ..self }
    }

    /// Sets if vectors are scaled to length 1, whatever the model does.
    #[must_use]
    pub fn normalize(self, normalize: bool) -> Self {
        Self { vectors: VectorOptions { normalize: Some(normalize), ..self.vectors }, ..self }
    }

    /// Sets the type of the elements of embeddings.
    #[must_use]
    pub fn output_dtype(self, output_dtype: OutputDtype) -> Self {
        Self { vectors: VectorOptions { output_dtype, ..self.vectors }, ..self }
    }
}

impl<I: Into<Input>> From<I> for Request {
    fn from(input: I) -> Self {
        Self::new(input)
    }
}

/// Several items to infer together, on the same terms. A list of anything that converts into an [`Input`] converts into
/// a group.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestGroup {
    /// The inputs.
    pub inputs: Vec<Input>,
    /// The longest time to wait for all answers, preparing included; `None` for no limit.
    pub timeout: Option<Duration>,
    /// The items' priority among requests for the same model.
    pub priority: Priority,
    /// Truncates or refuses a text with more tokens than the model takes.
    pub truncation: Truncation,
    /// True if the runtime's cache, when it has one, may give the answers and keep them.
    pub cache: bool,
    /// The name of the prompt that is put before each text, among those of the model's files; `None`: the model's default.
    pub prompt: Option<String>,
    /// The elements of vectors, their length and their type.
    pub vectors: VectorOptions,
    /// The precision in which the network computes, among those that the model is loaded in
    /// ([`Model::precisions`](crate::Model::precisions)); `None`: the present one of the model. A cache may still answer in a
    /// higher one if its [policy](crate::RuntimeBuilder::cross_precision) allows that.
    pub precision: Option<Precision>,
}

impl RequestGroup {
    /// Creates a group without a time limit, of normal priority, cached, that truncates a text with too many tokens.
    pub fn new(inputs: impl IntoIterator<Item = impl Into<Input>>) -> Self {
        Self {
            inputs: inputs.into_iter().map(Into::into).collect(),
            timeout: None,
            priority: Priority::default(),
            truncation: Truncation::default(),
            cache: true,
            prompt: None,
            vectors: VectorOptions::default(),
            precision: None,
        }
    }

    /// Sets the longest time to wait.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Sets the priority among requests for the same model.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Bypasses the cache: the answers are computed, and not kept.
    #[must_use]
    pub fn uncached(self) -> Self {
        Self { cache: false, ..self }
    }

    /// Sets how a text with too many tokens is handled: truncated or refused.
    #[must_use]
    pub fn truncation(self, truncation: Truncation) -> Self {
        Self { truncation, ..self }
    }

    /// Sets the prompt by its name in the model's files, such as `query`.
    #[must_use]
    pub fn prompt(self, name: impl Into<String>) -> Self {
        Self { prompt: Some(name.into()), ..self }
    }

    /// Sets the precision in which the network computes.
    #[must_use]
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision: Some(precision), ..self }
    }

    /// Cuts vectors to their first elements, and scales them to length 1 again if they are normalised.
    #[must_use]
    pub fn dimensions(self, dimensions: usize) -> Self {
        Self { vectors: VectorOptions { dimensions: Some(dimensions), ..self.vectors }, ..self }
    }

    /// Sets if vectors are scaled to length 1, whatever the model does.
    #[must_use]
    pub fn normalize(self, normalize: bool) -> Self {
        Self { vectors: VectorOptions { normalize: Some(normalize), ..self.vectors }, ..self }
    }

    /// Sets the type of the elements of embeddings.
    #[must_use]
    pub fn output_dtype(self, output_dtype: OutputDtype) -> Self {
        Self { vectors: VectorOptions { output_dtype, ..self.vectors }, ..self }
    }
}

impl<I: Into<Input>> From<Vec<I>> for RequestGroup {
    fn from(inputs: Vec<I>) -> Self {
        Self::new(inputs)
    }
}

/// The answer to one item.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The model's output.
    pub output: Output,
    /// Number of tokens that the model read, special tokens included; `None` if it reads no tokens.
    pub tokens: Option<usize>,
    /// True if the text had more tokens than the model takes, and its end was cut off.
    pub truncated: bool,
    /// The precision in which the network was computed.
    pub precision: Precision,
    /// The id of the decision record by which the model serves in this precision, or `undecided`; `None` for f32.
    pub decision: Option<Arc<str>>,
    /// The device that computed the answer, for this request or for an earlier one.
    pub device: DeviceName,
    /// The source of the answer: computed for this request, a tier of the cache, or another request.
    pub source: AnswerSource,
    /// The time of each step.
    pub timing: Timing,
}

/// The source of an [`Answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerSource {
    /// The model computed the answer for this request.
    Computed,
    /// The cache's tier of this name held the answer.
    Cached(&'static str),
    /// An identical request was already computing the answer, and this one waited for it.
    Shared,
    /// Another replica of the service computed the answer while this one waited.
    Replica,
}

impl AnswerSource {
    /// The source as one word: `computed`, `shared`, `replica`, or the name of the tier.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Computed => "computed",
            Self::Cached(tier) => tier,
            Self::Shared => "shared",
            Self::Replica => "replica",
        }
    }
}

/// The time of each step of one item; zero for a step that it did not take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// Looking the answer up in the cache. Zero for an answer that another request or replica computed meanwhile.
    pub cache: Duration,
    /// Checking and preparing the input, the wait for the preparing pool included.
    pub prepare: Duration,
    /// The time in the queue: from admission until a device took the item.
    pub queue_wait: Duration,
    /// The forward pass of the item's batch.
    pub run: Duration,
    /// Making the answer of the network's row.
    pub finish: Duration,
    /// Number of items in the batch; 0 if nothing was computed.
    pub batch_size: usize,
    /// Figures of the computation for the watch.
    pub(crate) work: Work,
}

impl Timing {
    /// Weight of the item's batch, told to one of its items alone, so that each batch counts once; `None` if the batch did not
    /// run at the first try.
    #[must_use]
    pub fn batch_weight(&self) -> Option<usize> {
        self.work.batch_weight
    }
}

/// Figures of the computation of one item that the watch for slowdowns compares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Time of preparing alone, without waiting for a thread; `None` if nothing was prepared.
    pub(crate) prepare: Option<Duration>,
    /// Weight of the batch, as of [`sconce_batch::Completion::batch_weight`].
    pub(crate) batch_weight: Option<usize>,
    /// Index of the device among those of the model.
    pub(crate) device: usize,
}
