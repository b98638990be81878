//! Errors of `sconce decide`.

use std::io;
use std::path::PathBuf;

use sconce::decide::{Metric, PolicyError, RecordError, ServingCandidate, SignError};
use sconce::{DeviceName, InferError, Precision};

use super::columns::ColumnRole;
use crate::inputs::TableError;

/// An error that ends `sconce decide`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecideError {
    #[error("--data {0}")]
    Table(#[from] TableError),

    #[error(transparent)]
    Data(#[from] DataError),

    #[error("--policy {}: {source}", path.display())]
    Policy { path: PathBuf, source: PolicyError },

    #[error("--verify {}: {source}", path.display())]
    Record { path: PathBuf, source: RecordError },

    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },

    #[error(
        "the policy's metric is '{metric}', which {file} does not give for {model}; it gives: {}\n  \
         set one of them as metric in the policy, or give data with other columns",
        names(known)
    )]
    NoMetric { metric: Metric, file: String, model: String, known: Vec<Metric> },

    #[error("the policy has no price for {device}\n  add it to price_per_hour, or leave the device out with --devices")]
    NoPrice { device: DeviceName },

    #[error("the policy's fallback is '{fallback}', which is no precision: {source}")]
    Fallback { fallback: String, source: sconce::UnknownPrecision },

    #[error(
        "{model} has no f32 on {device}, with which all others are compared\n  name first in --devices a device that has it"
    )]
    NoReference { model: String, device: DeviceName },

    #[error(
        "{count} candidates are more than {max}\n  give fewer --precisions, --devices, --max-batch-size or --candidate"
    )]
    TooManyCandidates { count: usize, max: usize },

    #[error("--candidate '{given}' is not NAME=DIR; give for instance pruned=/models/pruned")]
    CandidateForm { given: String },

    #[error("--candidate {name}={}: there is no such directory", directory.display())]
    NoCandidate { name: String, directory: PathBuf },

    #[error("--candidate {name} is given twice; give each directory a name of its own")]
    CandidateTwice { name: String },

    #[error("the record has a candidate '{name}' with other weights\n  name its directory: --candidate {name}=DIR")]
    CandidateNotGiven { name: String },

    #[error("--candidate {name} {differs} than {model}; candidates answer the same requests in the same way")]
    OtherTask { name: String, model: String, differs: &'static str },

    #[error(
        "--max-batch-size {wanted}: the sconce.toml of {model} sets max_batch_size = {set}\n  \
         leave the flag out, or take the setting out of the file while candidates are compared"
    )]
    BatchSizeIsSet { model: String, wanted: usize, set: usize },

    #[error("{candidate}, input {number} of the data: {source}")]
    Answer { candidate: String, number: usize, source: InferError },

    #[error(
        "{candidate} was computed on {got}: the device does not run it\n  see `sconce explain {model} --device {wanted}`"
    )]
    OtherDevice { candidate: String, model: String, wanted: DeviceName, got: DeviceName },

    #[error("{what} of the record {recorded}, of this run {found}\n  figures can be compared only on the same {what}")]
    OtherThanRecord { what: &'static str, recorded: String, found: String },

    #[error("the record measured {precision} on {device}, which {model} does not have here")]
    NotHere { model: String, precision: Precision, device: DeviceName },

    #[error("the record has a candidate in {} on {}, which this version does not know", candidate.precision, candidate.device)]
    UnknownCandidate { candidate: ServingCandidate },

    #[error("{}: expires is {expires}, which is over: a record of it would never count; write a later day", path.display())]
    Expired { path: PathBuf, expires: jiff::civil::Date },

    #[error("--sign-with {}: {source}", path.display())]
    Sign { path: PathBuf, source: SignError },
}

/// Data that cannot be compared on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("--column {role}={name}: there is no such column; there are: {}", known.join(", "))]
    NoColumn { role: ColumnRole, name: String, known: Vec<String> },

    #[error("--column {role} is given twice: {first} and {second}; give it once")]
    RoleTwice { role: ColumnRole, first: String, second: String },

    #[error(
        "{file} does not have the columns that the model is compared on: {wanted}\n  found: {}; columns of the file: {}\n  \
         name a column with --column ROLE=NAME; a file without a header needs --header NAME,NAME,…",
        or_none(found), known.join(", ")
    )]
    Unsuited { file: String, wanted: &'static str, found: Vec<String>, known: Vec<String> },

    #[error("{file}:{line}: column '{column}' holds {got}; it must hold {allowed}")]
    WrongValue { file: String, line: u64, column: String, got: String, allowed: String },

    #[error(
        "{file}: column '{column}' holds the same number everywhere, with which nothing can correlate; give other data"
    )]
    AllEqual { file: String, column: String },

    #[error(
        "{file} has no query with relevant and other passages; a ranking needs both\n  give more passages for each query"
    )]
    NothingToRank { file: String },
}

impl DecideError {
    /// Returns true if the error came up while candidates ran, rather than with what the user gave.
    pub(crate) fn went_wrong_on_the_way(&self) -> bool {
        matches!(self, Self::Answer { .. } | Self::OtherDevice { .. })
    }
}

fn names(metrics: &[Metric]) -> String {
    metrics.iter().map(|metric| metric.name()).collect::<Vec<_>>().join(", ")
}

fn or_none(found: &[String]) -> String {
    if found.is_empty() { "none".to_owned() } else { found.join(", ") }
}
