//! Families of models, and blueprints: models as their configuration describes them, before their weights are read.

use std::sync::Arc;

use crate::{Demand, Device, InputSpec, LoadError, ModelDirectory, Network, Precision, Processor, Task};

/// One kind of model, chosen by the `model_type` of a directory's `config.json`.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// A description of such models in a few words, for listings.
    pub summary: &'static str,
    /// Reads and checks the configuration of a model.
    pub read: fn(&ModelDirectory) -> Result<Box<dyn Blueprint>, LoadError>,
}

/// A model as its configuration describes it. Only [`load`](Self::load) must be written. By default a model reads no
/// fields of `[model]`, runs in f32, and is expected to use each of its weights once per item.
pub trait Blueprint {
    /// The fields of `[model]` in `sconce.toml` that such a model reads beside `precision` and `device`, of `pooling`,
    /// `normalize`, `max_tokens` and `cuda_graphs`. A field that is set but not read is refused.
    fn settings(&self) -> &'static [&'static str] {
        &[]
    }

    /// The precisions that the model has on a device.
    fn precisions(&self, device: &dyn Device) -> Vec<Precision> {
        _ = device;
        vec![Precision::F32]
    }

    /// The memory and operations that the model needs; `None`: estimated from the size of its weights file.
    fn demand(&self, precision: Precision) -> Option<Demand> {
        _ = precision;
        None
    }

    /// Reads the weights and makes both halves of the model. The target's precision is one of
    /// [`precisions`](Self::precisions).
    ///
    /// # Errors
    /// [`LoadError`] names the file and what is wrong with it.
    fn load(&self, directory: &ModelDirectory, target: &Target) -> Result<Halves, LoadError>;
}

/// The device and the precision of a network.
#[derive(Debug, Clone)]
pub struct Target {
    /// The device that the network runs on.
    pub device: Arc<dyn Device>,
    /// The precision that it is computed in.
    pub precision: Precision,
}

/// A model made by its blueprint: its input and output, and the two halves that live on different threads.
pub struct Halves {
    /// The input of one item.
    pub input: InputSpec,
    /// The output for one item.
    pub task: Task,
    /// The caller's half.
    pub processor: Arc<dyn Processor>,
    /// The device's half.
    pub network: Box<dyn Network>,
}
