//! From directories to a running runtime.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sconce_batch::BatcherConfig;
use sconce_models::{BatchingSettings, DeviceName, LoadOptions, Registry, Signature, Team};

use crate::cached::ModelCache;
use crate::devices::Devices;
use crate::model::Placed;
use crate::prepare::PreparePool;
use crate::{AnswerCache, BuildError, Model, ModelSource, Runtime};

/// Says which models a [`Runtime`] runs and how.
#[derive(Default)]
pub struct RuntimeBuilder {
    sources: Vec<Source>,
    registry: Registry,
    batching: BatcherConfig,
    device: DeviceName,
    cpu_threads: Option<NonZeroUsize>,
    cpu_devices: Option<NonZeroUsize>,
    cache: Option<Arc<AnswerCache>>,
}

enum Source {
    Model(ModelSource),
    /// A directory of model directories.
    Directory(PathBuf),
}

impl RuntimeBuilder {
    /// Adds a model: its directory, whose last component names it, or a [`ModelSource`] that says more.
    #[must_use]
    pub fn model(mut self, source: impl Into<ModelSource>) -> Self {
        self.sources.push(Source::Model(source.into()));
        self
    }

    /// Adds the model in `directory` under another name.
    #[must_use]
    pub fn named_model(self, name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        self.model(ModelSource::new(directory).name(name))
    }

    /// Adds every model in `directory`: each subdirectory that holds a `config.json`.
    #[must_use]
    pub fn models_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::Directory(directory.into()));
        self
    }

    /// Replaces the built-in model families.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Bounds of each model's queue and batches, where its `sconce.toml` sets nothing else.
    #[must_use]
    pub fn batching(mut self, batching: BatcherConfig) -> Self {
        self.batching = batching;
        self
    }

    /// Where models run whose [`ModelSource`] says nothing else; unset: the CPU.
    #[must_use]
    pub fn device(mut self, device: DeviceName) -> Self {
        self.device = device;
        self
    }

    /// CPU threads that compute one batch, shared by all models; unset: one for each core that the process may use.
    /// More than there are cores take turns and gain nothing; fewer leave cores to others.
    #[must_use]
    pub fn cpu_threads(mut self, threads: NonZeroUsize) -> Self {
        self.cpu_threads = Some(threads);
        self
    }

    /// Batches that run at a time on the CPU; unset: one of each model, among which the operating system shares the cores, so
    /// that a long batch of one model does not hold up the short ones of another. Fewer: models take turns on so many device
    /// threads, each model the same share of the time, and a batch that runs has its cores to itself.
    #[must_use]
    pub fn cpu_devices(mut self, devices: NonZeroUsize) -> Self {
        self.cpu_devices = Some(devices);
        self
    }

    /// Keeps answers, and computes what is asked for several times at once only once. Models that a [`ModelSource`] excepts, and
    /// requests that are [`uncached`](crate::Request::uncached), go past it. To be given within a tokio runtime if callers that
    /// block are to use it, too.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<Arc<AnswerCache>>) -> Self {
        self.cache = Some(cache.into());
        self
    }

    /// Loads the models, one after the other, and starts the device threads.
    ///
    /// # Errors
    /// [`BuildError`] for the first model that does not load, a device that cannot be used, a name taken twice, a value out of bounds, or no model.
    pub fn build(self) -> Result<Runtime, BuildError> {
        let team = match self.cpu_threads {
            Some(threads) => Team::new(threads).map_err(|source| BuildError::CpuThreads { threads, source })?,
            None => Team::default(),
        };
        let cpu_threads = team.threads();
        let team = Arc::new(team);
        let pool = PreparePool::new();
        let sources = self.named_sources()?;
        let mut devices = Devices::new(self.cpu_devices);
        let mut models = BTreeMap::new();
        for (name, ModelSource { directory, precision, device, cached, .. }) in sources {
            let started = Instant::now();
            let (device, thread) = devices.place(device.unwrap_or(self.device))?;
            let loaded = self
                .registry
                .load(&directory, &LoadOptions { device, precision, team: Arc::clone(&team) })
                .map_err(|source| BuildError::Load { name: name.clone(), source: Box::new(source) })?;
            let batching = with_settings(&self.batching, &loaded.settings.batching);
            let load_time = started.elapsed();
            let Signature { parameters, precision, device, .. } = loaded.signature;
            tracing::info!(model = name, ?load_time, parameters, %precision, %device, cpu_threads, "loaded");
            let answers = self.cache.clone().filter(|_| cached);
            let cache =
                answers.map(|answers| ModelCache::new(answers, &name, &directory, precision, device)).transpose()?;
            let placed = Placed { directory, load_time, batching, pool: pool.clone(), cache };
            let model = Model::start(name.clone(), loaded, placed, thread)?;
            models.insert(name, model);
        }
        if models.is_empty() {
            return Err(BuildError::NoModel);
        }
        Ok(Runtime::new(models, cpu_threads, self.cache))
    }

    /// Every model by its name, before anything is loaded: a clash is found in no time.
    fn named_sources(&self) -> Result<BTreeMap<String, ModelSource>, BuildError> {
        let mut named = BTreeMap::new();
        let mut add = |source: ModelSource| {
            let name = source.name.clone().map_or_else(|| last_component(&source.directory), Ok)?;
            let second = source.directory.clone();
            match named.insert(name.clone(), source) {
                None => Ok(()),
                Some(ModelSource { directory: first, .. }) => Err(BuildError::DuplicateName { name, first, second }),
            }
        };
        for source in &self.sources {
            match source {
                Source::Model(source) => add(source.clone())?,
                Source::Directory(path) => {
                    model_directories(path)?.into_iter().map(ModelSource::new).try_for_each(&mut add)?;
                }
            }
        }
        Ok(named)
    }
}

fn model_directories(path: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let failed = |source| BuildError::List { path: path.to_owned(), source };
    let mut directories = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let directory = entry.map_err(failed)?.path();
        if directory.join("config.json").is_file() {
            directories.push(directory);
        }
    }
    Ok(directories)
}

fn last_component(directory: &Path) -> Result<String, BuildError> {
    directory
        .file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
        .ok_or_else(|| BuildError::NoName { path: directory.to_owned() })
}

/// What a model's `sconce.toml` sets goes before the runtime's defaults.
fn with_settings(defaults: &BatcherConfig, settings: &BatchingSettings) -> BatcherConfig {
    let BatchingSettings {
        max_batch_size,
        max_batch_weight,
        max_queue_size,
        max_queue_weight,
        max_queue_delay_us,
        priority_ageing_ms,
    } = *settings;
    BatcherConfig {
        max_batch_size: max_batch_size.unwrap_or(defaults.max_batch_size),
        max_batch_weight: max_batch_weight.unwrap_or(defaults.max_batch_weight),
        max_queue_size: max_queue_size.unwrap_or(defaults.max_queue_size),
        max_queue_weight: max_queue_weight.unwrap_or(defaults.max_queue_weight),
        max_queue_delay: max_queue_delay_us.map_or(defaults.max_queue_delay, Duration::from_micros),
        priority_ageing: priority_ageing_ms.map_or(defaults.priority_ageing, Duration::from_millis),
    }
}
