//! Errors of requests, by what the sender can do about them.

use std::borrow::Cow;
use std::time::Duration;

use sconce::UnknownModel;
use sconce_server::{RequestError, RequestFault};

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
    pub(crate) field: Option<Cow<'static, str>>,
    /// The time after which the same request may be answered.
    pub(crate) retry_after: Option<Duration>,
}

impl HttpError {
    pub(crate) fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), field: None, retry_after: None }
    }

    pub(crate) fn empty(field: &'static str) -> Self {
        let message = format!("field '{field}' is an empty list; give at least one");
        Self { field: Some(field.into()), ..Self::new(Fault::Empty, message) }
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(Fault::Invalid, message) }
    }

    /// The refusal of a list that is longer than the server answers at a time.
    pub(crate) fn too_many(field: &'static str, items: usize, max: usize) -> Self {
        let message =
            format!("field '{field}' has {items} items, but at most {max} are answered at a time; send fewer");
        Self { field: Some(field.into()), ..Self::new(Fault::TooLarge, message) }
    }
}

impl From<RequestError> for HttpError {
    fn from(error: RequestError) -> Self {
        let fault = match error.fault() {
            RequestFault::Invalid | RequestFault::NotServed => Fault::Invalid,
            RequestFault::Malformed => Fault::Malformed,
            RequestFault::NotFound => Fault::UnknownModel,
            RequestFault::TooLarge => Fault::TooLarge,
            RequestFault::Stalled | RequestFault::Late => Fault::Late,
            RequestFault::Overloaded => Fault::Overloaded,
            RequestFault::Unavailable => Fault::Unavailable,
            _ => Fault::Internal,
        };
        Self { retry_after: error.retry_after(), ..Self::new(fault, error.message()) }
    }
}

impl From<UnknownModel> for HttpError {
    fn from(error: UnknownModel) -> Self {
        Self { field: Some("model".into()), ..Self::new(Fault::UnknownModel, error.to_string()) }
    }
}
