//! Decisions on the precision in which a model serves: what may be lost, what was measured, who approved it, until when.
//!
//! A [`Policy`] is written before anything is measured: who owns and who approves, how much accuracy may be lost, the time
//! that a request may take, and what machines cost. Candidates are measured elsewhere, example by example ([`ExampleFigures`]);
//! [`PairedBootstrap`] compares them with the reference, and [`choose`] decides by the policy. What was measured and what became of
//! each candidate is a [`DecisionRecord`], which the approver signs; [`markdown`] is its page for people. A runtime asks the
//! record before it serves ([`RecordFile::allows`]).
//!
//! This crate is pure: it knows no models and no devices, and the time is an argument.
//!
//! ```
//! use sconce_decide::{AllowedSigners, Intention, RecordFile, Refusal};
//!
//! let file = RecordFile { record: b"{\"schema\": 1}".to_vec(), signature: None };
//! let intention = Intention { weights: "5f", processing: "a0", precision: "int8", device: "cpu" };
//! let refusal = file.allows(intention, &AllowedSigners::default(), jiff::Timestamp::now()).unwrap_err();
//! assert!(matches!(refusal, Refusal::Record(_)));
//! ```

mod bootstrap;
mod choice;
pub mod metrics;
mod policy;
mod record;
mod report;
mod signature;
mod validity;

pub use bootstrap::{ComparedMetric, PairedBootstrap, shuffled};
pub use choice::{choose, pareto};
pub use metrics::ExampleFigures;
pub use policy::{DropBound, MaxDrop, Metric, Policy, PolicyError};
pub use record::{
    CostOfBatch, DecidedCandidate, DecidedData, DecidedModel, DecisionRecord, Estimate, Hardware, Likeness,
    MAX_RECORD_BYTES, Measured, MeasuringBinary, RecordError, SCHEMA, ServingCandidate, ServingVerdict,
};
pub use report::{candidate_name, figure, markdown, metric_in_words, money};
pub use signature::{AllowedSigners, NAMESPACE, SignError, SignatureError, SignersError, sign};
pub use validity::{Decided, Intention, RecordFile, Refusal};

/// A digest as records have it: hexadecimal.
#[must_use]
pub fn hex(digest: [u8; 32]) -> String {
    blake3::Hash::from(digest).to_hex().to_string()
}
