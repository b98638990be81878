//! Errors of requests, by what the sender can do about them.

use std::borrow::Cow;
use std::time::Duration;

use sconce::UnknownModel;
use sconce::models::excerpt;
use sconce_server::{MAX_ERROR_BYTES, RequestError, RequestFault};

/// The error that answers a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpError {
    pub(crate) fault: RequestFault,
    pub(crate) message: String,
    /// The field at fault, if it is one.
    pub(crate) field: Option<Cow<'static, str>>,
    /// The time after which the same request may be answered.
    pub(crate) retry_after: Option<Duration>,
}

impl HttpError {
    pub(crate) fn new(fault: RequestFault, message: impl Into<String>) -> Self {
        // An error repeats at most an excerpt of the request.
        let message = excerpt(&message.into()).of_at_most(MAX_ERROR_BYTES).to_string();
        Self { fault, message, field: None, retry_after: None }
    }

    pub(crate) fn empty(field: &'static str) -> Self {
        let message = format!("field '{field}' is an empty list; give at least one");
        Self { field: Some(field.into()), ..Self::new(RequestFault::Empty, message) }
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(RequestFault::Invalid, message) }
    }

    /// The refusal of a list that is longer than the server answers at a time.
    pub(crate) fn too_many(field: &'static str, items: usize, max: usize) -> Self {
        let message =
            format!("field '{field}' has {items} items, but at most {max} are answered at a time; send fewer");
        Self { field: Some(field.into()), ..Self::new(RequestFault::TooLarge, message) }
    }
}

impl From<RequestError> for HttpError {
    fn from(error: RequestError) -> Self {
        Self { retry_after: error.retry_after(), ..Self::new(error.fault(), error.message()) }
    }
}

impl From<UnknownModel> for HttpError {
    fn from(error: UnknownModel) -> Self {
        Self { field: Some("model".into()), ..Self::new(RequestFault::NotFound, error.to_string()) }
    }
}
