//! Errors by what the caller can do about them: mend the input, mend the model directory, or report a fault.

use std::path::PathBuf;

use sconce_kernels::KernelError;
use sconce_kernels::device::{self, DeviceError, DeviceFailure};

use crate::precision::names;
use crate::{DeviceName, Precision, excerpt};

/// An input that this model cannot take. The caller mends the input; its neighbours are not affected.
///
/// A message repeats an [`excerpt`] of the input at most.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Another kind of input than the model reads.
    #[error("input '{name}' takes {expected}, but got {}", excerpt(got))]
    WrongKind {
        /// Name of the input.
        name: &'static str,
        /// What the model takes.
        expected: String,
        /// What came.
        got: String,
    },
    /// An element type the model does not read.
    #[error("input '{name}' has dtype {}, but the model takes {expected}", excerpt(got))]
    WrongDtype {
        /// Name of the input.
        name: &'static str,
        /// What the model takes.
        expected: String,
        /// What came.
        got: String,
    },
    /// Another shape than the model reads.
    #[error(
        "input '{name}' has shape {}, but the model takes {expected:?} per item",
        excerpt(&format_args!("{got:?}"))
    )]
    WrongShape {
        /// Name of the input.
        name: &'static str,
        /// The shape of one item.
        expected: Vec<usize>,
        /// What came.
        got: Vec<usize>,
    },
    /// Another number of elements than the shape says.
    #[error(
        "input '{name}' has {got} elements, but its shape {} needs {expected}",
        excerpt(&format_args!("{shape:?}"))
    )]
    WrongLength {
        /// Name of the input.
        name: &'static str,
        /// The shape that came.
        shape: Vec<usize>,
        /// Elements that the shape needs.
        expected: usize,
        /// Elements that came.
        got: usize,
    },
    /// A value that is not a number, or is infinite.
    #[error("input '{name}' has the value {} at element {index}; only finite values are allowed", excerpt(value))]
    NotFinite {
        /// Name of the input.
        name: &'static str,
        /// Position in row-major order.
        index: usize,
        /// The value, as text.
        value: String,
    },
    /// Nothing to work on: no byte, or white space alone.
    #[error("input '{name}' is empty; give at least one character that is not white space")]
    Empty {
        /// Name of the input.
        name: &'static str,
    },
    /// Content of which the part that the model reads is white space alone.
    #[error("input '{name}' has white space alone in its first and last {bytes} bytes, all that the model reads of it")]
    BlankEnds {
        /// Name of the input.
        name: &'static str,
        /// How much of each end is read.
        bytes: usize,
    },
    /// Text that is not UTF-8.
    #[error("input '{name}' is not UTF-8: the first {valid_up_to} bytes are, the next is not")]
    NotUtf8 {
        /// Name of the input.
        name: &'static str,
        /// Length of the valid beginning.
        valid_up_to: usize,
    },
    /// More tokens than the model can take, where truncation is off.
    #[error("input '{name}' has more tokens than the {max} that the model takes; shorten it or allow truncation")]
    TooLong {
        /// Name of the input.
        name: &'static str,
        /// Tokens that fit.
        max: usize,
    },
    /// A long input in which hardly a token is found.
    #[error(
        "input '{name}' has fewer tokens in its first {bytes} bytes than the model takes, as no text has; shorten it"
    )]
    TooSparse {
        /// Name of the input.
        name: &'static str,
        /// Bytes that were looked at.
        bytes: usize,
    },
    /// More bytes than are looked at.
    #[error("input '{name}' has {bytes} bytes, but at most {max} are accepted")]
    TooManyBytes {
        /// Name of the input.
        name: &'static str,
        /// Bytes of the input.
        bytes: usize,
        /// Bytes that are accepted.
        max: usize,
    },
    /// The tokenizer gave up.
    #[error("input '{name}' could not be tokenised: {}", excerpt(message))]
    Tokenizer {
        /// Name of the input.
        name: &'static str,
        /// What the tokenizer said.
        message: String,
    },
}

/// A model directory that cannot be loaded. The operator mends the directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what its name says, or lacks a field, or has a field with a value out of range.
    #[error("{path} is not valid: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field or position, the value, and what is allowed.
        message: String,
    },
    /// A file that is no longer what it was when the model was loaded first. Start anew to use the new one.
    #[error("{path} has changed since the model was loaded first; start anew to use the new one")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// No family of that name.
    #[error("{path} asks for model_type '{model_type}', which is not known; known are: {}", known.join(", "))]
    UnknownModelType {
        /// The `config.json`.
        path: PathBuf,
        /// What it asks for.
        model_type: String,
        /// The families of the registry.
        known: Vec<String>,
    },
    /// A precision that models of this family do not have on the device.
    #[error(
        "{path}: '{model_type}' models have no precision '{precision}' on device '{device}'; choose one of: {}",
        names(allowed)
    )]
    UnsupportedPrecision {
        /// The `sconce.toml` that asks for it; the model directory where whoever loads it asks.
        path: PathBuf,
        /// The family.
        model_type: String,
        /// What is asked for.
        precision: Precision,
        /// Where it would run.
        device: DeviceName,
        /// What such models have there.
        allowed: Vec<Precision>,
    },
    /// A device that models of this family do not run on, or that no longer answers.
    #[error("the model cannot run there: {0}")]
    Device(#[from] DeviceError),
    /// Weights for which the device has no room.
    #[error("{path} does not fit into the memory of the device: {message}")]
    OutOfMemory {
        /// The weights file.
        path: PathBuf,
        /// What the driver said.
        message: String,
    },
    /// A device that is gone while the model is loaded.
    #[error("the device was lost while {path} was loaded: {message}")]
    DeviceLost {
        /// The weights file.
        path: PathBuf,
        /// What the driver said.
        message: String,
    },
    /// Weights that are missing, cut short, or of another shape than the configuration says.
    #[error("{path} does not fit the model: {source}")]
    Weights {
        /// The weights file.
        path: PathBuf,
        /// What does not fit.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A forward pass that failed: a fault of the model or of the device, never of one caller's input alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// A kernel, or the tensor library, failed.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// The device has no memory for this batch; it works on, and may have room for a smaller one.
    #[error("the device is out of memory: {message}")]
    OutOfMemory {
        /// What the driver said.
        message: String,
    },
    /// The device, or this process' hold on it, is gone: no later batch will run on it either.
    #[error("the device is lost: {message}")]
    DeviceLost {
        /// What the driver said.
        message: String,
    },
    /// Features that this model's own processor would not have made, such as a token beyond the vocabulary.
    #[error("item {item} of the batch does not fit the network: {message}")]
    InvalidFeatures {
        /// Position in the batch.
        item: usize,
        /// What does not fit, and what would.
        message: String,
    },
    /// Features prepared for another family.
    #[error("the network takes {expected}, but got {got}")]
    WrongFeatures {
        /// What the network takes.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
}

impl From<KernelError> for ForwardError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::OutOfDeviceMemory { .. } => Self::OutOfMemory { message: error.to_string() },
            KernelError::DeviceLost { .. } => Self::DeviceLost { message: error.to_string() },
            _ => Self::Failed(Box::new(error)),
        }
    }
}

impl From<candle_core::Error> for ForwardError {
    fn from(error: candle_core::Error) -> Self {
        match device::failure(&error) {
            Some(DeviceFailure::OutOfMemory) => Self::OutOfMemory { message: message(&error) },
            Some(DeviceFailure::Lost) => Self::DeviceLost { message: message(&error) },
            None => Self::Failed(Box::new(error)),
        }
    }
}

impl LoadError {
    /// Of a file that is no file of weights.
    pub(crate) fn weights(path: PathBuf, source: candle_core::Error) -> Self {
        Self::Weights { path, source: Box::new(source) }
    }

    /// Of an error while kernels take the weights of that file.
    pub(crate) fn of_kernels(path: PathBuf, error: KernelError) -> Self {
        match error {
            KernelError::OutOfDeviceMemory { .. } => Self::OutOfMemory { path, message: error.to_string() },
            KernelError::DeviceLost { .. } => Self::DeviceLost { path, message: error.to_string() },
            _ => Self::Weights { path, source: Box::new(error) },
        }
    }

    /// Of an error while the tensors of a weights file are put together.
    pub(crate) fn of_weights(path: PathBuf, source: candle_core::Error) -> Self {
        match device::failure(&source) {
            Some(DeviceFailure::OutOfMemory) => Self::OutOfMemory { path, message: message(&source) },
            Some(DeviceFailure::Lost) => Self::DeviceLost { path, message: message(&source) },
            None => Self::Weights { path, source: Box::new(source) },
        }
    }
}

/// What candle says, without the backtrace that it adds where `RUST_BACKTRACE` is set: a message goes to clients.
fn message(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => message(inner),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each error with as much input in it as a caller could send.
    fn of_large_inputs() -> Vec<InputError> {
        let (name, text, shape) = ("text", "é".repeat(1 << 16), vec![7; 1 << 16]);
        let errors = vec![
            InputError::WrongKind { name, expected: "text".into(), got: text.clone() },
            InputError::WrongDtype { name, expected: "UINT8".into(), got: text.clone() },
            InputError::WrongShape { name, expected: vec![1], got: shape.clone() },
            InputError::WrongLength { name, shape, expected: 1, got: 2 },
            InputError::NotFinite { name, index: 0, value: text.clone() },
            InputError::Empty { name },
            InputError::BlankEnds { name, bytes: usize::MAX },
            InputError::NotUtf8 { name, valid_up_to: usize::MAX },
            InputError::TooLong { name, max: 1 },
            InputError::TooSparse { name, bytes: usize::MAX },
            InputError::TooManyBytes { name, bytes: usize::MAX, max: 1 },
            InputError::Tokenizer { name, message: text },
        ];
        for error in &errors {
            // A new error belongs into the list above.
            match error {
                InputError::WrongKind { .. }
                | InputError::WrongDtype { .. }
                | InputError::WrongShape { .. }
                | InputError::WrongLength { .. }
                | InputError::NotFinite { .. }
                | InputError::Empty { .. }
                | InputError::BlankEnds { .. }
                | InputError::NotUtf8 { .. }
                | InputError::TooLong { .. }
                | InputError::TooSparse { .. }
                | InputError::TooManyBytes { .. }
                | InputError::Tokenizer { .. } => {}
            }
        }
        errors
    }

    #[test]
    fn no_message_about_an_input_repeats_more_than_an_excerpt_of_it() {
        for error in of_large_inputs() {
            let message = error.to_string();
            assert!(message.len() < 512, "{} bytes: {}", message.len(), excerpt(&message));
        }
    }
}
