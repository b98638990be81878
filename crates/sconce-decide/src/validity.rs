//! The question asked at every load: does this record allow this model to serve in this precision, here and now?

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::{AllowedSigners, DecidedCandidate, DecisionRecord, RecordError, ServingVerdict, SignatureError};

/// A record as it lies in a directory: its bytes, and those of its signature if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFile {
    /// The record.
    pub record: Vec<u8>,
    /// The signature.
    pub signature: Option<String>,
}

/// The intention of a model that is about to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intention<'a> {
    /// Digest of the files of weights, as in the record.
    pub weights: &'a str,
    /// Digest of everything else that answers depend on.
    pub processing: &'a str,
    /// The precision.
    pub precision: &'a str,
    /// The device.
    pub device: &'a str,
}

/// Why a record does not allow what a model is about to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no record.
    #[error("there is no decision on it")]
    NoRecord,
    /// The record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The record's file, or that of its signature, cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The record has no signature.
    #[error("its decision is not signed")]
    Unsigned,
    /// The signature does not count.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The record's time is over.
    #[error("its decision expired after {0}")]
    Expired(jiff::civil::Date),
    /// The decision was made on other weights.
    #[error("its decision was made on other weights: those of the model have changed since")]
    OtherWeights,
    /// The decision was made with another tokenizer, configuration or settings.
    #[error("its decision was made with another tokenizer, configuration or settings of the model")]
    OtherProcessing,
    /// The precision was not measured on such a device.
    #[error("its decision does not say anything of {precision} on {device}: measured were {measured}")]
    NotMeasured {
        /// The precision.
        precision: String,
        /// The device.
        device: String,
        /// The candidates that were measured.
        measured: String,
    },
    /// The decision refuses it.
    #[error("its decision refuses {precision} on {device}: {reason}")]
    Refused {
        /// The precision.
        precision: String,
        /// The device.
        device: String,
        /// The record's reason.
        reason: String,
    },
}

/// A decision by which a model may serve in a lower precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// The digits that name the record in answers and metrics.
    pub id: String,
    /// The record.
    pub record: DecisionRecord,
    /// The candidate that is served.
    pub candidate: DecidedCandidate,
}

impl RecordFile {
    /// Says whether the record allows it. The signature is checked before anything that the record says is believed, and the
    /// last day counts to its end in UTC.
    ///
    /// # Errors
    /// [`Refusal`] with the first reason against it.
    pub fn allows(
        &self,
        intention: Intention<'_>,
        signers: &AllowedSigners,
        now: Timestamp,
    ) -> Result<Decided, Refusal> {
        let Intention { weights, processing, precision, device } = intention;
        let record = DecisionRecord::from_json(&self.record)?;
        let signature = self.signature.as_deref().ok_or(Refusal::Unsigned)?;
        signers.check(&self.record, signature, &record.policy.approver, now)?;
        if now.to_zoned(TimeZone::UTC).date() > record.policy.expires {
            return Err(Refusal::Expired(record.policy.expires));
        }
        if record.model.weights != weights {
            return Err(Refusal::OtherWeights);
        }
        if record.model.processing != processing {
            return Err(Refusal::OtherProcessing);
        }
        let named = || (precision.to_owned(), device.to_owned());
        let Some(candidate) = record.of(precision, device).cloned() else {
            let measured = record.candidates.iter().map(|decided| &decided.candidate);
            let mut measured: Vec<_> = measured.map(|one| format!("{} on {}", one.precision, one.device)).collect();
            measured.dedup();
            let (precision, device) = named();
            return Err(Refusal::NotMeasured { precision, device, measured: measured.join(", ") });
        };
        if candidate.verdict == ServingVerdict::Refused {
            let (precision, device) = named();
            return Err(Refusal::Refused { precision, device, reason: candidate.reason });
        }
        Ok(Decided { id: DecisionRecord::id(&self.record), record, candidate })
    }
}
