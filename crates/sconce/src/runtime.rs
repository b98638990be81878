//! Several models, one front door.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use sconce_cache::FeatureStats;

use crate::draining::{Draining, InFlight};
use crate::prepare::PreparedInputs;
use crate::{AnswerCache, Model, RuntimeBuilder, UnknownModel};

/// What is left to the cache's tiers on leaving.
const CACHE_DEADLINE: Duration = Duration::from_secs(5);

/// Models by name, each with its queue and device thread. Clones share them.
///
/// When the last clone, and the last clone of a [`Model`], is dropped, what waits is still answered and the device
/// threads end by themselves; [`shutdown`](Self::shutdown) also waits for them.
#[derive(Clone)]
pub struct Runtime {
    models: Arc<BTreeMap<String, Model>>,
    cpu_threads: NonZeroUsize,
    cache: Option<Arc<AnswerCache>>,
    features: Option<Arc<PreparedInputs>>,
    draining: Arc<Draining>,
}

impl Runtime {
    /// Says which models to run and how.
    #[must_use]
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    pub(crate) fn new(
        models: BTreeMap<String, Model>,
        cpu_threads: NonZeroUsize,
        cache: Option<Arc<AnswerCache>>,
        features: Option<Arc<PreparedInputs>>,
    ) -> Self {
        Self { models: Arc::new(models), cpu_threads, cache, features, draining: Arc::default() }
    }

    /// The model of that name.
    ///
    /// # Errors
    /// [`UnknownModel`] lists the names there are.
    pub fn model(&self, name: &str) -> Result<&Model, UnknownModel> {
        self.models
            .get(name)
            .ok_or_else(|| UnknownModel { name: name.to_owned(), known: self.models.keys().cloned().collect() })
    }

    /// All models, by name.
    #[must_use]
    pub fn models(&self) -> impl ExactSizeIterator<Item = &Model> {
        self.models.values()
    }

    /// CPU threads that compute one batch, shared by all models.
    #[must_use]
    pub fn cpu_threads(&self) -> NonZeroUsize {
        self.cpu_threads
    }

    /// The cache of answers, if it has one: its statistics say what each tier does.
    #[must_use]
    pub fn cache(&self) -> Option<&AnswerCache> {
        self.cache.as_deref()
    }

    /// What the cache of prepared inputs has done and holds, if there is one.
    #[must_use]
    pub fn feature_stats(&self) -> Option<FeatureStats> {
        self.features.as_ref().map(|features| features.stats())
    }

    /// Tells servers that the runtime is leaving: from now on it [`is_draining`](Self::is_draining). Requests are still answered; a
    /// server says that it is not ready, and stops accepting.
    ///
    /// On the way out: this, stop accepting, [`idle`](Self::idle), [`shutdown`](Self::shutdown).
    pub fn start_draining(&self) {
        self.draining.start();
    }

    /// True since [`start_draining`](Self::start_draining).
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.has_started()
    }

    /// Counts a request of a server until the guard is dropped.
    #[must_use]
    pub fn enter(&self) -> InFlight {
        self.draining.enter()
    }

    /// Requests of servers that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.draining.in_flight()
    }

    /// Waits until no request of a server is in flight.
    pub async fn idle(&self) {
        self.draining.idle().await;
    }

    /// Refuses new work, answers what waits, and returns when the device threads have ended and what was to be cached is
    /// written, or 5 s have passed with that.
    pub async fn shutdown(&self) {
        let runtime = self.clone();
        let joined = tokio::task::spawn_blocking(move || runtime.shutdown_blocking()).await;
        if let Err(error) = joined {
            tracing::error!(%error, "shutting down did not end well");
        }
        if let Some(cache) = &self.cache {
            let lost = cache.shutdown(CACHE_DEADLINE).await;
            if lost > 0 {
                tracing::warn!(lost, "answers were not written to the cache in time");
            }
        }
    }

    /// As [`shutdown`](Self::shutdown), for a thread that may block; does not wait for the cache.
    pub fn shutdown_blocking(&self) {
        // In this order: every queue refuses before the first thread is waited for.
        for model in self.models() {
            model.close();
        }
        for model in self.models() {
            model.shutdown();
        }
    }
}
