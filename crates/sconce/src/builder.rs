//! The builder of a runtime: takes the models to run and their settings, and loads them.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sconce_batch::{BatcherConfig, CostModel};
use sconce_cache::CrossPrecision;
use sconce_decide::AllowedSigners;
use sconce_models::{Backend, Backends, DeviceName, Placement, Prepared, Registry, Team};

use crate::devices::Devices;
use crate::loader::{Loader, LoaderSettings};
use crate::placement::Decision;
use crate::prepare::PreparedInputs;
use crate::repository::{LoadRecords, see};
use crate::served::{ByName, ServedModels};
use crate::sources::{AddedModels, Sources, VersionPolicy};
use crate::{AnswerCache, BuildError, ModelControl, ModelSource, Runtime};

/// Builds a [`Runtime`]: the models it runs, their devices, batching and caches.
#[derive(Default)]
pub struct RuntimeBuilder {
    sources: Sources,
    settings: LoaderSettings,
    backends: Vec<Arc<dyn Backend>>,
    max_device_memory: BTreeMap<DeviceName, u64>,
    cpu_threads: Option<NonZeroUsize>,
    cpu_devices: Option<NonZeroUsize>,
    max_feature_bytes: Option<NonZeroU64>,
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
        self.sources.added.push(AddedModels::Model(Box::new(source.into())));
        self
    }

    /// Adds the model in `directory` under the given name.
    #[must_use]
    pub fn named_model(self, name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        self.model(ModelSource::new(directory).name(name))
    }

    /// Adds every model in `directory`: each subdirectory that holds a `config.json` or a `modules.json`, or versions of a
    /// model, as [`versions`](Self::versions) says.
    #[must_use]
    pub fn models_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.sources.added.push(AddedModels::Directory(directory.into()));
        self
    }

    /// Adds the models that `list` returns, now and each time that models are looked for by name while the runtime runs.
    #[must_use]
    pub fn models_listed_by(
        mut self,
        list: impl Fn() -> Result<Vec<ModelSource>, Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
    ) -> Self {
        self.sources.added.push(AddedModels::Listed(Box::new(list)));
        self
    }

    /// Sets which versions of a model are served, where its directory holds several: folders whose names are numbers, each
    /// with a model, as in Triton's model repositories. Unset: the highest number alone.
    #[must_use]
    pub fn versions(mut self, policy: VersionPolicy) -> Self {
        self.sources.policy = policy;
        self
    }

    /// Sets whether clients of servers may load and unload models; unset: they may not.
    #[must_use]
    pub fn model_control(mut self, control: ModelControl) -> Self {
        self.settings.model_control = control;
        self
    }

    /// Sets whose signatures on decisions count. A model serves in a precision below f32 only if the record beside it
    /// ([`DECISION_FILE`](crate::DECISION_FILE)) allows that and is signed by the approver that its policy names, for these
    /// weights and this tokenizer, and has not expired. Unset: nobody's.
    #[must_use]
    pub fn allowed_signers(mut self, signers: AllowedSigners) -> Self {
        self.settings.decisions.signers = signers;
        self
    }

    /// Lets models serve in a precision on which nothing is decided, for experiments; metrics and answers then say
    /// `undecided`. Unset: they are refused with [`BuildError::Undecided`].
    #[must_use]
    pub fn allow_undecided(mut self, allow: bool) -> Self {
        self.settings.decisions.allow_undecided = allow;
        self
    }

    /// Replaces the built-in model families.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.settings.registry = registry;
        self
    }

    /// Sets the bounds of each model's queue and batches; a value in the model's `sconce.toml` takes precedence.
    #[must_use]
    pub fn batching(mut self, batching: BatcherConfig) -> Self {
        self.settings.batching = batching;
        self
    }

    /// Sets where models run unless their [`ModelSource`] or `sconce.toml` says otherwise: a device's name, or
    /// [`Placement::Auto`], the default.
    #[must_use]
    pub fn device(mut self, device: impl Into<Placement>) -> Self {
        self.settings.device = Some(device.into());
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

    /// Skips the small batch that each model runs before it serves, and the measuring of models that several devices serve.
    /// The first requests then wait for memory and kernels, and until enough batches have run, the device of each batch is
    /// chosen by estimates.
    #[must_use]
    pub fn without_warm_up(mut self) -> Self {
        self.settings.without_warm_up = true;
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
        self.settings.cache = Some(cache.into());
        self
    }

    /// Sets whether the cache may answer with a higher precision's result, for models that do not set it themselves;
    /// unset: never.
    #[must_use]
    pub fn cross_precision(mut self, policy: CrossPrecision) -> Self {
        self.settings.cross_precision = policy;
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
        let (devices, cpu_threads) = self.devices()?;
        let sources = self.sources.named()?;
        if sources.is_empty() {
            return Err(BuildError::NoModel);
        }
        let features = self.max_feature_bytes.map(prepared_inputs);
        let loader = Loader::new(self.settings, self.sources, devices, cpu_threads, features);
        let (mut models, mut records) = (ByName::new(), LoadRecords::default());
        let mut turn = loader.next_turn();
        for (name, sources) in sources {
            let seen = see(&sources);
            let outcome = turn.load_versions(&name, sources);
            records.end(&name, seen, outcome.as_ref().map(drop));
            match outcome {
                Ok(versions) => _ = models.insert(name, versions),
                Err(error) => on_failure(name, error)?,
            }
        }
        drop(turn);
        Ok(Runtime::new(ServedModels::new(models), loader, records))
    }

    /// Decides where each model would run, and why, as [`build`](Self::build) does, but loads nothing. Of several versions it
    /// is the highest.
    ///
    /// # Errors
    /// The errors of [`build`](Self::build), except those of loading weights.
    pub fn decide(&self) -> Result<BTreeMap<String, Decision>, BuildError> {
        let (mut devices, _) = self.devices()?;
        let decide = |(name, source): (String, ModelSource)| {
            let (decision, _) = self.settings.placer().decide(&name, &source, &mut devices)?;
            Ok((name, decision))
        };
        self.newest_sources()?.map(decide).collect()
    }

    /// Measures the cost of batches of each model: loads it on each device it could run on and runs batches there for
    /// at most `time`. Of several versions it is the highest.
    ///
    /// # Errors
    /// The errors of [`build`](Self::build), and [`BuildError::Measure`].
    pub fn measure(&self, time: Duration) -> Result<BTreeMap<String, Vec<(DeviceName, CostModel)>>, BuildError> {
        let (mut devices, _) = self.devices()?;
        let measure = |(name, source): (String, ModelSource)| {
            let measured = self.settings.placer().measure(&name, &source, &mut devices, time)?;
            Ok((name, measured))
        };
        self.newest_sources()?.map(measure).collect()
    }

    /// The source of the highest version of each model, by name.
    fn newest_sources(&self) -> Result<impl Iterator<Item = (String, ModelSource)>, BuildError> {
        let newest = |(name, mut sources): (String, BTreeMap<u64, ModelSource>)| Some((name, sources.pop_last()?.1));
        Ok(self.sources.named()?.into_iter().filter_map(newest))
    }

    /// The devices, and the number of CPU threads that compute a batch.
    fn devices(&self) -> Result<(Devices, NonZeroUsize), BuildError> {
        let team = match self.cpu_threads {
            Some(threads) => Team::new(threads).map_err(|source| BuildError::CpuThreads { threads, source })?,
            None => Team::default(),
        };
        let cpu_threads = team.threads();
        let mut backends = Backends::new(Arc::new(team));
        self.backends.iter().for_each(|backend| backends.add(Arc::clone(backend)));
        Ok((Devices::new(backends, self.cpu_devices, self.max_device_memory.clone()), cpu_threads))
    }
}

fn prepared_inputs(max_bytes: NonZeroU64) -> Arc<PreparedInputs> {
    let weigh = |prepared: &Prepared| prepared.features.bytes();
    Arc::new(PreparedInputs::new(max_bytes.get(), weigh).expect("the bound is not zero"))
}
