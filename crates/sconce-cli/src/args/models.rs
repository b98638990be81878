//! Flags that say which models to load, and what they are computed with.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use sconce::{ModelSource, Placement, Precision, RuntimeBuilder};

use super::decisions::DecisionArgs;
use super::numbers::positive;
use crate::device_memory::DeviceMemoryArg;
use crate::error::Error;
use crate::models_path::{FoundModel, ModelsPath};

/// The way one model is found and computed.
#[derive(Debug, clap::Args)]
pub(crate) struct OneModelArgs {
    /// Compute in `f32`, `f16`, `bf16`, `int8`, `q8_0` or `q4k` [default: by the model's sconce.toml, else `f32`]
    ///
    /// `int8` is faster and smaller on the CPU than `f32`; `q8_0` and `q4k` save memory, not time; `f16` and `bf16` are
    /// for GPUs. `sconce models` lists the precisions of each model; any other is refused.
    #[arg(long, value_name = "PRECISION")]
    pub(crate) precision: Option<Precision>,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,

    #[command(flatten)]
    pub(crate) models: ModelsPathArgs,
}

/// The directories in which models are looked for.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelsPathArgs {
    /// A directory of model directories; repeatable, the first match wins [default: see `sconce --help`]
    #[arg(long = "models", value_name = "DIR")]
    pub(crate) directories: Vec<PathBuf>,
}

/// The devices, memory and threads that models are computed with.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ComputeArgs {
    /// Run on `cpu`, on the GPU `cuda:N`, or `auto`: each batch on the device that completes it first [default: by the
    /// model's sconce.toml, else `auto`]
    ///
    /// `sconce devices` lists the devices, and `sconce explain MODEL` says which of them `auto` uses. Batches that a
    /// GPU cannot run, because it is out of memory or lost, run on the CPU.
    #[arg(long, value_name = "DEVICE", env = "SCONCE_DEVICE")]
    pub(crate) device: Option<Placement>,

    /// Memory that models may take on a device, in MiB or with a unit: `cuda:0=8192`, `cuda:0=8GiB`; repeatable
    /// [default: most of the free memory of a GPU, no bound on the CPU]
    ///
    /// When a model does not fit, the model that was used longest ago is unloaded, and loaded again when it is needed.
    #[arg(long, value_name = "DEVICE=SIZE")]
    pub(crate) device_memory: Vec<DeviceMemoryArg>,

    /// CPU threads that compute one batch, shared by all models [default: one per core]
    #[arg(long = "cpu-threads", value_name = "THREADS", env = "SCONCE_CPU_THREADS", value_parser = positive::<NonZeroUsize>)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Batches that run on the CPU at a time; with fewer than models, models take turns [default: one per model]
    #[arg(long = "cpu-devices", value_name = "BATCHES", env = "SCONCE_CPU_DEVICES", value_parser = positive::<NonZeroUsize>)]
    pub(crate) devices: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) decisions: DecisionArgs,
}

impl OneModelArgs {
    /// The name and source of the model that `model` names: a name on the models path, or a directory.
    pub(crate) fn find(&self, model: &str) -> Result<(String, ModelSource), Error> {
        let FoundModel { name, directory } = ModelsPath::new(&self.models).find(model)?;
        let source = ModelSource::new(directory).name(name.clone());
        Ok((name, ModelSource { precision: self.precision, device: self.compute.device, ..source }))
    }
}

impl ComputeArgs {
    pub(crate) fn apply(&self, builder: RuntimeBuilder) -> RuntimeBuilder {
        let builder = self.device_memory.iter().copied().fold(builder, |builder, bound| bound.apply(builder));
        let builder = self.decisions.apply(builder);
        let builder = match self.threads {
            Some(threads) => builder.cpu_threads(threads),
            None => builder,
        };
        match self.devices {
            Some(devices) => builder.cpu_devices(devices),
            None => builder,
        }
    }
}
