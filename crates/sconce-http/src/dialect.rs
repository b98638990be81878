//! The form in which each API answers with an error.

use std::marker::PhantomData;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::error::{Fault, HttpError};

/// An API's statuses and bodies of errors.
pub(crate) trait Dialect: Send + Sync + 'static {
    /// The status of a fault.
    fn status(fault: Fault) -> StatusCode {
        match fault {
            Fault::Malformed | Fault::Empty | Fault::Invalid => StatusCode::BAD_REQUEST,
            Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Fault::UnknownModel => StatusCode::NOT_FOUND,
            Fault::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Fault::Late => StatusCode::GATEWAY_TIMEOUT,
            Fault::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body of an error.
    fn body(error: &HttpError, status: StatusCode) -> Value;
}

/// Errors as OpenAI's API has them.
pub(crate) enum OpenAi {}

impl Dialect for OpenAi {
    fn body(error: &HttpError, _: StatusCode) -> Value {
        let (kind, code) = match error.fault {
            Fault::UnknownModel => ("invalid_request_error", Some("model_not_found")),
            Fault::Malformed | Fault::TooLarge | Fault::Empty | Fault::Invalid => ("invalid_request_error", None),
            Fault::Overloaded => ("rate_limit_error", Some("rate_limit_exceeded")),
            Fault::Late | Fault::Unavailable | Fault::Internal => ("server_error", None),
        };
        json!({"error": {"message": error.message, "type": kind, "param": error.field, "code": code}})
    }
}

/// Errors of text-embeddings-inference.
pub(crate) enum Tei {}

impl Dialect for Tei {
    fn status(fault: Fault) -> StatusCode {
        match fault {
            Fault::Empty => StatusCode::BAD_REQUEST,
            Fault::Malformed | Fault::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Fault::UnknownModel => StatusCode::NOT_FOUND,
            Fault::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Fault::Late | Fault::Internal => StatusCode::FAILED_DEPENDENCY,
            Fault::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn body(error: &HttpError, _: StatusCode) -> Value {
        let kind = match error.fault {
            Fault::Malformed | Fault::TooLarge | Fault::Invalid | Fault::UnknownModel => "Validation",
            Fault::Empty => "Empty",
            Fault::Overloaded => "Overloaded",
            Fault::Late | Fault::Internal => "Backend",
            Fault::Unavailable => "Unhealthy",
        };
        json!({"error": error.message, "error_type": kind})
    }
}

/// Errors of Cohere's API (`message`) and of Jina's (`detail`).
pub(crate) enum Cohere {}

impl Dialect for Cohere {
    fn body(error: &HttpError, _: StatusCode) -> Value {
        json!({"message": error.message, "detail": error.message})
    }
}

/// An error in the form of a dialect.
pub(crate) struct ErrorResponse<D>(HttpError, PhantomData<D>);

impl<D, E: Into<HttpError>> From<E> for ErrorResponse<D> {
    fn from(error: E) -> Self {
        Self(error.into(), PhantomData)
    }
}

impl<D: Dialect> IntoResponse for ErrorResponse<D> {
    fn into_response(self) -> Response {
        let Self(error, _) = self;
        let status = D::status(error.fault);
        let mut response = (status, axum::Json(D::body(&error, status))).into_response();
        let unknown = (error.fault == Fault::Overloaded).then_some(UNKNOWN_RETRY);
        if let Some(after) = error.retry_after.or(unknown) {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
            headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(milliseconds(after)));
        }
        response
    }
}

/// The time after which a refused client should come back, while no batch has been measured yet.
const UNKNOWN_RETRY: Duration = Duration::from_secs(1);

/// Whole seconds, rounded up: `Retry-After` has no fractions, and 0 would call for another try at once.
pub(crate) fn whole_seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0 || after.is_zero())
}

pub(crate) fn milliseconds(after: Duration) -> u64 {
    u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1)
}
