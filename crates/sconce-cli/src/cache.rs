//! Cache flags, and the tiers that they name.

#[cfg(feature = "sqlite")]
use std::path::{Path, PathBuf};
#[cfg(all(feature = "grpc", any(feature = "postgres", feature = "redis", feature = "sqlite")))]
use std::time::Duration;

#[cfg(all(feature = "grpc", feature = "redis"))]
use sconce::cache::ReplicaConfig;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
use sconce::cache::{Access, StoredTier, TierError};
#[cfg(feature = "grpc")]
use sconce::cache::{CrossPrecision, MemoryConfig};
#[cfg(all(feature = "grpc", any(feature = "postgres", feature = "redis", feature = "sqlite")))]
use sconce::cache::{Key, TierConfig};
#[cfg(feature = "redis")]
use sconce::cache::{RedisConfig, RedisTier};
#[cfg(feature = "sqlite")]
use sconce::cache::{SqliteConfig, SqliteTier};
#[cfg(feature = "grpc")]
use sconce::{AnswerCache, RuntimeBuilder};

#[cfg(any(feature = "postgres", feature = "redis"))]
use crate::address::without_password;
use crate::error::Error;
#[cfg(feature = "grpc")]
use crate::memory_size::MemorySize;
#[cfg(all(feature = "grpc", any(feature = "postgres", feature = "redis", feature = "sqlite")))]
use crate::say::say;

/// Flags of the answer cache. Without them there is none.
#[cfg(feature = "grpc")]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArgs {
    /// Keep answers in this much memory: MiB, or with a unit (512MiB, 1GB)
    #[arg(long = "cache-memory", value_name = "SIZE", env = "SCONCE_CACHE_MEMORY")]
    memory: Option<MemorySize>,

    #[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
    #[command(flatten)]
    stored: StoredArgs,

    /// If no answer in the wanted precision is cached, give a cached answer of a higher precision
    ///
    /// A model's sconce.toml overrides this: `higher_precisions` in its `[cache]`. An answer says which precision made it.
    #[arg(long = "cache-higher-precisions")]
    higher_precisions: bool,

    /// Keep prepared inputs (tokens, pixels) in this much memory, so that each is prepared once: MiB, or with a unit
    #[arg(long = "cache-inputs", value_name = "SIZE", env = "SCONCE_CACHE_INPUTS")]
    inputs: Option<MemorySize>,
}

/// Flags of the tiers that outlive the process.
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct StoredArgs {
    /// Keep answers in Redis, for all replicas: `redis://[user][:password]@host[:port][/database]`; rediss:// for TLS
    #[cfg(feature = "redis")]
    #[arg(long = "cache-redis", value_name = "URL", env = "SCONCE_CACHE_REDIS", hide_env_values = true)]
    redis: Option<String>,

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    #[command(flatten)]
    databases: DatabaseArgs,
}

/// Flags of the tiers that keep answers for good.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct DatabaseArgs {
    /// Keep answers in a SQLite database; commands that fill it make it, commands that only read it do not
    #[cfg(feature = "sqlite")]
    #[arg(long = "cache-sqlite", value_name = "FILE", env = "SCONCE_CACHE_SQLITE")]
    sqlite: Option<PathBuf>,

    /// Keep answers in Postgres, in a table that commands which fill it make: `postgres://user:password@host:port/database`
    #[cfg(feature = "postgres")]
    #[arg(long = "cache-postgres", value_name = "URL", env = "SCONCE_CACHE_POSTGRES", hide_env_values = true)]
    postgres: Option<String>,
}

/// A tier that is not open yet, with the value of its flag.
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store<'a> {
    #[cfg(feature = "redis")]
    Redis(&'a str),
    #[cfg(feature = "sqlite")]
    Sqlite(&'a Path),
    #[cfg(feature = "postgres")]
    Postgres(&'a str),
}

/// An open tier, and the flag that named it.
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
pub(crate) struct Opened {
    pub(crate) tier: Box<dyn StoredTier>,
    flag: &'static str,
    place: String,
}

#[cfg(feature = "grpc")]
impl CacheArgs {
    pub(crate) async fn apply(&self, mut builder: RuntimeBuilder) -> Result<RuntimeBuilder, Error> {
        if let Some(inputs) = self.inputs {
            builder = builder.feature_cache(inputs.bytes());
        }
        if self.higher_precisions {
            builder = builder.cross_precision(CrossPrecision::Higher);
        }
        let none_given = self.memory.is_none();
        #[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
        let none_given = none_given && self.stored.stores().is_empty();
        if none_given {
            return Ok(builder);
        }
        let mut cache = AnswerCache::builder();
        if let Some(memory) = self.memory {
            cache = cache.memory(MemoryConfig { max_bytes: memory.bytes().get(), ..MemoryConfig::default() });
        }
        #[cfg(feature = "redis")]
        if let Some(url) = &self.stored.redis {
            cache = cache.replicas(open_redis(url)?, ReplicaConfig::default());
        }
        #[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
        for store in self.stored.stores() {
            let opened = store.open(Access::Create)?;
            connect(&opened).await;
            cache = cache.tier(opened.tier, TierConfig::default());
        }
        let cache = cache.build().map_err(|cause| Error::Cache { flag: "--cache-memory", cause: cause.into() })?;
        Ok(builder.cache(cache))
    }
}

/// Connects the tier, so that the first requests need not wait for that. Warns of a tier that does not answer; it may
/// still come up.
#[cfg(all(feature = "grpc", any(feature = "postgres", feature = "redis", feature = "sqlite")))]
async fn connect(opened: &Opened) {
    let Opened { tier, flag, place } = opened;
    let answer = tokio::time::timeout(CONNECT_BUDGET, tier.get_many(&[Key::from_bytes([0; 32])])).await;
    let problem = match answer {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {CONNECT_BUDGET:?}"),
    };
    say!("warning: {}: {problem}", tier.name());
    say!("  requests pass it over until it answers; {flag} names {place}");
}

#[cfg(all(feature = "grpc", any(feature = "postgres", feature = "redis", feature = "sqlite")))]
const CONNECT_BUDGET: Duration = Duration::from_secs(2);

#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
impl StoredArgs {
    /// The tiers that the flags name, nearest first: Redis, SQLite, Postgres.
    pub(crate) fn stores(&self) -> Vec<Store<'_>> {
        let mut stores = Vec::new();
        #[cfg(feature = "redis")]
        stores.extend(self.redis.as_deref().map(Store::Redis));
        #[cfg(any(feature = "postgres", feature = "sqlite"))]
        stores.extend(self.databases.stores());
        stores
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl DatabaseArgs {
    /// The databases that the flags name, SQLite before Postgres.
    fn stores(&self) -> Vec<Store<'_>> {
        let mut stores = Vec::new();
        #[cfg(feature = "sqlite")]
        stores.extend(self.sqlite.as_deref().map(Store::Sqlite));
        #[cfg(feature = "postgres")]
        stores.extend(self.postgres.as_deref().map(Store::Postgres));
        stores
    }

    /// The one database that the flags name; an error if they name none or two.
    pub(crate) fn one(&self) -> Result<Store<'_>, Error> {
        let what = match self.stores()[..] {
            [one] => return Ok(one),
            [] => "there is no database to fill",
            _ => "there are two databases",
        };
        Err(Error::NoTier { what, flags: "--cache-sqlite FILE or --cache-postgres URL" })
    }
}

#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
impl Store<'_> {
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(_) => "redis",
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "sqlite",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "postgres",
        }
    }

    /// Opens the tier; makes it if `access` allows that. Must be called within a tokio runtime.
    pub(crate) fn open(self, access: Access) -> Result<Opened, Error> {
        let (tier, flag, place): (Box<dyn StoredTier>, _, _) = match self {
            // Redis has no tables to make.
            #[cfg(feature = "redis")]
            Self::Redis(url) => (Box::new(open_redis(url)?), "--cache-redis", without_password(url)),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => {
                let flag = "--cache-sqlite";
                let opened = SqliteTier::open(&SqliteConfig { access, ..SqliteConfig::new(path) });
                let tier = opened.map_err(|cause| Error::Cache { flag, cause: cause.into() })?;
                (Box::new(tier), flag, path.display().to_string())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => {
                use sconce::cache::{PostgresConfig, PostgresTier};
                let opened = PostgresTier::open(&PostgresConfig { access, ..PostgresConfig::new(url) });
                let tier = opened.map_err(|cause| Error::Address {
                    flag: "--cache-postgres",
                    address: without_password(url),
                    cause: cause.into(),
                    example: "postgres://user:password@localhost:5432/database",
                })?;
                (Box::new(tier), "--cache-postgres", without_password(url))
            }
        };
        Ok(Opened { tier, flag, place })
    }
}

#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
impl Opened {
    /// Closes the tier's connections, and waits until they are closed: SQLite then leaves no files beside its own.
    pub(crate) async fn close(self) {
        self.tier.close().await;
    }

    /// Adds the tier's place, its flag and a remedy to an error of the tier.
    pub(crate) fn told<T>(&self, outcome: Result<T, TierError>) -> Result<T, Error> {
        let Self { tier, flag, place } = self;
        outcome.map_err(|source| Error::Tier { tier: tier.name(), place: place.clone(), flag, source })
    }
}

#[cfg(feature = "redis")]
fn open_redis(url: &str) -> Result<RedisTier, Error> {
    RedisTier::open(&RedisConfig::new(url)).map_err(|cause| Error::Address {
        flag: "--cache-redis",
        address: without_password(url),
        cause: cause.into(),
        example: "redis://localhost:6379, redis://user:password@host:6379/0, or rediss:// for TLS",
    })
}
