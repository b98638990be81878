//! Errors of requests, by what the sender can do about them.

use std::num::NonZeroU32;
use std::time::Duration;

use sconce::models::excerpt;
use sconce::{ErrorKind, InferError, InferManyError, Precision, RepositoryError, UnknownModel};

use crate::shared_memory::SharedMemoryError;

/// The error that answers a request. Its message repeats at most an [`excerpt`] of the request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says it")]
pub enum RequestError {
    #[error(transparent)]
    UnknownModel(#[from] UnknownModel),
    #[error(
        "model '{}' has no version '{}'; it has: {}; an empty version means the highest",
        excerpt(model),
        excerpt(version),
        join(known)
    )]
    UnknownVersion { model: String, version: String, known: Vec<u64> },
    #[error(
        "explicit model load / unload is not allowed: start the server with model control mode 'explicit' to allow it"
    )]
    FixedModels,
    #[error("a page in a browser may not do this; call from a program, without the header 'Origin'")]
    OfPage,
    #[error("{0}")]
    Repository(RepositoryError),
    #[error("this server does not take '{name}' in a call that loads models; it loads them as their directories are")]
    LoadParameter { name: String },

    #[error("input '{}' is not known; the model takes: {known}", excerpt(name))]
    UnknownInput { name: String, known: String },
    #[error("input '{name}' is missing")]
    MissingInput { name: &'static str },
    #[error("input '{name}' has {items} items, but the input before it has {first}; give both of as many")]
    UnlikeItems { name: &'static str, items: usize, first: usize },
    #[error("input '{name}' is there more than once")]
    DuplicateInput { name: &'static str },
    #[error("input '{name}' has datatype '{}', but the model takes {expected}", excerpt(got))]
    WrongDatatype { name: &'static str, got: String, expected: String },
    #[error(
        "input '{name}' has shape {}, but the model takes {expected} for {datatype}",
        excerpt(&format_args!("{got:?}"))
    )]
    WrongShape { name: &'static str, got: Vec<i64>, expected: String, datatype: &'static str },
    #[error("the request has {items} items, but at most {max} are answered together; send fewer at a time")]
    TooManyItems { items: usize, max: usize },

    #[error("the request has both raw_input_contents and contents; use one of them")]
    MixedContents,
    #[error("the request has {got} raw_input_contents for {expected} input(s); give exactly one for each")]
    WrongRawCount { expected: usize, got: usize },
    #[error("input '{name}' has {got} elements, but its shape needs {expected}")]
    WrongElementCount { name: &'static str, got: usize, expected: usize },
    #[error("input '{name}' has {got} raw bytes, but its shape and datatype need {expected}")]
    WrongRawSize { name: &'static str, got: usize, expected: usize },
    #[error(
        "input '{name}' ends within element {index}: its raw bytes must be {expected} times a 4-byte little-endian length and that many bytes"
    )]
    CutShort { name: &'static str, index: usize, expected: usize },
    #[error("input '{name}' has {extra} raw bytes behind its last element")]
    TrailingBytes { name: &'static str, extra: usize },
    #[error("input '{name}' has {field}, but datatype {datatype} uses {expected}")]
    WrongContents { name: &'static str, field: &'static str, datatype: &'static str, expected: &'static str },
    #[error(
        "input '{name}' has the value {} at element {index}, which {datatype}, as the model takes it, cannot hold exactly; \
         send {datatype}",
        excerpt(value)
    )]
    NotExact { name: &'static str, index: usize, value: String, datatype: &'static str },

    #[error(
        "input '{name}' has the value {} at element {index}, which its datatype {datatype} does not hold; send another datatype",
        excerpt(value)
    )]
    OutOfRange { name: &'static str, index: usize, value: String, datatype: &'static str },

    #[error("output '{}' is not known; the model gives: {known}", excerpt(name))]
    UnknownOutput { name: String, known: String },
    #[error("output '{}' is asked for more than once", excerpt(name))]
    DuplicateOutput { name: String },
    #[error("output '{name}' cannot be asked for as classification; only 'scores' of a classifier can")]
    NotAClassification { name: &'static str },

    #[error("parameter '{}' is not known; known are: {known}", excerpt(name))]
    UnknownParameter { name: String, known: String },
    #[error("parameter '{name}' is {}, but must be {expected}", excerpt(got))]
    WrongParameter { name: &'static str, got: String, expected: &'static str },
    #[error(
        "model '{model}' computes in {computes}, not in {asked}; leave out parameter 'precision', or have the server load the \
         model in {asked}"
    )]
    OtherPrecision { model: String, asked: Precision, computes: String },
    #[error("parameter '{}' is not served: each request stands alone, there are no sequences", excerpt(name))]
    Sequence { name: String },
    #[error(transparent)]
    SharedMemory(#[from] SharedMemoryError),
    #[error("setting '{}' cannot be changed while the server runs: {remedy}", excerpt(name))]
    FixedSetting { name: String, remedy: &'static str },
    #[error("header grpc-timeout is '{}', but must be 1 to 8 digits and a unit of H, M, S, m, u or n", excerpt(got))]
    WrongTimeout { got: String },
    #[error("the deadline passed {late:?} before the request was read")]
    TooLate { late: Duration },

    #[error("{problem}")]
    NotAdmitted { problem: &'static str },
    #[error("the client asks for more than {max} {what} a second ({limit}); send fewer, or this one again later")]
    TooFast { what: &'static str, limit: &'static str, max: NonZeroU32, retry_after: Duration },
    #[error("nothing more of the request came for {pause:?} (max_request_pause)")]
    Stalled { pause: Duration },
    #[error(
        "the server holds as many bytes of requests as it may: {max} (max_request_bytes_in_flight); send this one again later"
    )]
    TooManyBytesInFlight { max: usize },
    #[error(
        "the request takes {bytes} bytes or more when it is read, but all requests together may take {max} \
         (max_request_bytes_in_flight); send fewer items at a time"
    )]
    LargerThanAllInFlight { bytes: usize, max: usize },
    #[error(
        "the request has {bytes} bytes, but the server reads at most {max} (max_request_bytes); send fewer items at a time"
    )]
    TooLarge { bytes: u64, max: usize },
    #[error("the request is no {expected}: {}", excerpt(message))]
    Malformed { expected: &'static str, message: String },

    #[error("{source}")]
    Refused { source: InferError },
    #[error("{error}")]
    HeldBack { by: Duration, error: Box<Self> },
    #[error("item {index}: {source}")]
    Item { index: usize, source: InferError },
}

impl From<InferManyError> for RequestError {
    fn from(InferManyError { index, source }: InferManyError) -> Self {
        match index {
            Some(index) => Self::Item { index, source },
            None => Self::Refused { source },
        }
    }
}

/// Bytes of an error message at most. Headers of gRPC escape a byte with three, and its clients take 8 KiB of headers: above
/// that they report a `RESOURCE_EXHAUSTED` of their own in place of the error.
pub const MAX_ERROR_BYTES: usize = 2048;

/// Time after which a request may come back that was refused for lack of room.
const ROOM_RETRY: Duration = Duration::from_millis(100);
/// Time after which a call that loads models should be tried again: loading takes about as long.
const LOAD_RETRY: Duration = Duration::from_secs(1);

/// The kinds of [`RequestError`], by what the sender can do; each protocol has a status for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestFault {
    /// The request asks for something that does not exist or is out of bounds.
    Invalid,
    /// The list of inputs is empty.
    Empty,
    /// The message cannot be read.
    Malformed,
    /// The request has no token that is known.
    NotAdmitted,
    /// No model has the name or the version.
    NotFound,
    /// There is one of the name already.
    Exists,
    /// The protocol has it, and this server does not.
    NotServed,
    /// The message is larger than the server reads.
    TooLarge,
    /// Nothing more of the request came.
    Stalled,
    /// The answer would be too late.
    Late,
    /// There is no room now.
    Overloaded,
    /// The server is shutting down, or its devices are lost.
    Unavailable,
    /// The model or the device is at fault.
    Internal,
}

fn join(versions: &[u64]) -> String {
    versions.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

impl RequestError {
    /// The message, cut to [`MAX_ERROR_BYTES`].
    #[must_use]
    pub fn message(&self) -> String {
        excerpt(self).of_at_most(MAX_ERROR_BYTES).to_string()
    }

    /// The kind of error.
    #[must_use]
    pub fn fault(&self) -> RequestFault {
        match self {
            Self::UnknownModel(_) | Self::UnknownVersion { .. } | Self::Repository(RepositoryError::Unknown(_)) => {
                RequestFault::NotFound
            }
            Self::FixedModels | Self::OfPage | Self::Repository(RepositoryError::ShuttingDown) => {
                RequestFault::Unavailable
            }
            Self::Sequence { .. }
            | Self::FixedSetting { .. }
            | Self::SharedMemory(SharedMemoryError::NotServed { .. }) => RequestFault::NotServed,
            Self::SharedMemory(SharedMemoryError::UnknownRegion { .. }) => RequestFault::NotFound,
            Self::SharedMemory(SharedMemoryError::RegionExists { .. }) => RequestFault::Exists,
            Self::TooLate { .. } => RequestFault::Late,
            Self::Stalled { .. } => RequestFault::Stalled,
            Self::NotAdmitted { .. } => RequestFault::NotAdmitted,
            Self::TooManyBytesInFlight { .. }
            | Self::TooFast { .. }
            | Self::Repository(RepositoryError::TooManyWait { .. }) => RequestFault::Overloaded,
            Self::TooLarge { .. } | Self::LargerThanAllInFlight { .. } => RequestFault::TooLarge,
            Self::Malformed { .. } => RequestFault::Malformed,
            Self::HeldBack { error, .. } => error.fault(),
            Self::Refused { source } | Self::Item { source, .. } => match source.kind() {
                ErrorKind::InvalidInput => RequestFault::Invalid,
                ErrorKind::Overloaded => RequestFault::Overloaded,
                ErrorKind::DeadlineExceeded => RequestFault::Late,
                ErrorKind::Unavailable => RequestFault::Unavailable,
                _ => RequestFault::Internal,
            },
            _ => RequestFault::Invalid,
        }
    }

    /// Returns true if the same request may be answered at another time, or by another server.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::TooManyBytesInFlight { .. } | Self::TooFast { .. } => true,
            Self::HeldBack { error, .. } => error.is_refusal(),
            Self::Refused { source } | Self::Item { source, .. } => source.is_refusal(),
            _ => false,
        }
    }

    /// Time from now after which the client should come back, if it is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyBytesInFlight { .. } => Some(ROOM_RETRY),
            Self::Repository(RepositoryError::TooManyWait { .. }) => Some(LOAD_RETRY),
            Self::TooFast { retry_after, .. } => Some(*retry_after),
            Self::HeldBack { by, error } => Some(error.retry_after()?.saturating_sub(*by)),
            Self::Refused { source } | Self::Item { source, .. } => source.retry_after(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every error, filled with as much as a client could send.
    #[expect(clippy::too_many_lines, reason = "a list, and a match that finds what it lacks")]
    fn of_large_requests() -> Vec<RequestError> {
        use RequestError::*;
        let text = || "é".repeat(1 << 16);
        let (name, max, got, expected) = ("text", usize::MAX, usize::MAX, usize::MAX);
        let failed = || InferError::Panicked { message: text() };
        let errors = vec![
            UnknownModel(sconce::UnknownModel { name: text(), known: vec!["minilm".into()] }),
            UnknownVersion { model: text(), version: text(), known: vec![1] },
            FixedModels,
            OfPage,
            Repository(RepositoryError::ShuttingDown),
            LoadParameter { name: text() },
            UnknownInput { name: text(), known: name.into() },
            UnlikeItems { name, items: got, first: expected },
            MissingInput { name },
            DuplicateInput { name },
            WrongDatatype { name, got: text(), expected: "BYTES".into() },
            WrongShape { name, got: vec![i64::MIN; 1 << 16], expected: "[items]".into(), datatype: "BYTES" },
            TooManyItems { items: got, max },
            MixedContents,
            WrongRawCount { expected, got },
            WrongElementCount { name, got, expected },
            WrongRawSize { name, got, expected },
            CutShort { name, index: got, expected },
            TrailingBytes { name, extra: got },
            WrongContents { name, field: "fp32_contents", datatype: "BYTES", expected: "bytes_contents" },
            NotExact { name, index: got, value: text(), datatype: "UINT8" },
            OutOfRange { name, index: got, value: text(), datatype: "UINT8" },
            UnknownOutput { name: text(), known: "scores, label".into() },
            DuplicateOutput { name: text() },
            NotAClassification { name },
            UnknownParameter { name: text(), known: "timeout, truncate".into() },
            WrongParameter { name: "timeout", got: text(), expected: "a bool" },
            OtherPrecision { model: "minilm".into(), asked: Precision::Int8, computes: "f32".into() },
            Sequence { name: text() },
            SharedMemory(SharedMemoryError::BeyondRegion {
                tensor: text(),
                name: text(),
                offset: 1,
                bytes: 1,
                region: 1,
            }),
            FixedSetting { name: text(), remedy: "set it before" },
            SharedMemory(SharedMemoryError::Incomplete { tensor: text(), parameter: text(), missing: "region" }),
            WrongTimeout { got: text() },
            TooLate { late: Duration::MAX },
            NotAdmitted { problem: "the token is not known" },
            TooFast {
                what: "requests",
                limit: "max_requests_per_second",
                max: NonZeroU32::MAX,
                retry_after: Duration::MAX,
            },
            Stalled { pause: Duration::MAX },
            TooManyBytesInFlight { max },
            LargerThanAllInFlight { bytes: got, max },
            TooLarge { bytes: u64::MAX, max },
            Malformed { expected: "ModelInferRequest", message: text() },
            Refused { source: failed() },
            HeldBack { by: Duration::MAX, error: Box::new(Refused { source: failed() }) },
            Item { index: got, source: failed() },
        ];
        for error in &errors {
            // This match does not compile without a new error, which must be added to the list above, too.
            match error {
                UnknownModel(..)
                | UnknownVersion { .. }
                | FixedModels
                | OfPage
                | Repository(_)
                | LoadParameter { .. }
                | UnknownInput { .. }
                | MissingInput { .. }
                | UnlikeItems { .. }
                | DuplicateInput { .. }
                | WrongDatatype { .. }
                | WrongShape { .. }
                | TooManyItems { .. }
                | MixedContents
                | WrongRawCount { .. }
                | WrongElementCount { .. }
                | WrongRawSize { .. }
                | CutShort { .. }
                | TrailingBytes { .. }
                | WrongContents { .. }
                | NotExact { .. }
                | OutOfRange { .. }
                | UnknownOutput { .. }
                | DuplicateOutput { .. }
                | NotAClassification { .. }
                | UnknownParameter { .. }
                | WrongParameter { .. }
                | OtherPrecision { .. }
                | Sequence { .. }
                | FixedSetting { .. }
                | SharedMemory(..)
                | WrongTimeout { .. }
                | TooLate { .. }
                | NotAdmitted { .. }
                | TooFast { .. }
                | Stalled { .. }
                | TooManyBytesInFlight { .. }
                | LargerThanAllInFlight { .. }
                | TooLarge { .. }
                | Malformed { .. }
                | Refused { .. }
                | HeldBack { .. }
                | Item { .. } => {}
            }
        }
        errors
    }

    #[test]
    fn no_message_is_longer_than_a_client_reads_whatever_was_sent() {
        for error in of_large_requests() {
            // Of a gRPC status, whose bytes that are not ASCII are escaped with three each.
            let message = error.message();
            let escaped: usize = message.bytes().map(|byte| if byte.is_ascii() { 1 } else { 3 }).sum();
            assert!(escaped < 7 * 1024, "{escaped} bytes: {}", excerpt(&message));
        }
    }
}
