//! The form in which each API answers with an error.

use std::marker::PhantomData;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sconce_server::RequestFault;
use serde_json::{Value, json};

use crate::error::HttpError;

/// An API's statuses and bodies of errors.
pub(crate) trait Dialect: Send + Sync + 'static {
    /// The status of a fault.
    fn status(fault: RequestFault) -> StatusCode {
        match fault {
            RequestFault::Malformed | RequestFault::Empty | RequestFault::Invalid | RequestFault::NotServed => {
                StatusCode::BAD_REQUEST
            }
            RequestFault::NotAdmitted => StatusCode::UNAUTHORIZED,
            RequestFault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            RequestFault::NotFound => StatusCode::NOT_FOUND,
            RequestFault::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            RequestFault::Stalled => StatusCode::REQUEST_TIMEOUT,
            RequestFault::Late => StatusCode::GATEWAY_TIMEOUT,
            RequestFault::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The body of an error.
    fn body(error: &HttpError) -> Value;
}

/// Errors as OpenAI's API has them.
pub(crate) enum OpenAi {}

impl Dialect for OpenAi {
    fn body(error: &HttpError) -> Value {
        let (kind, code) = match error.fault {
            RequestFault::NotFound => ("invalid_request_error", Some("model_not_found")),
            RequestFault::NotAdmitted => ("invalid_request_error", Some("invalid_api_key")),
            RequestFault::Overloaded => ("rate_limit_error", Some("rate_limit_exceeded")),
            fault if Self::status(fault).is_server_error() => ("server_error", None),
            _ => ("invalid_request_error", None),
        };
        json!({"error": {"message": error.message, "type": kind, "param": error.field, "code": code}})
    }
}

/// Errors of text-embeddings-inference.
pub(crate) enum Tei {}

impl Dialect for Tei {
    fn status(fault: RequestFault) -> StatusCode {
        match fault {
            RequestFault::Malformed | RequestFault::Invalid | RequestFault::NotServed => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            RequestFault::Late | RequestFault::Internal => StatusCode::FAILED_DEPENDENCY,
            other => OpenAi::status(other),
        }
    }

    fn body(error: &HttpError) -> Value {
        let kind = match error.fault {
            RequestFault::Empty => "Empty",
            RequestFault::Overloaded => "Overloaded",
            RequestFault::Late | RequestFault::Internal => "Backend",
            RequestFault::Unavailable => "Unhealthy",
            RequestFault::NotAdmitted => "Unauthorized",
            _ => "Validation",
        };
        json!({"error": error.message, "error_type": kind})
    }
}

/// Errors of Cohere's API (`message`) and of Jina's (`detail`).
pub(crate) enum Cohere {}

impl Dialect for Cohere {
    fn body(error: &HttpError) -> Value {
        json!({"message": error.message, "detail": error.message})
    }
}

/// Errors of the Open Inference Protocol, as Triton has them.
pub(crate) enum Triton {}

impl Dialect for Triton {
    fn status(fault: RequestFault) -> StatusCode {
        match fault {
            RequestFault::NotServed => StatusCode::NOT_IMPLEMENTED,
            RequestFault::Exists => StatusCode::CONFLICT,
            other => OpenAi::status(other),
        }
    }

    fn body(error: &HttpError) -> Value {
        json!({"error": error.message})
    }
}

/// The first parts of the paths of text-embeddings-inference's routes.
const OF_TEI: [&str; 11] = [
    "",
    "decode",
    "embed",
    "embed_all",
    "embed_sparse",
    "info",
    "models",
    "predict",
    "rerank",
    "similarity",
    "tokenize",
];

/// The response to an error of a request to `path` that no route has seen, in the form of the API that has the path.
pub(crate) fn response_at(path: &str, error: HttpError) -> Response {
    let first = path.split('/').find(|part| !part.is_empty()).unwrap_or_default();
    match (path, first) {
        ("/v1/rerank" | "/v2/rerank", _) => ErrorResponse::<Cohere>::from(error).into_response(),
        (_, "v1" | "embeddings") => ErrorResponse::<OpenAi>::from(error).into_response(),
        (_, first) if OF_TEI.contains(&first) => ErrorResponse::<Tei>::from(error).into_response(),
        _ => ErrorResponse::<Triton>::from(error).into_response(),
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
        let mut response = (D::status(error.fault), axum::Json(D::body(&error))).into_response();
        let headers = response.headers_mut();
        if error.fault == RequestFault::NotAdmitted {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let unknown = (error.fault == RequestFault::Overloaded).then_some(UNKNOWN_RETRY);
        if let Some(after) = error.retry_after.or(unknown) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
            headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(milliseconds(after)));
        }
        response
    }
}

/// The time after which a refused client should come back, while no batch has been measured yet.
const UNKNOWN_RETRY: Duration = Duration::from_secs(1);

/// Whole seconds, rounded up: `Retry-After` has no fractions, and 0 would call for another try at once.
fn whole_seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0 || after.is_zero())
}

/// Whole milliseconds, rounded up for the same reason.
fn milliseconds(after: Duration) -> u64 {
    u64::try_from(after.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}
