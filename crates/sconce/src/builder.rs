//! From directories to a running runtime.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sconce_batch::BatcherConfig;
use sconce_cache::CrossPrecision;
use sconce_models::{
    BatchingSettings, DeviceName, LoadOptions, LoadedModel, Precision, Prepared, Registry, Settings, Signature, Team,
};

use crate::cached::{AnswerKeys, FeatureKeys, FileDigests, ModelCache};
use crate::devices::Devices;
use crate::model::Placed;
use crate::prepare::{Preparation, PreparePool, PreparedInputs};
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
    cross_precision: CrossPrecision,
    max_feature_bytes: Option<NonZeroU64>,
}

/// What the models of a runtime have together.
struct Shared {
    pool: PreparePool,
    features: Option<Arc<PreparedInputs>>,
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

    /// Whether the cache may give an answer that a higher precision made, for models that say nothing of it; unset: never.
    #[must_use]
    pub fn cross_precision(mut self, policy: CrossPrecision) -> Self {
        self.cross_precision = policy;
        self
    }

    /// Keeps prepared inputs (tokens, pixels) in so many bytes of memory, so that preparing is paid once even where the answer is
    /// not cached: by the next request for the same input, by another precision of the model, and by whoever refuses a cached
    /// answer. Too small: they leave before they are asked for again. Too large: memory that answers could use.
    #[must_use]
    pub fn feature_cache(mut self, max_bytes: NonZeroU64) -> Self {
        self.max_feature_bytes = Some(max_bytes);
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
        let shared = Shared { pool: PreparePool::new(), features: self.max_feature_bytes.map(prepared_inputs) };
        let sources = self.named_sources()?;
        let mut devices = Devices::new(self.cpu_devices);
        let mut models = BTreeMap::new();
        for (name, source) in sources {
            let started = Instant::now();
            let (device, thread) = devices.place(source.device.unwrap_or(self.device))?;
            let options = LoadOptions { device, precision: source.precision, team: Arc::clone(&team) };
            let loaded = self
                .registry
                .load(&source.directory, &options)
                .map_err(|source| BuildError::Load { name: name.clone(), source: Box::new(source) })?;
            let load_time = started.elapsed();
            let Signature { parameters, precision, device, .. } = loaded.signature;
            tracing::info!(model = name, ?load_time, parameters, %precision, %device, cpu_threads, "loaded");
            let placed = self.placed(&name, source, &loaded, load_time, &shared)?;
            let model = Model::start(name.clone(), loaded, placed, thread)?;
            models.insert(name, model);
        }
        if models.is_empty() {
            return Err(BuildError::NoModel);
        }
        Ok(Runtime::new(models, cpu_threads, self.cache, shared.features))
    }

    fn placed(
        &self,
        name: &str,
        source: ModelSource,
        loaded: &LoadedModel,
        load_time: Duration,
        shared: &Shared,
    ) -> Result<Placed, BuildError> {
        let ModelSource { directory, cached, cross_precision, .. } = source;
        let LoadedModel { signature, processor, settings, .. } = loaded;
        let answers = self.cache.clone().filter(|_| cached && settings.cache.answers.unwrap_or(true));
        let files = if answers.is_some() || shared.features.is_some() {
            Some(FileDigests::read(&directory, &settings.model)?)
        } else {
            None
        };
        let policy = cross_precision.or_else(|| set_policy(settings)).unwrap_or(self.cross_precision);
        let cache = answers.zip(files).map(|(answers, files)| {
            ModelCache::new(answers, AnswerKeys::new(name, files, signature, self.precisions_of(signature), policy))
        });
        let kept = shared.features.clone().zip(files.map(|files| FeatureKeys::new(files, signature)));
        let preparation = Preparation { processor: Arc::clone(processor), pool: shared.pool.clone(), kept };
        let batching = with_settings(&self.batching, &settings.batching);
        Ok(Placed { directory, load_time, batching, preparation, cache })
    }

    /// Those that models of its family have on its device.
    fn precisions_of(&self, signature: &Signature) -> &'static [Precision] {
        let family = self.registry.family(&signature.model_type);
        // Opened before: this is the same device again.
        let device = signature.device.open().ok();
        family.zip(device).map_or(&[], |(family, device)| (family.precisions)(&device))
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

/// What a model's `sconce.toml` says of precisions that answer for each other.
fn set_policy(settings: &Settings) -> Option<CrossPrecision> {
    let higher = settings.cache.higher_precisions?;
    Some(if higher { CrossPrecision::Higher } else { CrossPrecision::Never })
}

fn prepared_inputs(max_bytes: NonZeroU64) -> Arc<PreparedInputs> {
    let weigh = |prepared: &Prepared| prepared.features.bytes();
    Arc::new(PreparedInputs::new(max_bytes.get(), weigh).expect("the bound is not zero"))
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
