//! Errors, grouped by what a caller can do about them.

use std::path::PathBuf;
use std::time::Duration;

use sconce_batch::{Error as QueueError, SpawnError};
use sconce_models::{DeviceError, DeviceName, ForwardError, InputError, LoadError, Precision, excerpt};

use crate::LadderError;

use crate::placement::PlacementError;

/// Error of an item that got no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The model does not take the input: correct it.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The queue refused the item, its deadline passed, or the device failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The model does something else than the call needs: choose another model.
    #[error("model '{model}' does {task}, not {wanted}")]
    Unsuited {
        /// The model's name.
        model: String,
        /// The model's task.
        task: &'static str,
        /// The call's task, and the model that it needs.
        wanted: &'static str,
    },
    /// The model is not loaded in the precision that is asked for: ask for another, or for none.
    #[error(
        "model '{model}' computes in {}, not in {asked}; ask for one of those or for none, or have it loaded with {asked}",
        has.iter().map(|precision| precision.name()).collect::<Vec<_>>().join(", ")
    )]
    OtherPrecision {
        /// The model's name.
        model: String,
        /// The precision that is asked for.
        asked: Precision,
        /// The precisions that the model is loaded in.
        has: Vec<Precision>,
    },
    /// The model's code panicked while it prepared the input or finished the output.
    #[error("preparing the input or finishing the output panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}

/// The kind of an [`InferError`]: what a caller can do about it. Servers map each kind to a status of their protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The model does not take the input. Correct it: the same input fails every time.
    InvalidInput,
    /// The queue has no room now. Try again later.
    Overloaded,
    /// The request's deadline passed, or would pass before an answer.
    DeadlineExceeded,
    /// The runtime is shutting down, or its devices are lost. Try another server, or try again later.
    Unavailable,
    /// The model or the device is at fault. Report it.
    Internal,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::InvalidInput, Self::Overloaded, Self::DeadlineExceeded, Self::Unavailable, Self::Internal];

    /// The kind in one word, such as `overloaded`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl InferError {
    /// The kind of the error: what a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Input(_) | Self::Unsuited { .. } | Self::OtherPrecision { .. } => ErrorKind::InvalidInput,
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

    /// The time after which the same request may be answered, if that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Queue(error) => error.retry_after(),
            Self::Input(_) | Self::Unsuited { .. } | Self::OtherPrecision { .. } | Self::Panicked { .. } => None,
        }
    }

    /// Returns true if the same request may be answered at another time.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self.kind() {
            ErrorKind::Overloaded | ErrorKind::DeadlineExceeded => true,
            ErrorKind::Unavailable => !matches!(self, Self::Queue(QueueError::ShuttingDown)),
            ErrorKind::InvalidInput | ErrorKind::Internal => false,
        }
    }
}

/// Error of a group of items that got no answers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{source}", index.map_or_else(String::new, |index| format!("item {index}: ")))]
pub struct InferManyError {
    /// The index of the item that failed; `None` if all were refused together.
    pub index: Option<usize>,
    /// The cause.
    pub source: InferError,
}

impl InferManyError {
    pub(crate) fn of_item(index: usize, source: InferError) -> Self {
        Self { index: Some(index), source }
    }

    pub(crate) fn of_all(source: InferError) -> Self {
        Self { index: None, source }
    }

    /// The same error in a longer list, whose items before this group were `before`.
    pub(crate) fn after(self, before: usize) -> Self {
        Self { index: self.index.map(|index| index + before), ..self }
    }
}

/// Error of a name that no model of the runtime has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no model is named '{}'; known are: {}", excerpt(name), known.join(", "))]
pub struct UnknownModel {
    /// The name that was asked for.
    pub name: String,
    /// The names of all models.
    pub known: Vec<String>,
}

/// Error of a runtime that could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A directory of models cannot be listed.
    #[error("cannot list the models in {path}: {source}")]
    List {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The models cannot be listed.
    #[error("cannot list the models: {source}")]
    Sources {
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The CPU threads that were asked for cannot be started.
    #[error("cannot compute on {threads} CPU threads: {source}")]
    CpuThreads {
        /// Number of threads asked for.
        threads: std::num::NonZeroUsize,
        /// The cause.
        source: std::io::Error,
    },
    /// The operating system did not start a device thread.
    #[error("cannot start a device thread: {source}")]
    Device {
        /// The cause.
        source: std::io::Error,
    },
    /// A device that a model should run on cannot be used.
    #[error("device {device}: {source}")]
    OpenDevice {
        /// The device.
        device: DeviceName,
        /// The cause.
        source: DeviceError,
    },
    /// A model's files cannot be read for their digests, which a cache needs for its keys, and a decision.
    #[error("cannot read the files in {directory}, by whose content answers are cached and decisions count: {source}")]
    Digest {
        /// The model's directory.
        directory: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A precision below f32 that no decision allows.
    #[error(
        "model '{name}' may not serve in {precision} on {device}: {source} ({})\n  measure and decide with `sconce decide \
         {name} --data DATA --policy POLICY`, and have the record signed; for an experiment allow it as it is \
         (--allow-undecided; RuntimeBuilder::allow_undecided)",
        path.display()
    )]
    Undecided {
        /// The model's name.
        name: String,
        /// The precision.
        precision: Precision,
        /// The device.
        device: DeviceName,
        /// The decision record that was looked for.
        path: PathBuf,
        /// The reason.
        source: Box<sconce_decide::Refusal>,
    },
    /// No model was given, or none was found in the given directories.
    #[error("no model to run: give at least one directory that holds a config.json")]
    NoModel,
    /// A model directory has no last component to name the model by.
    #[error("{path} has no last component to name the model by; give it a name")]
    NoName {
        /// The directory.
        path: PathBuf,
    },
    /// Two models have the same name, and the same version.
    #[error("two models are named '{name}': {first} and {second}; rename one, or give them versions")]
    DuplicateName {
        /// The name.
        name: String,
        /// Directory of the first model.
        first: PathBuf,
        /// Directory of the second model.
        second: PathBuf,
    },
    /// A model could not be loaded.
    #[error("model '{name}': {source}")]
    Load {
        /// The model's name.
        name: String,
        /// The cause.
        source: Box<LoadError>,
    },
    /// No device can run a model, or the device that was asked for cannot.
    #[error("model '{name}': {source}")]
    Place {
        /// The model's name.
        name: String,
        /// The cause.
        source: Box<PlacementError>,
    },
    /// A model's precision ladder or its shadow check cannot be.
    #[error("model '{name}': {source}")]
    Ladder {
        /// The model's name.
        name: String,
        /// The cause.
        source: LadderError,
    },
    /// A model failed while it was measured.
    #[error("model '{name}' cannot be measured on {device}: {source}")]
    Measure {
        /// The model's name.
        name: String,
        /// The device.
        device: DeviceName,
        /// The cause.
        source: Box<ForwardError>,
    },
    /// A model's queue cannot be created, for instance because of a bad value in `sconce.toml`.
    #[error("model '{name}': {source}")]
    Queue {
        /// The model's name.
        name: String,
        /// The cause.
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
