//! Errors of requests, by what the sender can do about them.

use std::time::Duration;

use sconce::models::excerpt;
use sconce::{InferError, InferManyError, UnknownModel};

/// The error that answers a request. Its message repeats at most an [`excerpt`] of the request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    UnknownModel(#[from] UnknownModel),
    #[error(
        "model '{}' has no version '{}'; it has version '{}', and an empty one means the same",
        excerpt(model),
        excerpt(version),
        crate::metadata::VERSION
    )]
    UnknownVersion { model: String, version: String },

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
    #[error(
        "the request has {items} items, but the model's queue holds at most {max} (max_queue_size); send fewer at a time"
    )]
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
    #[error("input '{name}' has the value {value} at element {index}, but UINT8 ends at 255")]
    NotAByte { name: &'static str, index: usize, value: u32 },

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
    #[error("parameter '{}' is not served: each request stands alone, there are no sequences", excerpt(name))]
    Sequence { name: String },
    #[error(
        "tensor '{}' is in shared memory ('{}'), which is not served; send its contents",
        excerpt(tensor),
        excerpt(name)
    )]
    SharedMemory { tensor: String, name: String },
    #[error("header grpc-timeout is '{}', but must be 1 to 8 digits and a unit of H, M, S, m, u or n", excerpt(got))]
    WrongTimeout { got: String },
    #[error("the deadline passed {late:?} before the request was read")]
    TooLate { late: Duration },

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
    #[error("the request is no ModelInferRequest: {}", excerpt(message))]
    Malformed { message: String },

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

/// Time after which a request may come back that was refused for lack of room.
const ROOM_RETRY: Duration = Duration::from_millis(100);

impl RequestError {
    /// Returns true if the same request may be answered at another time, or by another server.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::TooManyBytesInFlight { .. } => true,
            Self::HeldBack { error, .. } => error.is_refusal(),
            Self::Refused { source } | Self::Item { source, .. } => source.is_refusal(),
            _ => false,
        }
    }

    /// Time from now after which the client should come back, if it is known.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyBytesInFlight { .. } => Some(ROOM_RETRY),
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
    fn of_large_requests() -> Vec<RequestError> {
        use RequestError::*;
        let text = || "é".repeat(1 << 16);
        let (name, max, got, expected) = ("text", usize::MAX, usize::MAX, usize::MAX);
        let failed = || InferError::Panicked { message: text() };
        let errors = vec![
            UnknownModel(sconce::UnknownModel { name: text(), known: vec!["minilm".into()] }),
            UnknownVersion { model: text(), version: text() },
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
            NotAByte { name, index: got, value: u32::MAX },
            UnknownOutput { name: text(), known: "scores, label".into() },
            DuplicateOutput { name: text() },
            NotAClassification { name },
            UnknownParameter { name: text(), known: "timeout, truncate".into() },
            WrongParameter { name: "timeout", got: text(), expected: "a bool" },
            Sequence { name: text() },
            SharedMemory { tensor: text(), name: text() },
            WrongTimeout { got: text() },
            TooLate { late: Duration::MAX },
            Stalled { pause: Duration::MAX },
            TooManyBytesInFlight { max },
            LargerThanAllInFlight { bytes: got, max },
            Malformed { message: text() },
            Refused { source: failed() },
            HeldBack { by: Duration::MAX, error: Box::new(Refused { source: failed() }) },
            Item { index: got, source: failed() },
        ];
        for error in &errors {
            // This match does not compile without a new error, which must be added to the list above, too.
            match error {
                UnknownModel(..)
                | UnknownVersion { .. }
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
                | NotAByte { .. }
                | UnknownOutput { .. }
                | DuplicateOutput { .. }
                | NotAClassification { .. }
                | UnknownParameter { .. }
                | WrongParameter { .. }
                | Sequence { .. }
                | SharedMemory { .. }
                | WrongTimeout { .. }
                | TooLate { .. }
                | Stalled { .. }
                | TooManyBytesInFlight { .. }
                | LargerThanAllInFlight { .. }
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
            let status = tonic::Status::from(error);
            // Headers escape each byte that is not ASCII with three.
            let escaped: usize = status.message().bytes().map(|byte| if byte.is_ascii() { 1 } else { 3 }).sum();
            assert!(escaped < 7 * 1024, "{escaped} bytes: {}", excerpt(status.message()));
        }
    }
}
