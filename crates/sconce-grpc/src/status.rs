//! From errors to gRPC's status codes.

use sconce::{InferError, QueueError};
use tonic::{Code, Status};

use crate::error::RequestError;

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        Self::new(code(&error), error.to_string())
    }
}

/// `INVALID_ARGUMENT` unless the request is well formed.
fn code(error: &RequestError) -> Code {
    match error {
        RequestError::UnknownModel(_) | RequestError::UnknownVersion { .. } => Code::NotFound,
        RequestError::Sequence { .. } | RequestError::SharedMemory { .. } => Code::Unimplemented,
        RequestError::TooLate { .. } => Code::DeadlineExceeded,
        RequestError::Item { source, .. } => item_code(source),
        _ => Code::InvalidArgument,
    }
}

fn item_code(error: &InferError) -> Code {
    match error {
        InferError::Input(_) | InferError::Queue(QueueError::TooHeavy { .. }) => Code::InvalidArgument,
        InferError::Queue(
            QueueError::QueueFull { .. } | QueueError::QueueTooHeavy { .. } | QueueError::Overloaded { .. },
        ) => Code::ResourceExhausted,
        InferError::Queue(QueueError::DeadlineExceeded) => Code::DeadlineExceeded,
        InferError::Queue(QueueError::ShuttingDown) => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use sconce::{ExecutorError, InputError};

    use super::*;

    #[test]
    fn each_error_of_an_item_has_the_code_that_says_what_to_do() {
        let table = [
            (InferError::Input(InputError::Empty { name: "text" }), Code::InvalidArgument),
            (QueueError::TooHeavy { weight: 9, max: 8 }.into(), Code::InvalidArgument),
            (QueueError::QueueFull { max: 8 }.into(), Code::ResourceExhausted),
            (QueueError::Overloaded { wait: std::time::Duration::from_secs(1) }.into(), Code::ResourceExhausted),
            (QueueError::QueueTooHeavy { queued: 8, weight: 1, max: 8 }.into(), Code::ResourceExhausted),
            (QueueError::DeadlineExceeded.into(), Code::DeadlineExceeded),
            (QueueError::ShuttingDown.into(), Code::Unavailable),
            (QueueError::Executor(ExecutorError::new("out of memory")).into(), Code::Internal),
            (InferError::Panicked { message: "index out of bounds".into() }, Code::Internal),
        ];
        for (source, code) in table {
            let message = format!("item 3: {source}");
            let status = Status::from(RequestError::Item { index: 3, source });
            assert_eq!((status.code(), status.message()), (code, message.as_str()));
        }
    }
}
