//! Model families, loaded from directories as Hugging Face ships them. A model has two halves: a [`Processor`] that
//! prepares and finishes one item on the caller's thread, and a [`Network`] that runs batches on a device thread.
//!
//! ```
//! use sconce_models::{Finishing, LoadOptions, Registry, Truncation};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/zoo/tiny-bert-sentiment");
//! let mut model = Registry::default().load(directory.as_ref(), &LoadOptions::default())?;
//! let prepared = model.processor.prepare("A lovely film.".into(), Truncation::Truncate)?;
//! let rows = model.network.forward(&[prepared.features])?;
//! let row = rows.into_iter().next().expect("one row per item");
//! let output = model.processor.finish(row, Finishing::default());
//! assert_eq!(output.classification().expect("a classifier").label(), "positive");
//! # Ok(()) }
//! ```
//!
//! The path of one item: [`Input`] → [`Processor::prepare`] (checks, tokens or pixels) → [`Features`] →
//! [`Network::forward`] in a batch (a row of numbers) → [`Processor::finish`] (normalise, softmax, labels) →
//! [`Output`]. Its row does not depend on the rest of the batch: texts are packed end to end, never padded.
//!
//! The path of a model that is loaded: the [`Registry`] finds its [`Family`] by `model_type` → the family reads the
//! configuration into a [`Blueprint`] → [`Blueprint::load`] reads the weights and makes the [`Halves`] for a [`Target`]:
//! a device and a precision.
//!
//! | to add | write |
//! |---|---|
//! | an encoder of text | a file like `distilbert.rs`: an [`EncoderSpec`] and [`TensorNames`], given to [`TextEncoder`] |
//! | any other family | a file like `digits_cnn.rs`, with a [`Blueprint`] of its own |
//! | a kind of input or output | an arm of each `match` in `input.rs` or `output.rs` |
//! | a kind of device | a [`Backend`], given to [`Backends::add`] |
//!
//! A family is listed in `registry.rs`; one from another crate is passed to [`Registry::register`] instead. `README.md`
//! has the steps.

mod albert;
mod backend;
mod bert;
mod bert_like;
mod blueprint;
mod checkpoint;
mod config;
mod demand;
mod dense;
mod device;
mod digits_cnn;
mod directory;
mod distilbert;
mod electra;
mod encoder;
mod error;
mod excerpt;
mod features;
mod files;
mod gte;
mod heads;
mod inferred;
mod input;
mod json;
mod labels;
mod logit_score;
mod magika;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod norm;
mod output;
mod pickle;
mod pixels;
mod placement;
mod precision;
mod qwen3;
mod registry;
mod roberta;
mod sentence_transformers;
mod settings;
mod signature;
mod stand_in;
mod tensor;
mod text;
mod text_encoder;
mod text_tasks;
mod weights;

use std::sync::Arc;

pub use half::f16;
pub use sconce_kernels::Isa;
pub use sconce_kernels::Team;
pub use sconce_kernels::bias_gelu::GeluForm;
pub use sconce_kernels::device::DeviceError;
/// An encoder described as data, and its parts.
pub use sconce_kernels::encoder::{
    AttentionPositions, AttentionSpec, BlockSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, HeadFunction, HeadRows,
    HeadSpec, HeadStep, InnerFunction, Mask, NormKind, NormOrder, NormSpec, PositionTable, RelativeBias, Rotary,
};
pub use sconce_kernels::pooling::Pooling;

pub use backend::{
    Backend, Backends, Capability, Compute, CpuBackend, CudaBackend, Device, DeviceListing, EncoderOrder, ListedDevice,
    TensorDevice, cpu,
};
pub use blueprint::{Blueprint, Family, Halves, Target};
pub use demand::Demand;
pub use device::{DeviceName, UnknownDevice};
pub use digits_cnn::IMAGE_INPUT;
pub use directory::ModelDirectory;
pub use encoder::{BlockPart, EncoderEngine, EncoderPart, EncoderWeights, HeadTensors, TensorNames, Tokens};
pub use error::{ForwardError, InputError, LoadError};
pub use excerpt::{Excerpt, MAX_EXCERPT_BYTES, excerpt};
pub use features::{Features, Prepared};
pub use files::{ModelDigests, ModelFiles};
pub use heads::{ClassifierHead, Heads, MaskedLmHead, NamedStep, TokenClassifierHead};
pub use input::{Array, ArrayData, Input, InputKind, ParseError, TEXT_PAIR_INPUT, Truncation, Written};
pub use magika::{CONTENT_INPUT, MAX_CONTENT_BYTES};
pub use output::{
    Aggregation, Classification, ConvertedElements, ConvertedEmbedding, Entities, Entity, LabelFunction, Output,
    OutputDtype, Score, SparseVector, Task, TokenVectors, UnknownOutputDtype, VectorOptions,
};
pub use pixels::PixelsError;
pub use placement::{Placement, UnknownPlacement};
pub use precision::{Precision, UnknownPrecision};
pub use registry::{LoadOptions, Registry, Survey};
pub use settings::{
    BatchingSettings, CacheSettings, LadderSettings, ModelSettings, Settings, ShadowSettings, VectorTask,
};
pub use signature::{InputSpec, Signature};
pub use tensor::{Datatype, Elements, InputKey, InputTensor, OutputElements, OutputShape, OutputTensor};
pub use text::{MAX_TEXT_BYTES, TEXT_INPUT, TextProcessor, TextRules, TextToken};
pub use text_encoder::TextEncoder;
pub use weights::Weights;

/// The caller's side of a model: runs on any thread, in parallel with the device.
pub trait Processor: Send + Sync {
    /// Checks an input and turns it into features for the network.
    ///
    /// # Errors
    /// [`InputError`] names what is wrong with the input.
    fn prepare(&self, input: Input, truncation: Truncation) -> Result<Prepared, InputError>;

    /// True if [`finish`](Self::finish) needs the input: the answer says where in it something is.
    fn keeps_input(&self) -> bool {
        false
    }

    /// The tokenizer with its prompts, for models that read text.
    fn text(&self) -> Option<&TextProcessor> {
        None
    }

    /// Turns the network's row for one item into its typed answer. Embeddings stay `FP32`: the caller converts them to the
    /// type that the request asks for ([`Output::converted`]).
    ///
    /// # Panics
    /// If the row is not one that the network gives for such an item.
    fn finish(&self, row: Vec<f32>, of: Finishing<'_>) -> Output;
}

/// The request that an answer is finished for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Finishing<'a> {
    /// The input that the row was computed of; needed if [`Processor::keeps_input`].
    pub input: Option<&'a Input>,
    /// The elements of vectors and their length. They fit the task: [`Task::check`] refuses others.
    pub vectors: VectorOptions,
}

/// The device's side of a model: runs on one device thread.
pub trait Network: Send {
    /// Computes one row per item, in the same order: a pooled embedding, or logits.
    /// A row does not depend on the other items of the batch (to 1e-5; to the bit with the CPU's kernels).
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails or the features are of another family.
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError>;
}

/// A model in memory, in two halves that live on different threads.
pub struct LoadedModel {
    /// The model's input, output, precision and device.
    pub signature: Signature,
    /// The caller's half.
    pub processor: Arc<dyn Processor>,
    /// The device's half.
    pub network: Box<dyn Network>,
    /// The settings of the directory's `sconce.toml`, or the defaults.
    pub settings: Settings,
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModel").field("signature", &self.signature).finish_non_exhaustive()
    }
}
