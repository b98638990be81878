//! Model families on candle, loaded from Hugging Face directories, each in two halves: a [`Processor`] that prepares
//! and finishes one item on the caller's thread, and a [`Network`] that runs batches on a device thread.
//!
//! ```
//! use sconce_models::{LoadOptions, Registry, Truncation};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/zoo/tiny-bert-sentiment");
//! let mut model = Registry::default().load(directory.as_ref(), &LoadOptions::default())?;
//! let prepared = model.processor.prepare("A lovely film.".into(), Truncation::Truncate)?;
//! let rows = model.network.forward(&[prepared.features])?;
//! let output = model.processor.finish(rows.into_iter().next().expect("one row per item"));
//! assert_eq!(output.classification().expect("a classifier").label(), "positive");
//! # Ok(()) }
//! ```
//!
//! The path of one item: [`Input`] → [`Processor::prepare`] (checks, tokens or pixels) → [`Features`] →
//! [`Network::forward`] in a batch (a row of numbers) → [`Processor::finish`] (normalise, softmax, labels) →
//! [`Output`]. Its row does not depend on the rest of the batch: texts are packed end to end, never padded.
//!
//! To add a family, write one file beside `digits_cnn.rs` with a [`Family`] in it, list that in `registry.rs`, ship a
//! small model in `zoo/`, and name it in `tests/zoo/main.rs`. A family from outside this crate is handed
//! to [`Registry::register`] instead.

mod backend;
mod bert;
mod blueprint;
mod config;
mod demand;
mod dense;
mod device;
mod digits_cnn;
mod directory;
mod distilbert;
mod encoder;
mod error;
mod excerpt;
mod features;
mod files;
mod input;
mod labels;
mod magika;
mod norm;
mod output;
mod pixels;
mod placement;
mod precision;
mod registry;
mod sentence_transformers;
mod settings;
mod signature;
mod tensor;
mod text;
mod text_encoder;
mod weights;

use std::sync::Arc;

pub use sconce_kernels::Isa;
pub use sconce_kernels::Team;
pub use sconce_kernels::bias_gelu::GeluForm;
pub use sconce_kernels::device::{CudaDevice, DeviceError, Version, cuda_devices, cuda_driver};
/// An encoder described as data, and its parts.
pub use sconce_kernels::encoder::{
    AttentionSpec, BlockSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, HeadFunction, HeadSpec, InnerFunction, Mask,
    NormKind, NormOrder, NormSpec, PositionTable,
};

pub use backend::{
    Backend, Backends, Capability, Compute, CpuBackend, CudaBackend, Device, EncoderOrder, TensorDevice, cpu,
};
pub use blueprint::{Blueprint, Family, Halves, Target};
pub use demand::Demand;
pub use device::{DeviceName, UnknownDevice};
pub use digits_cnn::IMAGE_INPUT;
pub use directory::ModelDirectory;
pub use encoder::{BlockPart, EncoderEngine, EncoderWeights, Part, TensorNames, Tokens};
pub use error::{ForwardError, InputError, LoadError};
pub use excerpt::{Excerpt, MAX_EXCERPT_BYTES, excerpt};
pub use features::{Features, Prepared};
pub use files::{ModelDigests, ModelFiles};
pub use input::{Array, ArrayData, Input, InputKind, ParseError, TEXT_PAIR_INPUT, Truncation};
pub use magika::{CONTENT_INPUT, MAX_CONTENT_BYTES};
pub use output::{Classification, Output, Score, Task};
pub use pixels::PixelsError;
pub use placement::{Placement, UnknownPlacement};
pub use precision::{Precision, UnknownPrecision};
pub use registry::{LoadOptions, Registry, Survey};
pub use settings::{BatchingSettings, CacheSettings, ModelSettings, Pooling, Settings};
pub use signature::{InputSpec, Signature};
pub use tensor::{Datatype, Elements, InputKey, InputTensor, OutputElements, OutputTensor};
pub use text::{MAX_TEXT_BYTES, TEXT_INPUT, TextProcessor};
pub use text_encoder::TextEncoder;
pub use weights::Weights;

/// The caller's side of a model: runs on any thread, in parallel with the device.
pub trait Processor: Send + Sync {
    /// Checks an input and makes it ready for the network.
    ///
    /// # Errors
    /// [`InputError`] names what is wrong with the input.
    fn prepare(&self, input: Input, truncation: Truncation) -> Result<Prepared, InputError>;

    /// Turns the network's row for one item into its typed answer.
    fn finish(&self, row: Vec<f32>) -> Output;
}

/// The device's side of a model: runs on one device thread.
pub trait Network: Send {
    /// One row per item, in the same order: a pooled embedding, or logits.
    /// A row does not depend on the other items of the batch (to 1e-5).
    ///
    /// # Errors
    /// [`ForwardError`] if the device fails or the features are of another family.
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError>;
}

/// A model in memory, in two halves that live on different threads.
pub struct LoadedModel {
    /// What it takes and gives.
    pub signature: Signature,
    /// The caller's half.
    pub processor: Arc<dyn Processor>,
    /// The device's half.
    pub network: Box<dyn Network>,
    /// What the directory's `sconce.toml` sets, or the defaults.
    pub settings: Settings,
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModel").field("signature", &self.signature).finish_non_exhaustive()
    }
}
