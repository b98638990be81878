//! The signature of a model, for metadata and error messages.

use crate::{DeviceName, InputKind, Precision, Task};

/// The input and output of a model, and how it is computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// `model_type` of `config.json`.
    pub model_type: String,
    /// The input of one item.
    pub input: InputSpec,
    /// The output for one item.
    pub task: Task,
    /// The precision of the network.
    pub precision: Precision,
    /// The device that the network runs on.
    pub device: DeviceName,
    /// The number of weights.
    pub parameters: usize,
}

/// The input of one item: its name and kind.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// The name in requests: `text`, `content` or `image`.
    pub name: &'static str,
    /// The kind and bounds.
    pub kind: InputKind,
}
