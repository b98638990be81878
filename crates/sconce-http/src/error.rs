//! Errors of requests, by what the sender can do about them.

use std::time::Duration;

use sconce::{ErrorKind, InferError, InferManyError, UnknownModel};

/// The kind of a [`HttpError`]. Each dialect has a status for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The body is not JSON, or not of the request's form.
    Malformed,
    /// The body is larger than the server reads.
    TooLarge,
    /// The list of inputs is empty.
    Empty,
    /// The request asks for something that the model does not do.
    Invalid,
    /// No model has the name.
    UnknownModel,
    /// The queue has no room now.
    Overloaded,
    /// The answer would be too late.
    Late,
    /// The server is shutting down, or its devices are lost.
    Unavailable,
    /// The model or the device is at fault.
    Internal,
}

/// The error that answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpError {
    pub(crate) fault: Fault,
    pub(crate) message: String,
    /// The field at fault, if it is one.
    pub(crate) field: Option<&'static str>,
    /// The time after which the same request may be answered.
    pub(crate) retry_after: Option<Duration>,
}

impl HttpError {
    pub(crate) fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), field: None, retry_after: None }
    }

    pub(crate) fn empty(field: &'static str) -> Self {
        let message = format!("field '{field}' is an empty list; give at least one");
        Self { field: Some(field), ..Self::new(Fault::Empty, message) }
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::new(Fault::Invalid, message) }
    }

    fn of(error: &InferError, message: String) -> Self {
        let fault = match error.kind() {
            ErrorKind::InvalidInput => Fault::Invalid,
            ErrorKind::Overloaded => Fault::Overloaded,
            ErrorKind::DeadlineExceeded => Fault::Late,
            ErrorKind::Unavailable => Fault::Unavailable,
            _ => Fault::Internal,
        };
        Self { retry_after: error.retry_after(), ..Self::new(fault, message) }
    }
}

impl From<InferError> for HttpError {
    fn from(error: InferError) -> Self {
        Self::of(&error, error.to_string())
    }
}

impl From<InferManyError> for HttpError {
    fn from(error: InferManyError) -> Self {
        Self::of(&error.source, error.to_string())
    }
}

impl From<UnknownModel> for HttpError {
    fn from(error: UnknownModel) -> Self {
        Self { field: Some("model"), ..Self::new(Fault::UnknownModel, error.to_string()) }
    }
}
