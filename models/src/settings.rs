//! `sconce.toml`: the operator's settings for one model. All fields are optional.

use sconce_kernels::pooling::Pooling;
use serde::{Deserialize, Deserializer};

use crate::{Aggregation, Placement, Precision};

/// The fields of `[model]` that have a meaning for some families only.
pub(crate) const MODEL_FIELDS: [&str; 6] = ["pooling", "normalize", "max_tokens", "cuda_graphs", "task", "aggregation"];

/// The content of `sconce.toml`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The table `[model]`: how inputs are prepared, computed and finished.
    pub model: ModelSettings,
    /// The table `[batching]`: how batches are formed.
    pub batching: BatchingSettings,
    /// The table `[cache]`: which answers are cached.
    pub cache: CacheSettings,
    /// The table `[ladder]`: lower precisions to step down to under load.
    pub ladder: LadderSettings,
    /// The table `[shadow]`: the check of lower precisions against f32.
    pub shadow: ShadowSettings,
}

impl Settings {
    /// Refuses zeros, and fields of [`MODEL_FIELDS`] that are set but not in `used`.
    pub(crate) fn check(&self, used: &[&str]) -> Result<(), String> {
        let Self { model, batching, .. } = self;
        let set = [
            model.pooling.is_some(),
            model.normalize.is_some(),
            model.max_tokens.is_some(),
            model.cuda_graphs.is_some(),
            model.task.is_some(),
            model.aggregation.is_some(),
        ];
        let mut set = MODEL_FIELDS.iter().zip(set);
        if let Some((field, _)) = set.find(|(field, is_set)| *is_set && !used.contains(field)) {
            return Err(format!("field 'model.{field}' has no meaning for this model; remove it"));
        }
        let at_least_one = [
            ("model.max_tokens", model.max_tokens),
            ("batching.max_batch_size", batching.max_batch_size),
            ("batching.max_batch_weight", batching.max_batch_weight),
            ("batching.max_queue_size", batching.max_queue_size),
            ("batching.max_queue_weight", batching.max_queue_weight),
        ];
        match at_least_one.iter().find(|(_, value)| *value == Some(0)) {
            Some((field, _)) => Err(format!("field '{field}' is 0; it must be at least 1")),
            None => Ok(()),
        }
    }
}

/// Settings for preparing, computing and finishing inputs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// The precision, unless the caller asks for another. Default: f32.
    pub precision: Option<Precision>,
    /// The device, unless the caller asks for another. Default: that of the runtime.
    pub device: Option<Placement>,
    /// The pooling of token vectors. Default: that of the model directory, else the mean.
    #[serde(deserialize_with = "pooling")]
    pub pooling: Option<Pooling>,
    /// True to scale embeddings to length 1. Default: as in the model directory, else true.
    pub normalize: Option<bool>,
    /// Most tokens per text, special tokens included. Default: as in the model directory.
    pub max_tokens: Option<usize>,
    /// True to record the launches of a batch by its size, and to queue them by one call, on CUDA devices. Batches are
    /// padded to the next recorded size, by up to half of their tokens: small batches get faster, large ones slower.
    /// Default: false.
    pub cuda_graphs: Option<bool>,
    /// The kind of vectors that an encoder gives, or the score of a language model. Default: as in the model directory, else
    /// an embedding.
    pub task: Option<VectorTask>,
    /// The way in which labels of tokens make up entities. Default: simple.
    pub aggregation: Option<Aggregation>,
}

/// The kinds of answers that a model without a classifier can give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VectorTask {
    /// A vector of the whole text.
    #[default]
    Embedding,
    /// A vector over the words of the vocabulary, by the head that guesses words (SPLADE).
    SparseEmbedding,
    /// A vector of each token (`ColBERT`).
    TokenEmbeddings,
    /// The score of a pair of texts, by a language model that answers yes or no.
    Score,
}

/// Reads a way of pooling: `mean`, `cls`, `max`, `last`, `weighted_mean` or `mean_sqrt_length`.
fn pooling<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Pooling>, D::Error> {
    #[derive(Deserialize)]
    #[serde(remote = "Pooling", rename_all = "snake_case")]
    enum Named {
        Mean,
        Cls,
        Max,
        Last,
        WeightedMean,
        MeanSqrtLength,
    }
    Named::deserialize(deserializer).map(Some)
}

/// Settings for forming batches. Meanings, bounds and defaults are those of the batcher's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchingSettings {
    /// Most items per batch.
    pub max_batch_size: Option<usize>,
    /// Most weight (tokens) per batch.
    pub max_batch_weight: Option<usize>,
    /// Most items in the queue.
    pub max_queue_size: Option<usize>,
    /// Most weight (tokens) in the queue.
    pub max_queue_weight: Option<usize>,
    /// Microseconds that a batch may wait for more items.
    pub max_queue_delay_us: Option<u64>,
    /// Milliseconds by which an item counts as younger for each step of priority below the highest.
    pub priority_ageing_ms: Option<u64>,
}

/// Settings for a model's answers in the runtime's cache, if it has one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSettings {
    /// True to cache the model's answers. Default: true.
    pub answers: Option<bool>,
    /// True to give cached answers of a higher precision. Default: as in the runtime, else false.
    pub higher_precisions: Option<bool>,
}

/// Settings for a precision ladder. Meanings and bounds are those of the runtime's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LadderSettings {
    /// Lower precisions than the model's own, the highest first. Default: none, and no ladder.
    pub precisions: Option<Vec<Precision>>,
    /// Milliseconds within which 99 of 100 requests are to be answered. Default: 500.
    pub target_p99_ms: Option<u64>,
}

/// Settings for the shadow check. Meanings and bounds are those of the runtime's configuration.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShadowSettings {
    /// The share of answers in a lower precision that are computed again in f32. Default: none, and no check.
    pub share: Option<f64>,
    /// The similarity below which an answer counts as different.
    pub min_similarity: Option<f64>,
    /// The share of answers that may be different.
    pub max_share_below: Option<f64>,
}
