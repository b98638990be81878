//! `sconce.toml`: what an operator sets for one model. Every field is optional.

use serde::Deserialize;

use crate::Precision;

/// The fields of `[model]` that a family may leave without meaning.
pub(crate) const MODEL_FIELDS: [&str; 4] = ["pooling", "normalize", "max_tokens", "cuda_graphs"];

/// The content of `sconce.toml`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How inputs are prepared, computed and finished.
    pub model: ModelSettings,
    /// How batches are formed.
    pub batching: BatchingSettings,
    /// What of its answers is cached.
    pub cache: CacheSettings,
}

impl Settings {
    /// Refuses zeros, and those of [`MODEL_FIELDS`] that are set but not `used`.
    pub(crate) fn check(&self, used: &[&str]) -> Result<(), String> {
        let Self { model, batching, .. } = self;
        let set = [
            model.pooling.is_some(),
            model.normalize.is_some(),
            model.max_tokens.is_some(),
            model.cuda_graphs.is_some(),
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

/// How inputs are prepared, computed and finished.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// What the network is computed in, unless whoever loads it asks for another; unset: f32.
    pub precision: Option<Precision>,
    /// How token vectors become one; unset: what the model directory says, else the mean.
    pub pooling: Option<Pooling>,
    /// Whether embeddings are scaled to length 1; unset: what the model directory says, else yes.
    pub normalize: Option<bool>,
    /// Tokens per text, special tokens included; unset: what the model directory says.
    pub max_tokens: Option<usize>,
    /// On CUDA devices: whether what a batch asks of the device is recorded by size and queued by one call. Batches are then
    /// padded to the next size, by up to half; less time where they are small, more where they are large. Unset: no.
    pub cuda_graphs: Option<bool>,
}

/// How token vectors become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// The first token's vector.
    Cls,
}

/// How batches are formed; the meaning and bounds of each field are those of the batcher's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchingSettings {
    /// Items per batch.
    pub max_batch_size: Option<usize>,
    /// Weight (tokens) per batch.
    pub max_batch_weight: Option<usize>,
    /// Items that wait.
    pub max_queue_size: Option<usize>,
    /// Weight (tokens) that waits.
    pub max_queue_weight: Option<usize>,
    /// Microseconds that a batch may wait for more items.
    pub max_queue_delay_us: Option<u64>,
    /// Milliseconds by which an item counts as younger for each step of priority below the highest.
    pub priority_ageing_ms: Option<u64>,
}

/// What of a model's answers a cache keeps and gives, where the runtime has one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSettings {
    /// Whether its answers are cached; unset: yes.
    pub answers: Option<bool>,
    /// Whether an answer that a higher precision made may be given; unset: what the runtime says, else no.
    pub higher_precisions: Option<bool>,
}
