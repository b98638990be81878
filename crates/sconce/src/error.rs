//! Errors by what can be done about them.

use std::path::PathBuf;
use std::time::Duration;

use sconce_batch::{Error as QueueError, SpawnError};
use sconce_models::{DeviceError, DeviceName, ForwardError, InputError, LoadError, excerpt};

use crate::placement::PlacementError;

/// Why an item got no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The input is not one that the model takes; mend it.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The queue refused it, its deadline passed, or the device failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The model's code panicked on this input, outside of the device.
    #[error("preparing the input or finishing the output panicked: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
}

/// The meaning of an [`InferError`]: what a caller can do about it. Every server has a word for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is not one that the model takes. Mend it; sent again it fails again.
    InvalidInput,
    /// There is no room now. Come back later.
    Overloaded,
    /// The time that the request was given is over, or would be.
    DeadlineExceeded,
    /// Nothing can answer here now: the runtime shuts down, or its devices are lost. Go elsewhere, or come back later.
    Unavailable,
    /// A fault of the model or of the device. Report it.
    Internal,
}

impl InferError {
    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Input(_) => ErrorKind::InvalidInput,
            Self::Queue(error) => match error {
                QueueError::TooHeavy { .. } | QueueError::GroupTooLarge { .. } => ErrorKind::InvalidInput,
                QueueError::QueueFull { .. } | QueueError::QueueTooHeavy { .. } | QueueError::Overloaded { .. } => {
                    ErrorKind::Overloaded
                }
                QueueError::DeadlineExceeded { .. } => ErrorKind::DeadlineExceeded,
                QueueError::ShuttingDown | QueueError::DevicesLost { .. } => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            },
            Self::Panicked { .. } => ErrorKind::Internal,
        }
    }

    /// The time after which the same request may be answered, where that can be told.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Queue(error) => error.retry_after(),
            Self::Input(_) | Self::Panicked { .. } => None,
        }
    }

    /// True if the same request would have been answered at a better time.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self.kind() {
            ErrorKind::Overloaded | ErrorKind::DeadlineExceeded => true,
            ErrorKind::Unavailable => !matches!(self, Self::Queue(QueueError::ShuttingDown)),
            ErrorKind::InvalidInput | ErrorKind::Internal => false,
        }
    }
}

/// Why items that were to be answered together got no answers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{source}", index.map_or_else(String::new, |index| format!("item {index}: ")))]
pub struct InferManyError {
    /// The item that has no answer, counted from 0; `None` if all were refused together.
    pub index: Option<usize>,
    /// Why.
    pub source: InferError,
}

impl InferManyError {
    pub(crate) fn of_item(index: usize, source: InferError) -> Self {
        Self { index: Some(index), source }
    }

    pub(crate) fn of_all(source: InferError) -> Self {
        Self { index: None, source }
    }
}

/// A name that no model of the runtime has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no model is named '{}'; known are: {}", excerpt(name), known.join(", "))]
pub struct UnknownModel {
    /// The name that was asked for.
    pub name: String,
    /// The names there are.
    pub known: Vec<String>,
}

/// Why a runtime could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A directory of models that cannot be listed.
    #[error("cannot list the models in {path}: {source}")]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The CPU threads that were asked for cannot be had.
    #[error("cannot compute on {threads} CPU threads: {source}")]
    CpuThreads {
        /// How many were asked for.
        threads: std::num::NonZeroUsize,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system gave no thread to run batches on.
    #[error("cannot start a device thread: {source}")]
    Device {
        /// Why.
        source: std::io::Error,
    },
    /// A device that a model is to run on cannot be used.
    #[error("device {device}: {source}")]
    OpenDevice {
        /// Which.
        device: DeviceName,
        /// Why.
        source: DeviceError,
    },
    /// A model's files cannot be read to know what they hold, which a cache of its answers needs.
    #[error("cannot read the files in {directory}, by whose content answers are cached: {source}")]
    Digest {
        /// The model's directory.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no model to run.
    #[error("no model to run: give at least one directory that holds a config.json")]
    NoModel,
    /// A model directory that cannot give its model a name.
    #[error("{path} has no last component to name the model by; give it a name")]
    NoName {
        /// The directory.
        path: PathBuf,
    },
    /// Two models of one name.
    #[error("two models are named '{name}': {first} and {second}; rename one")]
    DuplicateName {
        /// The name.
        name: String,
        /// Where the first is.
        first: PathBuf,
        /// Where the second is.
        second: PathBuf,
    },
    /// A model that does not load.
    #[error("model '{name}': {source}")]
    Load {
        /// Its name.
        name: String,
        /// Why.
        source: Box<LoadError>,
    },
    /// A model that no device can run, or not the one that was asked for.
    #[error("model '{name}': {source}")]
    Place {
        /// Its name.
        name: String,
        /// Why.
        source: Box<PlacementError>,
    },
    /// A model that failed while it was measured.
    #[error("model '{name}' cannot be measured on {device}: {source}")]
    Measure {
        /// Its name.
        name: String,
        /// Where.
        device: DeviceName,
        /// Why.
        source: Box<ForwardError>,
    },
    /// A queue that cannot be made, for instance for a bad value in `sconce.toml`.
    #[error("model '{name}': {source}")]
    Queue {
        /// Name of the model.
        name: String,
        /// Why.
        source: SpawnError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_to_do_and_when_to_come_back() {
        const SECOND: Duration = Duration::from_secs(1);
        let retry_after = Some(SECOND);
        let table: [(InferError, ErrorKind, bool); 10] = [
            (InputError::Empty { name: "text" }.into(), ErrorKind::InvalidInput, false),
            (QueueError::TooHeavy { weight: 9, max: 8 }.into(), ErrorKind::InvalidInput, false),
            (QueueError::QueueFull { max: 8, retry_after }.into(), ErrorKind::Overloaded, true),
            (
                QueueError::QueueTooHeavy { queued: 8, weight: 1, max: 8, retry_after }.into(),
                ErrorKind::Overloaded,
                true,
            ),
            (QueueError::Overloaded { wait: SECOND, retry_after: SECOND }.into(), ErrorKind::Overloaded, true),
            (QueueError::DeadlineExceeded { retry_after }.into(), ErrorKind::DeadlineExceeded, true),
            (QueueError::ShuttingDown.into(), ErrorKind::Unavailable, false),
            (QueueError::DevicesLost { retry_after }.into(), ErrorKind::Unavailable, true),
            (QueueError::Executor(sconce_batch::ExecutorError::new("broken")).into(), ErrorKind::Internal, false),
            (InferError::Panicked { message: "index out of bounds".into() }, ErrorKind::Internal, false),
        ];
        for (error, kind, is_refusal) in table {
            assert_eq!((error.kind(), error.is_refusal()), (kind, is_refusal), "{error}");
            assert_eq!(error.retry_after(), is_refusal.then_some(SECOND), "{error}");
        }
    }

    #[test]
    fn an_unknown_model_is_named_by_an_excerpt() {
        let message = UnknownModel { name: "bert".repeat(1 << 16), known: vec!["minilm".into()] }.to_string();
        assert!(message.len() < 256 && message.ends_with("bert…'; known are: minilm"), "{message}");
    }
}
