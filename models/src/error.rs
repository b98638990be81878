//! Errors, one type for each remedy: correct the input, correct the model directory, or report a fault.

use std::path::PathBuf;

use sconce_kernels::KernelError;
use sconce_kernels::device::{self, DeviceError, DeviceFailure};

use crate::precision::names;
use crate::{DeviceName, Precision, excerpt};

/// An input that the model cannot take. The caller must correct it; the other items of a batch are not affected.
///
/// A message repeats at most an [`excerpt`] of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// A kind of input that the model does not take.
    #[error("input '{name}' takes {expected}, but got {}", excerpt(got))]
    WrongKind {
        /// Name of the input.
        name: &'static str,
        /// The kind that the model takes.
        expected: String,
        /// The kind that was given.
        got: String,
    },
    /// An element type that the model does not take.
    #[error("input '{name}' has dtype {}, but the model takes {expected}", excerpt(got))]
    WrongDtype {
        /// Name of the input.
        name: &'static str,
        /// The element types that the model takes.
        expected: String,
        /// The element type that was given.
        got: String,
    },
    /// A shape that the model does not take.
    #[error(
        "input '{name}' has shape {}, but the model takes {expected:?} per item",
        excerpt(&format_args!("{got:?}"))
    )]
    WrongShape {
        /// Name of the input.
        name: &'static str,
        /// The shape of one item that the model takes.
        expected: Vec<usize>,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// A number of elements that does not match the shape.
    #[error(
        "input '{name}' has {got} elements, but its shape {} needs {expected}",
        excerpt(&format_args!("{shape:?}"))
    )]
    WrongLength {
        /// Name of the input.
        name: &'static str,
        /// The shape that was given.
        shape: Vec<usize>,
        /// The number of elements that the shape needs.
        expected: usize,
        /// The number of elements that were given.
        got: usize,
    },
    /// A value that is NaN or infinite.
    #[error("input '{name}' has the value {} at element {index}; only finite values are allowed", excerpt(value))]
    NotFinite {
        /// Name of the input.
        name: &'static str,
        /// Index of the value in row-major order.
        index: usize,
        /// The value, as text.
        value: String,
    },
    /// An empty input: a text without a token, content without a byte or of white space alone.
    #[error("input '{name}' is empty; give at least one character that is not white space, or one token")]
    Empty {
        /// Name of the input.
        name: &'static str,
    },
    /// Content that is only white space in the parts that the model reads.
    #[error("input '{name}' has white space alone in its first and last {bytes} bytes, all that the model reads of it")]
    BlankEnds {
        /// Name of the input.
        name: &'static str,
        /// Bytes that the model reads of each end.
        bytes: usize,
    },
    /// Text that is not UTF-8.
    #[error("input '{name}' is not UTF-8: the first {valid_up_to} bytes are, the next is not")]
    NotUtf8 {
        /// Name of the input.
        name: &'static str,
        /// Bytes of the valid beginning.
        valid_up_to: usize,
    },
    /// Text that leaves no token for the one that is read with it, even if it is truncated.
    #[error(
        "input '{name}' leaves no room for the text read with it within the {max} tokens that the model takes; shorten it"
    )]
    NoRoom {
        /// Name of the input.
        name: &'static str,
        /// Most tokens of both texts together.
        max: usize,
    },
    /// Text with more tokens than the model can take, while truncation is refused.
    #[error("input '{name}' has more tokens than the {max} that the model takes; shorten it or allow truncation")]
    TooLong {
        /// Name of the input.
        name: &'static str,
        /// Most tokens of an input.
        max: usize,
    },
    /// A long text with hardly any tokens.
    #[error(
        "input '{name}' has fewer tokens in its first {bytes} bytes than the model takes, as no text has; shorten it"
    )]
    TooSparse {
        /// Name of the input.
        name: &'static str,
        /// Bytes that were tokenised at most.
        bytes: usize,
    },
    /// A text with a token that the tokenizer knows and the model has no row for.
    #[error(
        "input '{name}' has the token '{}' of number {id}, but the model has {rows} words; leave it out",
        excerpt(token)
    )]
    UnknownToken {
        /// Name of the input.
        name: &'static str,
        /// The token.
        token: String,
        /// Its number in the tokenizer.
        id: u32,
        /// Rows of the model's table of words.
        rows: usize,
    },
    /// A prompt that the model does not have.
    #[error("prompt '{}' is not known; known are: {}", excerpt(name), or_none(known))]
    UnknownPrompt {
        /// The name that was asked for.
        name: String,
        /// The names of the model's prompts.
        known: Vec<String>,
    },
    /// A request without labels, where the request names them.
    #[error("there are no labels; give at least one")]
    NoLabels,
    /// A sentence without a place for a label.
    #[error("the template '{}' has no {{}} in place of the label", excerpt(template))]
    Template {
        /// The sentence.
        template: String,
    },
    /// An option of a request that does nothing for the model.
    #[error("option '{option}' has no meaning for the task {task}; leave it out")]
    NoMeaning {
        /// The option.
        option: &'static str,
        /// The model's task.
        task: &'static str,
    },
    /// A number of dimensions that the model's vectors cannot be cut to.
    #[error("option 'dimensions' is {got}; it must be between 1 and {max}")]
    Dimensions {
        /// The number that was asked for.
        got: usize,
        /// Dimensions of the model's vectors.
        max: usize,
    },
    /// An embedding with an element that the element type which was asked for does not hold.
    #[error(
        "option 'output_dtype' is {dtype}, which does not hold the embedding's element {}; set 'normalize' to true, or ask for \
         float32",
        excerpt(value)
    )]
    Unrepresentable {
        /// The element type that was asked for.
        dtype: &'static str,
        /// The element, as text.
        value: String,
    },
    /// A text with the token that stands for padding, which the model's positions skip.
    #[error(
        "input '{name}' has the token '{}' ({id}), which stands for padding in this model; leave it out",
        excerpt(token)
    )]
    PaddingToken {
        /// Name of the input.
        name: &'static str,
        /// The token.
        token: String,
        /// Its number in the tokenizer.
        id: u32,
    },
    /// An input with too many bytes.
    #[error("input '{name}' has {bytes} bytes, but at most {max} are accepted")]
    TooManyBytes {
        /// Name of the input.
        name: &'static str,
        /// Bytes of the input.
        bytes: usize,
        /// Most bytes that are accepted.
        max: usize,
    },
    /// A text that the tokenizer failed on.
    #[error("input '{name}' could not be tokenised: {}", excerpt(message))]
    Tokenizer {
        /// Name of the input.
        name: &'static str,
        /// The tokenizer's message.
        message: String,
    },
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "(none)".to_owned() } else { names.join(", ") }
}

/// A model directory that cannot be loaded. The operator must correct the directory or choose another device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file of the wrong format, without a required field, or with a value out of range.
    #[error("{path} is not valid: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field or position, the value, and what is allowed.
        message: String,
    },
    /// A file that has changed since the model was first loaded. Restart to use the new one.
    #[error("{path} has changed since the model was loaded first; start anew to use the new one")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A `model_type` without a family.
    #[error("{path} asks for model_type '{model_type}', which is not known; known are: {}", known.join(", "))]
    UnknownModelType {
        /// The `config.json`.
        path: PathBuf,
        /// Its `model_type`.
        model_type: String,
        /// The `model_type`s of the registry.
        known: Vec<String>,
    },
    /// A precision that models of this family do not have on the device.
    #[error(
        "{path}: '{model_type}' models have no precision '{precision}' on device '{device}'; choose one of: {}",
        names(allowed)
    )]
    UnsupportedPrecision {
        /// The `sconce.toml` that sets the precision; the model directory if the caller asked for it.
        path: PathBuf,
        /// The family.
        model_type: String,
        /// The precision that was asked for.
        precision: Precision,
        /// The device.
        device: DeviceName,
        /// The precisions of such models on the device.
        allowed: Vec<Precision>,
    },
    /// A device that such models do not run on, or that has stopped responding.
    #[error("the model cannot run there: {0}")]
    Device(#[from] DeviceError),
    /// Weights that do not fit into the device's memory.
    #[error("{path} does not fit into the memory of the device: {message}")]
    OutOfMemory {
        /// The weights file.
        path: PathBuf,
        /// The driver's message.
        message: String,
    },
    /// A device that was lost while the model was loaded.
    #[error("the device was lost while {path} was loaded: {message}")]
    DeviceLost {
        /// The weights file.
        path: PathBuf,
        /// The driver's message.
        message: String,
    },
    /// Weights that are missing, cut short, or of a shape that does not match the configuration.
    #[error("{path} does not fit the model: {source}")]
    Weights {
        /// The weights file.
        path: PathBuf,
        /// The fault in the file.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A panic while the model was loaded: a fault of the family's code, or of a library.
    #[error("{} cannot be loaded: a panic: {message}", path.display())]
    Panicked {
        /// The model directory.
        path: PathBuf,
        /// The message of the panic.
        message: String,
    },
}

/// A failed forward pass: a fault of the model or the device, not of an input, which the processor has checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// An error of a kernel or of candle.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// The device has no memory for this batch. It still works, and a smaller batch may fit.
    #[error("the device is out of memory: {message}")]
    OutOfMemory {
        /// The driver's message.
        message: String,
    },
    /// The device, or this process' access to it, is lost: all later batches would fail, too.
    #[error("the device is lost: {message}")]
    DeviceLost {
        /// The driver's message.
        message: String,
    },
    /// Features that the model's own processor never makes, such as a token beyond the vocabulary.
    #[error("item {item} of the batch does not fit the network: {message}")]
    InvalidFeatures {
        /// Index of the item in the batch.
        item: usize,
        /// The value that does not fit, and the allowed ones.
        message: String,
    },
    /// A result that is NaN or infinite: the weights are damaged, or too large for the precision.
    #[error(
        "item {item} of the batch gave a number that is not finite; the weights are damaged, or need a higher precision"
    )]
    NotFinite {
        /// Position in the batch.
        item: usize,
    },
    /// Features that were prepared for another family.
    #[error("the network takes {expected}, but got {got}")]
    WrongFeatures {
        /// The kind of features that the network takes.
        expected: &'static str,
        /// The kind that was given.
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
            Some(DeviceFailure::OutOfMemory) => Self::OutOfMemory { message: plain_message(&error) },
            Some(DeviceFailure::Lost) => Self::DeviceLost { message: plain_message(&error) },
            None => Self::Failed(Box::new(error)),
        }
    }
}

impl LoadError {
    /// The error for a file that is not a weights file.
    pub(crate) fn weights(path: PathBuf, source: &candle_core::Error) -> Self {
        Self::Weights { path, source: plain_message(source).into() }
    }

    /// The error for a failure of kernels with the weights of a file.
    pub(crate) fn of_kernels(path: PathBuf, error: KernelError) -> Self {
        match error {
            KernelError::OutOfDeviceMemory { .. } => Self::OutOfMemory { path, message: error.to_string() },
            KernelError::DeviceLost { .. } => Self::DeviceLost { path, message: error.to_string() },
            _ => Self::Weights { path, source: Box::new(error) },
        }
    }

    /// The error for a failure of candle with the tensors of a weights file.
    pub(crate) fn of_weights(path: PathBuf, source: &candle_core::Error) -> Self {
        match device::failure(source) {
            Some(DeviceFailure::OutOfMemory) => Self::OutOfMemory { path, message: plain_message(source) },
            Some(DeviceFailure::Lost) => Self::DeviceLost { path, message: plain_message(source) },
            None => Self::weights(path, source),
        }
    }
}

/// Candle's message without the backtrace that it adds if `RUST_BACKTRACE` is set, because messages go to clients.
pub(crate) fn plain_message(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => plain_message(inner),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each error, with very large values of the input in it.
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
            InputError::NoRoom { name, max: 1 },
            InputError::TooSparse { name, bytes: usize::MAX },
            InputError::TooManyBytes { name, bytes: usize::MAX, max: 1 },
            InputError::UnknownToken { name, token: text.clone(), id: u32::MAX, rows: 1 },
            InputError::UnknownPrompt { name: text.clone(), known: Vec::new() },
            InputError::NoLabels,
            InputError::Template { template: text.clone() },
            InputError::NoMeaning { option: "normalize", task: "classification" },
            InputError::Dimensions { got: usize::MAX, max: usize::MAX },
            InputError::Unrepresentable { dtype: "float16", value: text.clone() },
            InputError::PaddingToken { name, token: text.clone(), id: u32::MAX },
            InputError::Tokenizer { name, message: text },
        ];
        for error in &errors {
            // Add a new error to the list above, too.
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
                | InputError::NoRoom { .. }
                | InputError::TooSparse { .. }
                | InputError::TooManyBytes { .. }
                | InputError::UnknownToken { .. }
                | InputError::UnknownPrompt { .. }
                | InputError::NoLabels
                | InputError::Template { .. }
                | InputError::NoMeaning { .. }
                | InputError::Dimensions { .. }
                | InputError::Unrepresentable { .. }
                | InputError::PaddingToken { .. }
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
