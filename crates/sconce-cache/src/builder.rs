//! Building a stack.

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
use crate::terms::Terms;
use crate::tier::Tier;

/// A stack in the making: any tiers, or none.
pub struct CacheBuilder<E, T = ()> {
    config: CacheConfig,
    memory: Option<MemoryConfig>,
    lower: Vec<(Arc<dyn Tier>, TierConfig)>,
    replicas: Option<(Arc<dyn Leases>, ReplicaConfig)>,
    asked: PhantomData<fn() -> (E, T)>,
}

/// Why a stack cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A field is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Filling behind needs a tokio runtime: build within one.
    #[error("a cache must be built within a tokio runtime")]
    NoRuntime,
}

impl<E: Send + Sync + 'static, T: Terms<E>> CacheBuilder<E, T> {
    pub(crate) fn new() -> Self {
        Self { config: CacheConfig::default(), memory: None, lower: Vec::new(), replicas: None, asked: PhantomData }
    }

    /// Bounds of the stack, in place of the defaults.
    #[must_use]
    pub fn config(self, config: CacheConfig) -> Self {
        Self { config, ..self }
    }

    /// With a tier in memory.
    #[must_use]
    pub fn memory(self, config: MemoryConfig) -> Self {
        Self { memory: Some(config), ..self }
    }

    /// With a tier below those there are.
    #[must_use]
    pub fn tier(mut self, tier: impl Tier, config: TierConfig) -> Self {
        self.lower.push((Arc::new(tier), config));
        self
    }

    /// With single flight across replicas. The locks should be in the first tier below memory, and that tier shared: a lock
    /// is held until that tier has the value.
    #[must_use]
    pub fn replicas(self, leases: impl Leases, config: ReplicaConfig) -> Self {
        Self { replicas: Some((Arc::new(leases), config)), ..self }
    }

    /// The stack; must be called within a tokio runtime, on which the tasks run that fill behind.
    ///
    /// # Errors
    /// [`BuildError`] says what to change.
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
