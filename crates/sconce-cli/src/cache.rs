//! The tiers of cache that a server is given.

use std::path::PathBuf;

use sconce::cache::{MemoryConfig, RedisConfig, RedisTier, ReplicaConfig, SqliteConfig, SqliteTier, TierConfig};
use sconce::{AnswerCache, RuntimeBuilder};

use crate::error::Error;

/// Where answers are kept. Nowhere, unless told.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArgs {
    /// Keep answers in so many MiB of memory
    #[arg(long = "cache-memory", value_name = "MIB", env = "SCONCE_CACHE_MEMORY", value_parser = clap::value_parser!(u64).range(1..))]
    memory: Option<u64>,

    /// Keep answers in Redis, for all replicas: `redis://[user][:password]@host[:port][/database]`
    #[arg(long = "cache-redis", value_name = "URL", env = "SCONCE_CACHE_REDIS", hide_env_values = true)]
    redis: Option<String>,

    /// Keep answers in a `SQLite` database, made if it is not there
    #[arg(long = "cache-sqlite", value_name = "FILE", env = "SCONCE_CACHE_SQLITE")]
    sqlite: Option<PathBuf>,
}

impl CacheArgs {
    /// Within a tokio runtime.
    pub(crate) fn apply(&self, builder: RuntimeBuilder) -> Result<RuntimeBuilder, Error> {
        if self.memory.is_none() && self.redis.is_none() && self.sqlite.is_none() {
            return Ok(builder);
        }
        let mut cache = AnswerCache::builder();
        if let Some(mebibytes) = self.memory {
            let max_bytes = mebibytes.saturating_mul(1 << 20);
            cache = cache.memory(MemoryConfig { max_bytes, ..MemoryConfig::default() });
        }
        if let Some(url) = &self.redis {
            let config = RedisConfig::new(url);
            let open = || RedisTier::open(&config).map_err(|cause| cannot("--cache-redis", cause));
            cache = cache.tier(open()?, TierConfig::default()).replicas(open()?, ReplicaConfig::default());
        }
        if let Some(path) = &self.sqlite {
            let tier = SqliteTier::open(&SqliteConfig::new(path)).map_err(|cause| cannot("--cache-sqlite", cause))?;
            cache = cache.tier(tier, TierConfig::default());
        }
        Ok(builder.cache(cache.build().map_err(|cause| cannot("--cache-memory", cause))?))
    }
}

fn cannot(flag: &'static str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Cache { flag, cause: cause.into() }
}
