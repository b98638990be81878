//! The decision record: what was measured, of which files, and which candidate may serve, until when, on whose word.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::policy::kind_of;
use crate::{Metric, Policy};

/// The newest form of records that this crate reads and writes.
pub const SCHEMA: u32 = 1;
/// Most bytes of a record.
pub const MAX_RECORD_BYTES: usize = 4 << 20;

/// A decision on the precision in which a model may serve, with what it rests on.
///
/// Written as JSON. Its signature is beside it, over the file's bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRecord {
    /// The form of the record.
    pub schema: u32,
    /// When the measuring ended.
    pub made_at: Timestamp,
    /// The model and its files.
    pub model: DecidedModel,
    /// The labelled data.
    pub data: DecidedData,
    /// The program that measured.
    pub binary: MeasuringBinary,
    /// The machine that it ran on.
    pub hardware: Hardware,
    /// The policy, whole.
    pub policy: Policy,
    /// The seed of the bootstrap and of the order of rounds.
    pub seed: u64,
    /// Every candidate that was measured, the reference first.
    pub candidates: Vec<DecidedCandidate>,
}

/// The model that a record decides on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecidedModel {
    /// The name when it was measured. Only the digests count.
    pub name: String,
    /// The number of weights.
    pub parameters: u64,
    /// BLAKE3 of the files of weights, in hexadecimal.
    pub weights: String,
    /// BLAKE3 of the tokenizer, the configuration, and the settings that change answers, in hexadecimal.
    pub processing: String,
}

/// The data that candidates were compared on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecidedData {
    /// The file's name.
    pub file: String,
    /// BLAKE3 of the file, in hexadecimal.
    pub digest: String,
    /// Examples that were compared.
    pub examples: u64,
}

/// The program that measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuringBinary {
    /// Its version.
    pub version: String,
    /// BLAKE3 of its file, in hexadecimal.
    pub digest: String,
}

/// The machine that candidates ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// The processor's name.
    pub processor: String,
    /// Threads that computed a batch.
    pub cpu_threads: u64,
    /// Instruction sets that kernels use, such as `avx2`.
    pub instructions: Vec<String>,
    /// Names of the other devices, such as that of a GPU.
    pub devices: Vec<String>,
}

/// One way to serve the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServingCandidate {
    /// The name of another directory of weights that was measured beside the model; absent: the model itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The precision.
    pub precision: String,
    /// The device, such as `cpu` or `cuda:0`.
    pub device: String,
    /// Items of a batch at most.
    pub max_batch_size: u64,
    /// Weight of a batch at most: tokens, or items.
    pub max_batch_weight: u64,
}

/// A candidate with its figures and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecidedCandidate {
    /// The candidate.
    pub candidate: ServingCandidate,
    /// Its figures.
    pub measured: Measured,
    /// Its fate.
    pub verdict: ServingVerdict,
    /// Why, in words with figures.
    pub reason: String,
}

/// The figures of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The policy's metric.
    pub accuracy: Estimate,
    /// How much lower it is than the reference's on the same examples; negative: higher.
    pub drop: Estimate,
    /// Further metrics on the same data.
    #[serde(default)]
    pub also: Vec<(Metric, Estimate)>,
    /// Likeness of the answers to the reference's.
    pub likeness: Likeness,
    /// Milliseconds of a request that is alone, median.
    pub latency_p50_ms: Estimate,
    /// Milliseconds of a request that is alone, 99th percentile.
    pub latency_p99_ms: Estimate,
    /// Items a second where as many wait as fit into batches.
    pub throughput: Estimate,
    /// Bytes of weights, and of the largest batch.
    pub memory_bytes: u64,
    /// The price of a million items at that throughput.
    pub cost_per_million: f64,
    /// The learned cost of a batch.
    pub cost: CostOfBatch,
}

/// A figure with its confidence interval; of times and rates the interval in which another round would fall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Likeness of answers to those of the reference: 1 if they are the same.
///
/// For embeddings the cosine, for labels 1 or 0 for the same top label, for scores 1 less the difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Likeness {
    /// The mean over the examples.
    pub mean: f64,
    /// The value that a hundredth of the examples are below.
    pub p01: f64,
    /// The least.
    pub least: f64,
}

/// Seconds of a batch: `fixed + per_weight × weight`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostOfBatch {
    /// Seconds of any batch.
    pub fixed: f64,
    /// Further seconds for each unit of weight.
    pub per_weight: f64,
    /// The weight of a usual batch, at which the line is compared later.
    pub usual_weight: f64,
}

/// The fate of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServingVerdict {
    /// The one that should serve.
    Chosen,
    /// One that may serve, but another is better.
    Allowed,
    /// One that may not serve: it loses too much accuracy, or too much may be lost as far as the data shows.
    Refused,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// More bytes than a record has.
    #[error("{bytes} bytes: records have at most {MAX_RECORD_BYTES}")]
    TooLarge {
        /// Bytes of the file.
        bytes: usize,
    },
    /// JSON that is none, or a field that is missing or of another type.
    #[error("not a decision record: {0}")]
    Unreadable(String),
    /// A form that this version does not know.
    #[error(
        "the record has schema {schema}, and this version reads {SCHEMA}: make it again with this version, or update"
    )]
    UnknownSchema {
        /// The record's schema.
        schema: u32,
    },
}

impl DecisionRecord {
    /// Reads a record, whatever its signature.
    ///
    /// # Errors
    /// [`RecordError`] if the bytes are no record that this version knows.
    pub fn from_json(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Schema {
            schema: u32,
        }
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(RecordError::TooLarge { bytes: bytes.len() });
        }
        let unreadable = |error: &dyn std::fmt::Display| RecordError::Unreadable(error.to_string());
        let Schema { schema } = serde_json::from_slice(bytes).map_err(|error| unreadable(&error))?;
        if schema != SCHEMA {
            return Err(RecordError::UnknownSchema { schema });
        }
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let record: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| unreadable(&error))?;
        record.policy.check().map_err(|error| unreadable(&error))?;
        record.check_candidates().map_err(|error| unreadable(&error))?;
        Ok(record)
    }

    /// Most items of a candidate's batch.
    pub const MAX_BATCH_SIZE: usize = 65_536;
    /// Most candidates of a record.
    pub const MAX_CANDIDATES: usize = 256;

    fn check_candidates(&self) -> Result<(), String> {
        let Some(first) = self.candidates.first() else { return Err("candidates: there is none".to_owned()) };
        if self.candidates.len() > Self::MAX_CANDIDATES {
            return Err(format!("candidates: there are more than {}", Self::MAX_CANDIDATES));
        }
        if first.candidate.variant.is_some() || first.candidate.precision != "f32" {
            return Err("candidates: the first is not the reference, the model in f32".to_owned());
        }
        let max = Self::MAX_BATCH_SIZE as u64;
        let size = |decided: &&DecidedCandidate| !(1..=max).contains(&decided.candidate.max_batch_size);
        match self.candidates.iter().find(size) {
            Some(it) => Err(format!("max_batch_size is {}: it is from 1 to {max}", it.candidate.max_batch_size)),
            None => Ok(()),
        }
    }

    /// The record's bytes: what is signed.
    ///
    /// # Panics
    /// Never: every field has a form in JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a record has no maps without string keys");
        json.push(b'\n');
        json
    }

    /// The candidate that should serve.
    #[must_use]
    pub fn chosen(&self) -> Option<&DecidedCandidate> {
        self.candidates.iter().find(|candidate| candidate.verdict == ServingVerdict::Chosen)
    }

    /// The best verdict on the model itself in this precision on that kind of device: `cuda:1` has that of `cuda:0`. Batch
    /// limits change no answer.
    #[must_use]
    pub fn of(&self, precision: &str, device: &str) -> Option<&DecidedCandidate> {
        let same = |decided: &&DecidedCandidate| {
            let candidate = &decided.candidate;
            candidate.variant.is_none()
                && candidate.precision == precision
                && kind_of(&candidate.device) == kind_of(device)
        };
        self.candidates.iter().filter(same).min_by_key(|decided| decided.verdict as u8)
    }

    /// The last second at which the record counts.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let next_day = self.policy.expires.tomorrow().and_then(|day| day.to_zoned(TimeZone::UTC)).ok()?;
        next_day.timestamp().checked_sub(jiff::SignedDuration::from_secs(1)).ok()
    }

    /// The digits by which answers and metrics name a record: the first 12 of the BLAKE3 digest of its bytes.
    #[must_use]
    pub fn id(bytes: &[u8]) -> String {
        blake3::hash(bytes).to_hex()[..12].to_owned()
    }
}

impl Estimate {
    /// A figure that is known exactly.
    #[must_use]
    pub fn exact(value: f64) -> Self {
        Self { value, low: value, high: value }
    }

    /// True if the value is between the ends.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

impl CostOfBatch {
    /// Seconds of a batch of this weight.
    #[must_use]
    pub fn seconds(&self, weight: f64) -> f64 {
        self.fixed + self.per_weight * weight
    }
}
