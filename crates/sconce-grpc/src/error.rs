//! What can be wrong with a request, by what its sender can do about it.

use std::time::Duration;

use sconce::{InferError, UnknownModel};

/// A request that gets an error in place of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    UnknownModel(#[from] UnknownModel),
    #[error(
        "model '{model}' has no version '{version}'; it has version '{}', and an empty one means the same",
        crate::metadata::VERSION
    )]
    UnknownVersion { model: String, version: String },

    #[error("input '{name}' is not known; the model takes: {known}")]
    UnknownInput { name: String, known: &'static str },
    #[error("input '{name}' is missing")]
    MissingInput { name: &'static str },
    #[error("input '{name}' is there more than once")]
    DuplicateInput { name: &'static str },
    #[error("input '{name}' has datatype '{got}', but the model takes {expected}")]
    WrongDatatype { name: &'static str, got: String, expected: &'static str },
    #[error("input '{name}' has shape {got:?}, but the model takes {expected} for {datatype}")]
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

    #[error("output '{name}' is not known; the model gives: {known}")]
    UnknownOutput { name: String, known: String },
    #[error("output '{name}' is asked for more than once")]
    DuplicateOutput { name: String },
    #[error("output '{name}' cannot be asked for as classification; only 'scores' of a classifier can")]
    NotAClassification { name: &'static str },

    #[error("parameter '{name}' is {got}, but must be {expected}")]
    WrongParameter { name: &'static str, got: String, expected: &'static str },
    #[error("parameter '{name}' is not served: each request stands alone, there are no sequences")]
    Sequence { name: String },
    #[error("tensor '{tensor}' is in shared memory ('{name}'), which is not served; send its contents")]
    SharedMemory { tensor: String, name: String },
    #[error("header grpc-timeout is '{got}', but must be 1 to 8 digits and a unit of H, M, S, m, u or n")]
    WrongTimeout { got: String },
    #[error("the deadline passed {late:?} before the request was read")]
    TooLate { late: Duration },

    #[error("item {index}: {source}")]
    Item { index: usize, source: InferError },
}
