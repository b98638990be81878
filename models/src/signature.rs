//! What a model takes and gives, for metadata and error messages.

use crate::{DeviceName, InputKind, Precision, Task};

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// `model_type` of `config.json`.
    pub model_type: String,
    /// What one item's input must be.
    pub input: InputSpec,
    /// What is answered for one item.
    pub task: Task,
    /// What the network is computed in.
    pub precision: Precision,
    /// Where.
    pub device: DeviceName,
    /// How many weights the model has.
    pub parameters: usize,
}

/// What one item's input must be.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSpec {
    /// The name clients use: `text`, `content` or `image`.
    pub name: &'static str,
    /// The kind and bounds.
    pub kind: InputKind,
}
