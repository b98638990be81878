//! What a model takes and gives, for metadata and error messages.

use std::sync::Arc;

use crate::{DeviceName, Precision};

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

/// The kind and bounds of an input.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum InputKind {
    /// UTF-8 text, not empty.
    Text {
        /// Tokens that fit, special tokens included.
        max_tokens: usize,
    },
    /// The content of any file, not empty.
    Content,
    /// An image as `UINT8` or `FP32` pixels of the same range.
    Image {
        /// Channels, height, width.
        shape: [usize; 3],
    },
}

/// What is answered for one item.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Task {
    /// A vector.
    Embedding {
        /// Length of the vector.
        dimensions: usize,
    },
    /// A score for each label.
    Classification {
        /// The labels, in the order of the scores.
        labels: Arc<[String]>,
    },
}

impl Task {
    /// `embedding` or `classification`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embedding { .. } => "embedding",
            Self::Classification { .. } => "classification",
        }
    }
}
