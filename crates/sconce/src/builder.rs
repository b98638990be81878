//! The builder of a runtime: finds the model directories, loads the models and starts their queues.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sconce_batch::{BatcherConfig, CostModel};
use sconce_cache::CrossPrecision;
use sconce_models::{
    Backend, Backends, DeviceName, ModelDirectory, Placement, Precision, Prepared, Registry, Settings, Signature, Team,
};

use crate::cached::{AnswerKeys, FeatureKeys, FileDigests, ModelCache};
use crate::devices::Devices;
use crate::model::ModelParts;
use crate::placement::Decision;
use crate::placing::{PlacedModel, Placer};
use crate::prepare::{Preparation, PreparePool, PreparedInputs};
use crate::{AnswerCache, BuildError, Model, ModelSource, Runtime};

/// Builds a [`Runtime`]: the models it runs, their devices, batching and caches.
#[derive(Default)]
pub struct RuntimeBuilder {
    sources: Vec<AddedModels>,
    registry: Registry,
    batching: BatcherConfig,
    device: Option<Placement>,
    backends: Vec<Arc<dyn Backend>>,
    max_device_memory: BTreeMap<DeviceName, u64>,
    without_warm_up: bool,
    cpu_threads: Option<NonZeroUsize>,
    cpu_devices: Option<NonZeroUsize>,
    cache: Option<Arc<AnswerCache>>,
    cross_precision: CrossPrecision,
    max_feature_bytes: Option<NonZeroU64>,
}

/// Parts that all models of a runtime share.
struct SharedParts {
    cpu_threads: NonZeroUsize,
    pool: PreparePool,
    features: Option<Arc<PreparedInputs>>,
}

/// Models added to the builder, one or many at a time.
enum AddedModels {
    Model(ModelSource),
    /// A directory that holds model directories.
    Directory(PathBuf),
}

impl Runtime {
    /// Starts a builder, which takes the models to run and their settings.
    #[must_use]
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }
}

impl RuntimeBuilder {
    /// Adds a model: a directory, whose last component becomes the model's name, or a [`ModelSource`] with more settings.
    #[must_use]
    pub fn model(mut self, source: impl Into<ModelSource>) -> Self {
        self.sources.push(AddedModels::Model(source.into()));
        self
    }

    /// Adds the model in `directory` under the given name.
    #[must_use]
    pub fn named_model(self, name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        self.model(ModelSource::new(directory).name(name))
    }

    /// Adds every model in `directory`: each subdirectory that holds a `config.json` or a `modules.json`.
    #[must_use]
    pub fn models_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.sources.push(AddedModels::Directory(directory.into()));
        self
    }

    /// Replaces the built-in model families.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Sets the bounds of each model's queue and batches; a value in the model's `sconce.toml` takes precedence.
    #[must_use]
    pub fn batching(mut self, batching: BatcherConfig) -> Self {
        self.batching = batching;
        self
    }

    /// Sets where models run unless their [`ModelSource`] or `sconce.toml` says otherwise: a device's name, or
    /// [`Placement::Auto`], the default.
    #[must_use]
    pub fn device(mut self, device: impl Into<Placement>) -> Self {
        self.device = Some(device.into());
        self
    }

    /// Adds a kind of device, replacing the one of the same name if there is one. The CPU and CUDA need not be added.
    #[must_use]
    pub fn backend(mut self, backend: impl Backend + 'static) -> Self {
        self.backends.push(Arc::new(backend));
        self
    }

    /// Sets the bytes that models may take on a device; unset: nine tenths of the free memory of a GPU, no bound on the
    /// CPU. Weights count, and the memory of the heaviest batch once for each batch that may run at the same time: one
    /// on a GPU; on the CPU one for each model, or [`cpu_devices`](Self::cpu_devices). When a model does not fit, the
    /// least recently used one is unloaded; it is loaded again at its next request. Too small: models are loaded again
    /// and again. Too large: the device runs out of memory, batches are halved, and models fall back to the CPU.
    #[must_use]
    pub fn device_memory(mut self, device: DeviceName, max_bytes: NonZeroU64) -> Self {
        self.max_device_memory.insert(device, max_bytes.get());
        self
    }

    /// Skips the measuring of models that several devices serve. Until enough batches have run, the device of each
    /// batch is chosen by estimates.
    #[must_use]
    pub fn without_warm_up(mut self) -> Self {
        self.without_warm_up = true;
        self
    }

    /// Sets the CPU threads that compute one batch, shared by all models; unset: one for each core that the process may
    /// use. More threads than cores take turns and gain nothing; fewer leave cores to other processes.
    #[must_use]
    pub fn cpu_threads(mut self, threads: NonZeroUsize) -> Self {
        self.cpu_threads = Some(threads);
        self
    }

    /// Sets how many batches run at a time on the CPU; unset: one of each model. The operating system then shares the
    /// cores, so a long batch of one model does not delay the short ones of another. Fewer: models take turns on that
    /// many device threads, each with an equal share of the time, and fewer batches compete for the cores.
    #[must_use]
    pub fn cpu_devices(mut self, devices: NonZeroUsize) -> Self {
        self.cpu_devices = Some(devices);
        self
    }

    /// Caches answers, and computes concurrent identical requests once. Models whose [`ModelSource`] is
    /// [`uncached`](ModelSource::uncached) and requests that are [`uncached`](crate::Request::uncached) bypass the cache.
    /// Blocking callers use it only if [`build`](Self::build) is called within a tokio runtime.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<Arc<AnswerCache>>) -> Self {
        self.cache = Some(cache.into());
        self
    }

    /// Sets whether the cache may answer with a higher precision's result, for models that do not set it themselves;
    /// unset: never.
    #[must_use]
    pub fn cross_precision(mut self, policy: CrossPrecision) -> Self {
        self.cross_precision = policy;
        self
    }

    /// Keeps prepared inputs (tokens, pixels) in at most `max_bytes` of memory. The next request for the same input,
    /// another precision of the model and an uncached request then skip preparing, even if no answer is cached. Too
    /// small: entries are evicted before they are used again. Too large: memory is taken from the cache of answers.
    #[must_use]
    pub fn feature_cache(mut self, max_bytes: NonZeroU64) -> Self {
        self.max_feature_bytes = Some(max_bytes);
        self
    }

    /// Loads the models, one after the other, and starts the device threads.
    ///
    /// # Errors
    /// [`BuildError`] for the first model that does not load, a device that cannot be used, a name taken twice, a value
    /// out of bounds, or no model.
    pub fn build(self) -> Result<Runtime, BuildError> {
        self.build_models(|_, error| Err(error))
    }

    /// Does the same as [`build`](Self::build), but goes on without models that do not load. Returns the runtime,
    /// possibly without any model, and the error of each model that did not load, by name.
    ///
    /// # Errors
    /// [`BuildError`] for errors that concern all models: a value out of bounds, a name taken twice, no model.
    pub fn build_what_loads(self) -> Result<(Runtime, BTreeMap<String, BuildError>), BuildError> {
        let mut failed = BTreeMap::new();
        let runtime = self.build_models(|name, error| {
            failed.insert(name, error);
            Ok(())
        })?;
        Ok((runtime, failed))
    }

    /// Loads and starts all models. `on_failure` decides whether to go on without a model that does not load.
    fn build_models(
        self,
        mut on_failure: impl FnMut(String, BuildError) -> Result<(), BuildError>,
    ) -> Result<Runtime, BuildError> {
        let (placer, mut devices, cpu_threads) = self.placer()?;
        let shared = SharedParts {
            cpu_threads,
            pool: PreparePool::new(),
            features: self.max_feature_bytes.map(prepared_inputs),
        };
        let sources = self.named_sources()?;
        if sources.is_empty() {
            return Err(BuildError::NoModel);
        }
        let mut models = BTreeMap::new();
        for (name, source) in sources {
            match self.start_model(&name, source, &placer, &mut devices, &shared) {
                Ok(model) => _ = models.insert(name, model),
                Err(error) => on_failure(name, error)?,
            }
        }
        Ok(Runtime::new(models, cpu_threads, self.cache, shared.features, shared.pool))
    }

    /// Loads a model and starts its queue.
    fn start_model(
        &self,
        name: &str,
        source: ModelSource,
        placer: &Placer<'_>,
        devices: &mut Devices,
        shared: &SharedParts,
    ) -> Result<Model, BuildError> {
        let started = Instant::now();
        let placed_model = placer.place(name, &source, devices)?;
        let load_time = started.elapsed();
        let Signature { parameters, precision, .. } = placed_model.signature;
        let (device, cpu_threads) = (names(&placed_model), shared.cpu_threads);
        tracing::info!(model = name, ?load_time, parameters, %precision, device, cpu_threads, "loaded");
        let given = self.parts(name, source, &placed_model, load_time, shared)?;
        Model::start(name.to_owned(), placed_model, given, devices)
    }

    /// Decides where each model would run, and why, as [`build`](Self::build) does, but loads nothing.
    ///
    /// # Errors
    /// The errors of [`build`](Self::build), except those of loading weights.
    pub fn decide(&self) -> Result<BTreeMap<String, Decision>, BuildError> {
        let (placer, mut devices, _) = self.placer()?;
        let sources = self.named_sources()?;
        let decide = |(name, source): (String, ModelSource)| {
            let (decision, _) = placer.decide(&name, &source, &mut devices)?;
            Ok((name, decision))
        };
        sources.into_iter().map(decide).collect()
    }

    /// Measures the cost of batches of each model: loads it on each device it could run on and runs batches there for
    /// at most `time`.
    ///
    /// # Errors
    /// The errors of [`build`](Self::build), and [`BuildError::Measure`].
    pub fn measure(&self, time: Duration) -> Result<BTreeMap<String, Vec<(DeviceName, CostModel)>>, BuildError> {
        let (placer, mut devices, _) = self.placer()?;
        let sources = self.named_sources()?;
        let measure = |(name, source): (String, ModelSource)| {
            let measured = placer.measure(&name, &source, &mut devices, time)?;
            Ok((name, measured))
        };
        sources.into_iter().map(measure).collect()
    }

    /// The placer, the devices, and the number of CPU threads that compute a batch.
    fn placer(&self) -> Result<(Placer<'_>, Devices, NonZeroUsize), BuildError> {
        let team = match self.cpu_threads {
            Some(threads) => Team::new(threads).map_err(|source| BuildError::CpuThreads { threads, source })?,
            None => Team::default(),
        };
        let cpu_threads = team.threads();
        let mut backends = Backends::new(Arc::new(team));
        self.backends.iter().for_each(|backend| backends.add(Arc::clone(backend)));
        let devices = Devices::new(backends, self.cpu_devices, self.max_device_memory.clone());
        let placer = Placer {
            registry: &self.registry,
            batching: &self.batching,
            device: self.device,
            warm_up: !self.without_warm_up,
        };
        Ok((placer, devices, cpu_threads))
    }

    fn parts(
        &self,
        name: &str,
        source: ModelSource,
        placed_model: &PlacedModel,
        load_time: Duration,
        shared: &SharedParts,
    ) -> Result<ModelParts, BuildError> {
        let ModelSource { directory, cached, cross_precision, .. } = source;
        let PlacedModel { signature, processor, settings, files, instances, .. } = placed_model;
        let answers = self.cache.clone().filter(|_| cached && settings.cache.answers.unwrap_or(true));
        let files = if answers.is_some() || shared.features.is_some() {
            let digests = FileDigests::of(files, &settings.model);
            Some(digests.map_err(|source| BuildError::Digest { directory: directory.clone(), source })?)
        } else {
            None
        };
        let policy = cross_precision.or_else(|| set_policy(settings)).unwrap_or(self.cross_precision);
        let cache = answers.zip(files).map(|(answers, files)| {
            let classes = instances.iter().map(|instance| instance.class.clone());
            let precisions: Vec<Precision> =
                instances.iter().flat_map(|instance| instance.precisions.clone()).collect();
            ModelCache::new(answers, AnswerKeys::new(name, files, signature, classes, &precisions, policy))
        });
        let kept = shared.features.clone().zip(files.map(|files| FeatureKeys::new(files, signature)));
        let preparation = Preparation { processor: Arc::clone(processor), pool: shared.pool.clone(), kept };
        Ok(ModelParts { directory, load_time, preparation, cache })
    }

    /// Every model's source by its name. Called before anything is loaded, so a name taken twice is reported at once.
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
                AddedModels::Model(source) => add(source.clone())?,
                AddedModels::Directory(path) => {
                    model_directories(path)?.into_iter().map(ModelSource::new).try_for_each(&mut add)?;
                }
            }
        }
        Ok(named)
    }
}

/// Names of a model's devices, for the log.
fn names(placed_model: &PlacedModel) -> String {
    placed_model.instances.iter().map(|instance| instance.device.to_string()).collect::<Vec<_>>().join(", ")
}

/// The policy on answers of higher precisions in a model's `sconce.toml`, if it sets one.
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
        if ModelDirectory::is_at(&directory) {
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
