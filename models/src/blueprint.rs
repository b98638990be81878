//! Families of models, and a model as its configuration describes it, before its weights are read.

use std::sync::Arc;

use crate::{Demand, Device, InputSpec, LoadError, ModelDirectory, Network, Precision, Processor, Task};

/// One kind of model, chosen by the `model_type` of a directory's `config.json`.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// The work that such models do, in a few words.
    pub summary: &'static str,
    /// Reads and checks the configuration of a model.
    pub read: fn(&ModelDirectory) -> Result<Box<dyn Blueprint>, LoadError>,
}

/// A model as its configuration describes it. Whatever can be derived is: a blueprint that says nothing else runs in f32 and is
/// expected to use each of its weights once for an item.
pub trait Blueprint {
    /// The fields of `[model]` in `sconce.toml` that such a model reads, beside `precision` and `device`: `pooling`, `normalize`,
    /// `max_tokens`, `cuda_graphs`. Others are refused.
    fn settings(&self) -> &'static [&'static str] {
        &[]
    }

    /// The precisions that the model has on a device.
    fn precisions(&self, device: &dyn Device) -> Vec<Precision> {
        _ = device;
        vec![Precision::F32]
    }

    /// The work and memory that the model asks of a device; `None`: derived from the size of its weights.
    fn demand(&self, precision: Precision) -> Option<Demand> {
        _ = precision;
        None
    }

    /// Reads the weights and makes both halves of the model. The target's precision is one of `precisions`.
    ///
    /// # Errors
    /// [`LoadError`] names the file and what is wrong with it.
    fn load(&self, directory: &ModelDirectory, target: &Target) -> Result<Halves, LoadError>;
}

/// The device and the precision of a network.
#[derive(Debug, Clone)]
pub struct Target {
    /// The device that it runs on.
    pub device: Arc<dyn Device>,
    /// The precision it is computed in.
    pub precision: Precision,
}

/// A model made by its blueprint: what it takes and gives, and the two halves that live on different threads.
pub struct Halves {
    /// What one item's input must be.
    pub input: InputSpec,
    /// What is answered for one item.
    pub task: Task,
    /// The caller's half.
    pub processor: Arc<dyn Processor>,
    /// The device's half.
    pub network: Box<dyn Network>,
}
