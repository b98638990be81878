//! The builder of a stack of tiers.

use std::marker::PhantomData;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::behind::Behind;
use crate::cache::{Cache, Counts, Lower};
use crate::config::{CacheConfig, ConfigError, TierConfig};
use crate::flight::Flights;
use crate::guard::Guarded;
use crate::memory::{MemoryConfig, MemoryTier};
use crate::replica::{Leases, ReplicaConfig, Replicas};
use crate::terms::FlightTerms;
use crate::tier::Tier;

/// Builds a [`Cache`] of any tiers, or none.
pub struct CacheBuilder<E, T = ()> {
    config: CacheConfig,
    memory: Option<MemoryConfig>,
    lower: Vec<(Arc<dyn Tier>, TierConfig)>,
    replicas: Option<(Arc<dyn Leases>, ReplicaConfig)>,
    asked: PhantomData<fn() -> (E, T)>,
}

/// Reasons for which a stack cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A field is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no tokio runtime, which writing behind needs: build within one.
    #[error("a cache must be built within a tokio runtime")]
    NoRuntime,
}

impl<E: Send + Sync + 'static, T: FlightTerms<E>> Cache<E, T> {
    /// Starts an empty stack of tiers.
    #[must_use]
    pub fn builder() -> CacheBuilder<E, T> {
        CacheBuilder::new()
    }
}

impl<E: Send + Sync + 'static, T: FlightTerms<E>> CacheBuilder<E, T> {
    pub(crate) fn new() -> Self {
        Self { config: CacheConfig::default(), memory: None, lower: Vec::new(), replicas: None, asked: PhantomData }
    }

    /// Sets the bounds of the stack.
    #[must_use]
    pub fn config(self, config: CacheConfig) -> Self {
        Self { config, ..self }
    }

    /// Adds a tier in memory, above all others.
    #[must_use]
    pub fn memory(self, config: MemoryConfig) -> Self {
        Self { memory: Some(config), ..self }
    }

    /// Adds a tier below those added before.
    #[must_use]
    pub fn tier(mut self, tier: impl Tier, config: TierConfig) -> Self {
        self.lower.push((Arc::new(tier), config));
        self
    }

    /// Adds single flight across replicas. The locks should be in the first tier below memory, and replicas should
    /// share that tier: a lock is held until that tier has the value.
    #[must_use]
    pub fn replicas(self, leases: impl Leases, config: ReplicaConfig) -> Self {
        Self { replicas: Some((Arc::new(leases), config)), ..self }
    }

    /// Builds the stack. Must be called within a tokio runtime, on which the tasks run that write behind.
    ///
    /// # Errors
    /// [`BuildError`] for a value out of bounds, or outside of a runtime.
    pub fn build(self) -> Result<Cache<E, T>, BuildError> {
        let runtime = Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        self.config.validate()?;
        let memory = self.memory.as_ref().map(MemoryTier::new).transpose()?;
        if let Some((_, config)) = &self.replicas {
            config.validate()?;
        }
        let mut lower = Vec::with_capacity(self.lower.len());
        for (tier, config) in self.lower {
            config.validate()?;
            let tier = Arc::new(Guarded::new(tier, config));
            let behind = Behind::start(Arc::clone(&tier), &self.config, &runtime);
            lower.push(Lower { tier, behind });
        }
        let negatives = moka::sync::Cache::builder()
            .max_capacity(self.config.max_negatives)
            .time_to_live(self.config.negative_ttl)
            .build();
        let replicas = self.replicas.map(|(leases, config)| Replicas::new(leases, config, runtime));
        Ok(Cache { memory, lower, negatives, replicas, flights: Flights::new(), counts: Counts::default() })
    }
}
