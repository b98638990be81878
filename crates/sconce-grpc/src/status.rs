//! Converts errors to gRPC's status codes.

use sconce_server::{RequestError, RequestFault};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The trailer with the milliseconds after which the client should retry; gRPC's clients with a retry policy follow it
/// (gRFC A6).
const RETRY_PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The status of an error.
#[expect(clippy::needless_pass_by_value, reason = "a function that makes an error of another")]
pub(crate) fn status(error: RequestError) -> Status {
    let mut status = Status::new(code(error.fault()), error.message());
    if error.fault() == RequestFault::NotAdmitted {
        status.metadata_mut().insert("www-authenticate", MetadataValue::from_static("Bearer"));
    }
    if let Some(milliseconds) = retry_after_ms(&error) {
        status.metadata_mut().insert(RETRY_PUSHBACK, milliseconds.into());
    }
    status
}

/// Milliseconds, never 0, after which the client should come back.
pub(crate) fn retry_after_ms(error: &RequestError) -> Option<u64> {
    // Rounded up: a client that comes a millisecond too early would be refused again.
    let milliseconds = error.retry_after()?.as_micros().div_ceil(1000);
    Some(u64::try_from(milliseconds).unwrap_or(u64::MAX).max(1))
}

fn code(fault: RequestFault) -> Code {
    match fault {
        RequestFault::NotAdmitted => Code::Unauthenticated,
        RequestFault::NotFound => Code::NotFound,
        RequestFault::Exists => Code::AlreadyExists,
        RequestFault::NotServed => Code::Unimplemented,
        RequestFault::Late | RequestFault::Stalled => Code::DeadlineExceeded,
        RequestFault::Overloaded => Code::ResourceExhausted,
        // The code that tonic gives a message above its limit.
        RequestFault::TooLarge => Code::OutOfRange,
        RequestFault::Unavailable => Code::Unavailable,
        RequestFault::Invalid => Code::InvalidArgument,
        // Also the code that gRPC specifies for a message that cannot be decoded.
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sconce::{ExecutorError, InferError, InputError, QueueError};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_error_of_an_item_has_the_code_that_says_what_to_do() {
        let table = [
            (InferError::Input(InputError::Empty { name: "text" }), Code::InvalidArgument),
            (QueueError::TooHeavy { weight: 9, max: 8 }.into(), Code::InvalidArgument),
            (QueueError::QueueFull { max: 8, retry_after: None }.into(), Code::ResourceExhausted),
            (QueueError::Overloaded { wait: SECOND, retry_after: SECOND }.into(), Code::ResourceExhausted),
            (
                QueueError::QueueTooHeavy { queued: 8, weight: 1, max: 8, retry_after: None }.into(),
                Code::ResourceExhausted,
            ),
            (QueueError::DeadlineExceeded { retry_after: None }.into(), Code::DeadlineExceeded),
            (QueueError::ShuttingDown.into(), Code::Unavailable),
            (QueueError::DevicesLost { retry_after: None }.into(), Code::Unavailable),
            (QueueError::Executor(ExecutorError::new("out of memory")).into(), Code::Internal),
            (InferError::Panicked { message: "index out of bounds".into() }, Code::Internal),
        ];
        for (source, code) in table {
            let message = format!("item 3: {source}");
            let status = status(RequestError::Item { index: 3, source });
            assert_eq!((status.code(), status.message()), (code, message.as_str()));
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let pushback = |refusal: QueueError| {
            let status = status(RequestError::Item { index: 0, source: refusal.into() });
            Some(status.metadata().get("grpc-retry-pushback-ms")?.to_str().unwrap().to_owned())
        };
        let full = |retry_after| QueueError::QueueFull { max: 8, retry_after };
        assert_eq!(pushback(full(Some(Duration::from_micros(2001)))).as_deref(), Some("3"));
        assert_eq!(pushback(full(None)), None, "not learned yet");
        assert_eq!(pushback(QueueError::Overloaded { wait: SECOND, retry_after: SECOND }).as_deref(), Some("1000"));
        assert_eq!(pushback(QueueError::ShuttingDown), None);
        assert_eq!(pushback(QueueError::DeadlineExceeded { retry_after: Some(SECOND) }).as_deref(), Some("1000"));
        assert_eq!(pushback(full(Some(Duration::ZERO))).as_deref(), Some("1"), "at once would be a storm");
    }
}
