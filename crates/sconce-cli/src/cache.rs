//! The tiers of cache that a command is given: flags to tiers.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use sconce::cache::{
    CrossPrecision, Key, MemoryConfig, RedisConfig, RedisTier, ReplicaConfig, SqliteConfig, SqliteTier, StoredTier,
    TierConfig,
};
use sconce::{AnswerCache, RuntimeBuilder};

use crate::error::Error;

/// Where answers are kept. Nowhere, unless told.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArgs {
    /// Keep answers in so many MiB of memory
    #[arg(long = "cache-memory", value_name = "MIB", env = "SCONCE_CACHE_MEMORY", value_parser = clap::value_parser!(u64).range(1..))]
    memory: Option<u64>,

    #[command(flatten)]
    stored: StoredArgs,

    /// Where an answer in the precision that was asked for is not cached, give one that a higher precision made
    ///
    /// A model's sconce.toml wins: `higher_precisions` in its `[cache]`. An answer says which precision made it.
    #[arg(long = "cache-higher-precisions")]
    higher_precisions: bool,

    /// Keep prepared inputs (tokens, pixels) in so many MiB of memory, so that preparing is paid once
    #[arg(long = "cache-inputs", value_name = "MIB", env = "SCONCE_CACHE_INPUTS")]
    inputs: Option<NonZeroU64>,
}

/// Tiers that outlive the process.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct StoredArgs {
    /// Keep answers in Redis, for all replicas: `redis://[user][:password]@host[:port][/database]`; rediss:// for TLS
    #[arg(long = "cache-redis", value_name = "URL", env = "SCONCE_CACHE_REDIS", hide_env_values = true)]
    redis: Option<String>,

    #[command(flatten)]
    databases: DatabaseArgs,
}

/// Tiers that keep answers for good.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct DatabaseArgs {
    /// Keep answers in a SQLite database, made if it is not there
    #[arg(long = "cache-sqlite", value_name = "FILE", env = "SCONCE_CACHE_SQLITE")]
    sqlite: Option<PathBuf>,

    /// Keep answers in Postgres, in a table that is made if it is not there: `postgres://user:password@host:port/database`
    #[cfg(feature = "postgres")]
    #[arg(long = "cache-postgres", value_name = "URL", env = "SCONCE_CACHE_POSTGRES", hide_env_values = true)]
    postgres: Option<String>,
}

impl CacheArgs {
    pub(crate) async fn apply(&self, mut builder: RuntimeBuilder) -> Result<RuntimeBuilder, Error> {
        if let Some(mebibytes) = self.inputs {
            builder = builder.feature_cache(mebibytes.saturating_mul(MEBIBYTE));
        }
        if self.higher_precisions {
            builder = builder.cross_precision(CrossPrecision::Higher);
        }
        let stored = self.stored.open()?;
        connect(&stored).await;
        if self.memory.is_none() && stored.is_empty() {
            return Ok(builder);
        }
        let mut cache = AnswerCache::builder();
        if let Some(mebibytes) = self.memory {
            let max_bytes = mebibytes.saturating_mul(MEBIBYTE.get());
            cache = cache.memory(MemoryConfig { max_bytes, ..MemoryConfig::default() });
        }
        if let Some(redis) = self.stored.open_redis()? {
            cache = cache.replicas(redis, ReplicaConfig::default());
        }
        let cache = stored.into_iter().fold(cache, |cache, tier| cache.tier(tier, TierConfig::default()));
        Ok(builder.cache(cache.build().map_err(|cause| cannot("--cache-memory", cause))?))
    }
}

/// So that the first requests find the tiers connected. A tier that does not answer is told: it may be a mistake, or come later.
async fn connect(tiers: &[Box<dyn StoredTier>]) {
    for tier in tiers {
        let answer = tokio::time::timeout(CONNECT_BUDGET, tier.get_many(&[Key::from_bytes([0; 32])])).await;
        let problem = match answer {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CONNECT_BUDGET:?}"),
        };
        eprintln!("{}: {problem}; requests pass it over until it answers", tier.name());
    }
}

const CONNECT_BUDGET: Duration = Duration::from_secs(2);
const MEBIBYTE: NonZeroU64 = NonZeroU64::new(1 << 20).expect("it is not zero");

impl StoredArgs {
    /// The tiers, nearest first: Redis, SQLite, Postgres. Within a tokio runtime.
    pub(crate) fn open(&self) -> Result<Vec<Box<dyn StoredTier>>, Error> {
        let mut tiers = Vec::new();
        if let Some(redis) = self.open_redis()? {
            tiers.push(Box::new(redis) as Box<dyn StoredTier>);
        }
        tiers.extend(self.databases.open()?);
        Ok(tiers)
    }

    fn open_redis(&self) -> Result<Option<RedisTier>, Error> {
        let open = |url: &String| RedisTier::open(&RedisConfig::new(url));
        self.redis.as_ref().map(open).transpose().map_err(|cause| cannot("--cache-redis", cause))
    }
}

impl DatabaseArgs {
    /// SQLite before Postgres. Within a tokio runtime.
    fn open(&self) -> Result<Vec<Box<dyn StoredTier>>, Error> {
        let mut tiers: Vec<Box<dyn StoredTier>> = Vec::new();
        if let Some(path) = &self.sqlite {
            let tier = SqliteTier::open(&SqliteConfig::new(path)).map_err(|cause| cannot("--cache-sqlite", cause))?;
            tiers.push(Box::new(tier));
        }
        #[cfg(feature = "postgres")]
        if let Some(url) = &self.postgres {
            use sconce::cache::{PostgresConfig, PostgresTier};
            let opened = PostgresTier::open(&PostgresConfig::new(url));
            tiers.push(Box::new(opened.map_err(|cause| cannot("--cache-postgres", cause))?));
        }
        Ok(tiers)
    }

    /// The only one. Within a tokio runtime.
    pub(crate) fn open_one(&self) -> Result<Box<dyn StoredTier>, Error> {
        let mut tiers = self.open()?;
        let one = tiers.pop();
        let what = match one {
            Some(tier) if tiers.is_empty() => return Ok(tier),
            Some(_) => "there are two databases",
            None => "there is no database to fill",
        };
        Err(Error::NoTier { what, flags: "--cache-sqlite FILE or --cache-postgres URL" })
    }
}

fn cannot(flag: &'static str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Cache { flag, cause: cause.into() }
}
