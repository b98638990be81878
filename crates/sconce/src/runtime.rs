//! The runtime: several models by name, with a shared cache and an orderly shutdown.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sconce_cache::FeatureStats;
use tokio::sync::watch;

use crate::draining::{Draining, InFlight};
use crate::loader::Loader;
use crate::metrics::{PreparedInputMetrics, PreparingMetrics, TierMetrics, resident_bytes};
use crate::repository::LoadRecords;
use crate::served::ServedModels;
use crate::{AnswerCache, Degradation, Model, ModelControl, RuntimeMetrics, UnknownModel};

/// Time that a shutdown gives the cache's tiers to write the answers that are still pending.
const CACHE_DEADLINE: Duration = Duration::from_secs(5);

/// Models by name, each with its queue and its devices. Clones share them.
///
/// When the last clone of the runtime and of every [`Model`] is dropped, the queued requests are still answered and the
/// device threads end by themselves; [`shutdown`](Self::shutdown) also waits for the threads.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) served: Arc<ServedModels>,
    pub(crate) loader: Arc<Loader>,
    pub(crate) records: Arc<Mutex<LoadRecords>>,
    started: Instant,
    draining: Arc<Draining>,
}

impl Runtime {
    pub(crate) fn new(served: ServedModels, loader: Loader, records: LoadRecords) -> Self {
        let (served, loader, records) = (Arc::new(served), Arc::new(loader), Arc::new(Mutex::new(records)));
        Self { served, loader, records, started: Instant::now(), draining: Arc::default() }
    }

    /// The model named `name`: of several versions the highest.
    ///
    /// # Errors
    /// [`UnknownModel`] if no model has that name; it lists the names of all models.
    pub fn model(&self, name: &str) -> Result<Model, UnknownModel> {
        self.served.newest(name)
    }

    /// The versions of the model named `name` that are served, by their numbers.
    ///
    /// # Errors
    /// [`UnknownModel`] if no model has that name; it lists the names of all models.
    pub fn model_versions(&self, name: &str) -> Result<BTreeMap<u64, Model>, UnknownModel> {
        self.served.versions(name)
    }

    /// All models, in the order of their names: of several versions the highest.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        self.served.all().values().filter_map(|versions| versions.values().next_back()).cloned().collect()
    }

    /// All versions of all models, in the order of their names.
    #[must_use]
    pub fn all_versions(&self) -> Vec<Model> {
        self.served.all().values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// The number of times that models were loaded, replaced or unloaded since the runtime was built; its receiver can wait
    /// for the next.
    #[must_use]
    pub fn model_changes(&self) -> watch::Receiver<u64> {
        self.served.changes()
    }

    /// The right of a server's clients to load and unload models.
    #[must_use]
    pub fn model_control(&self) -> ModelControl {
        self.loader.settings.model_control
    }

    /// CPU threads that compute one batch, shared by all models.
    #[must_use]
    pub fn cpu_threads(&self) -> NonZeroUsize {
        self.loader.cpu_threads
    }

    /// The cache of answers, if the runtime has one, with the statistics of each tier.
    #[must_use]
    pub fn cache(&self) -> Option<&AnswerCache> {
        self.loader.settings.cache.as_deref()
    }

    /// Statistics of the cache of prepared inputs, if the runtime has one.
    #[must_use]
    pub fn feature_stats(&self) -> Option<FeatureStats> {
        self.loader.features.as_ref().map(|features| features.stats())
    }

    /// The figures of the runtime, its models and its process right now.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    /// let runtime = sconce::Runtime::builder().model(zoo.join("tiny-bert-sentiment")).build()?;
    /// runtime.model("tiny-bert-sentiment")?.infer("What a wonderful day!").await?;
    ///
    /// let metrics = runtime.metrics();
    /// let model = &metrics.models[0];
    /// assert_eq!((model.succeeded, model.queue.items), (1, 0));
    /// assert!(model.latency.request.quantile(0.99) >= model.latency.run.quantile(0.99));
    /// assert!(model.degradations.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn metrics(&self) -> RuntimeMetrics {
        let (prepare_threads, prepare_threads_busy) = self.loader.pool.threads();
        RuntimeMetrics {
            uptime: self.started.elapsed(),
            in_flight: self.in_flight(),
            draining: self.is_draining(),
            models: self.all_versions().iter().map(Model::metrics).collect(),
            tiers: self.cache().iter().flat_map(|cache| cache.stats().tiers).map(TierMetrics::from).collect(),
            prepared_inputs: self.feature_stats().map(PreparedInputMetrics::from),
            preparing: PreparingMetrics {
                threads: prepare_threads,
                running: prepare_threads_busy,
                busy: self.loader.pool.busy(),
            },
            resident_bytes: resident_bytes(),
        }
    }

    /// The stages of all models that are slower than they were under the same conditions, and the shares that are
    /// larger, each with its model.
    #[must_use]
    pub fn degradations(&self) -> Vec<(Model, Degradation)> {
        let of = |model: Model| model.degradations().into_iter().map(move |it| (model.clone(), it));
        self.all_versions().into_iter().flat_map(of).collect()
    }

    /// Tells servers that the runtime is about to stop: from now on [`is_draining`](Self::is_draining) is true.
    /// Requests are still answered; a server reports that it is not ready and stops accepting connections.
    ///
    /// The order of stopping: `start_draining`, stop accepting, [`idle`](Self::idle), [`shutdown`](Self::shutdown).
    pub fn start_draining(&self) {
        self.draining.start();
    }

    /// Returns true once [`start_draining`](Self::start_draining) was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.has_started()
    }

    /// Waits until [`start_draining`](Self::start_draining) is called.
    pub async fn draining(&self) {
        self.draining.started().await;
    }

    /// Counts a server's request as in flight until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> InFlight {
        self.draining.enter()
    }

    /// Number of servers' requests that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.draining.in_flight()
    }

    /// Waits until no server's request is in flight.
    pub async fn idle(&self) {
        self.draining.idle().await;
    }

    /// Refuses new requests, answers the queued ones, waits for the device threads to end, and then at most 5 s for
    /// pending answers to be written to the cache.
    pub async fn shutdown(&self) {
        let runtime = self.clone();
        let joined = tokio::task::spawn_blocking(move || runtime.shutdown_blocking()).await;
        if let Err(error) = joined {
            tracing::error!(%error, "shutting down did not end well");
        }
        if let Some(cache) = self.cache() {
            let lost = cache.shutdown(CACHE_DEADLINE).await;
            if lost > 0 {
                tracing::warn!(lost, "answers were not written to the cache in time");
            }
        }
    }

    /// Does the same as [`shutdown`](Self::shutdown) on a thread that may block, but does not wait for the cache.
    pub fn shutdown_blocking(&self) {
        // Every queue is closed before the first is waited for, so that no model takes new work meanwhile.
        for model in self.served.close() {
            model.shutdown();
        }
        self.loader.end();
    }
}
