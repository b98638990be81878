//! Loads models into a runtime, at its start and while it runs, one after the other.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sconce_batch::BatcherConfig;
use sconce_cache::CrossPrecision;
use sconce_models::{Placement, Precision, Registry, Settings, Signature};

use crate::cached::{AnswerKeys, FeatureKeys, FileDigests, ModelCache};
use crate::decisions::DecisionRules;
use crate::devices::Devices;
use crate::model::ModelParts;
use crate::placing::{PlacedModel, PlacedRungs, Placer};
use crate::prepare::{Preparation, PreparePool, PreparedInputs};
use crate::sources::Sources;
use crate::{AnswerCache, BuildError, Model, ModelControl, ModelSource, RepositoryError};

/// Loads models onto the devices of a runtime.
pub(crate) struct Loader {
    pub(crate) settings: LoaderSettings,
    sources: Mutex<Sources>,
    pub(crate) cpu_threads: NonZeroUsize,
    pub(crate) pool: PreparePool,
    pub(crate) features: Option<Arc<PreparedInputs>>,
    devices: Mutex<Devices>,
    /// Number of callers that wait for their turn.
    waiting: AtomicUsize,
}

/// Callers that may wait for their turn to load or unload. Each holds a thread.
const MAX_WAITING: usize = 32;

/// Settings of models that neither their sources nor their `sconce.toml` make.
#[derive(Default)]
pub(crate) struct LoaderSettings {
    pub(crate) registry: Registry,
    pub(crate) batching: BatcherConfig,
    pub(crate) device: Option<Placement>,
    pub(crate) without_warm_up: bool,
    pub(crate) cache: Option<Arc<AnswerCache>>,
    pub(crate) cross_precision: CrossPrecision,
    pub(crate) model_control: ModelControl,
    pub(crate) decisions: DecisionRules,
}

/// The right to load models, which one caller has at a time.
pub(crate) struct LoadingTurn<'a> {
    loader: &'a Loader,
    devices: MutexGuard<'a, Devices>,
}

impl LoaderSettings {
    pub(crate) fn placer(&self) -> Placer<'_> {
        Placer {
            registry: &self.registry,
            batching: &self.batching,
            device: self.device,
            warm_up: !self.without_warm_up,
            decisions: &self.decisions,
        }
    }
}

impl Loader {
    pub(crate) fn new(
        settings: LoaderSettings,
        sources: Sources,
        devices: Devices,
        cpu_threads: NonZeroUsize,
        features: Option<Arc<PreparedInputs>>,
    ) -> Self {
        let (sources, devices, waiting) = (Mutex::new(sources), Mutex::new(devices), AtomicUsize::new(0));
        Self { settings, sources, cpu_threads, pool: PreparePool::new(), features, devices, waiting }
    }

    /// Waits until no other caller loads. Blocks.
    ///
    /// # Errors
    /// [`RepositoryError::TooManyWait`] if too many wait.
    pub(crate) fn turn(&self) -> Result<LoadingTurn<'_>, RepositoryError> {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let turn = (waiting < MAX_WAITING).then(|| self.next_turn());
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        turn.ok_or(RepositoryError::TooManyWait { max: MAX_WAITING })
    }

    /// Waits until no other caller loads, however many wait. Blocks.
    pub(crate) fn next_turn(&self) -> LoadingTurn<'_> {
        LoadingTurn { loader: self, devices: self.devices.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    pub(crate) fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the device threads end once the queues are closed and empty.
    pub(crate) fn end(&self) {
        self.next_turn().devices.end();
    }

    fn parts(
        &self,
        name: &str,
        version: u64,
        source: ModelSource,
        placed: &PlacedRungs,
        load_time: Duration,
    ) -> Result<ModelParts, BuildError> {
        let ModelSource { directory, cached, cross_precision, .. } = source;
        let PlacedModel { signature, processor, settings, files, .. } = &placed.rungs[placed.plan.home];
        let answers = self.settings.cache.clone().filter(|_| cached && settings.cache.answers.unwrap_or(true));
        let files = if answers.is_some() || self.features.is_some() {
            let digests = FileDigests::of(files, &settings.model);
            Some(digests.map_err(|source| BuildError::Digest { directory: directory.clone(), source })?)
        } else {
            None
        };
        let policy = cross_precision.or_else(|| set_policy(settings)).unwrap_or(self.settings.cross_precision);
        let cache_of = |PlacedModel { signature, instances, .. }: &PlacedModel| {
            let (answers, files) = answers.clone().zip(files)?;
            let classes = instances.iter().map(|instance| instance.class.clone());
            let precisions: Vec<Precision> =
                instances.iter().flat_map(|instance| instance.precisions.clone()).collect();
            Some(ModelCache::new(answers, AnswerKeys::new(name, files, signature, classes, &precisions, policy)))
        };
        let caches = placed.rungs.iter().map(cache_of).collect();
        let kept = self.features.clone().zip(files.map(|files| FeatureKeys::new(files, signature)));
        let preparation = Preparation { processor: Arc::clone(processor), pool: self.pool.clone(), kept };
        Ok(ModelParts { version, directory, load_time, preparation, caches })
    }
}

impl LoadingTurn<'_> {
    /// Loads a version of a model and starts its queue.
    pub(crate) fn load(&mut self, name: &str, version: u64, source: ModelSource) -> Result<Model, BuildError> {
        let (started, loader) = (Instant::now(), self.loader);
        let placed = loader.settings.placer().place_rungs(name, &source, &mut self.devices)?;
        let load_time = started.elapsed();
        for placed_model in &placed.rungs {
            let Signature { parameters, precision, .. } = placed_model.signature;
            let (device, cpu_threads) = (names(placed_model), loader.cpu_threads);
            tracing::info!(model = name, version, ?load_time, parameters, %precision, device, cpu_threads, "loaded");
        }
        let given = loader.parts(name, version, source, &placed, load_time)?;
        Model::start(name.to_owned(), placed, given, &self.devices)
    }

    /// Loads every version of a model, or none.
    pub(crate) fn load_versions(
        &mut self,
        name: &str,
        sources: BTreeMap<u64, ModelSource>,
    ) -> Result<BTreeMap<u64, Model>, BuildError> {
        sources.into_iter().map(|(version, source)| Ok((version, self.load(name, version, source)?))).collect()
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
