//! Three tiers of cache for computed tensors.

mod answer;
mod behind;
mod breaker;
mod builder;
mod cache;
mod config;
mod dtype;
mod feature;
mod flight;
mod guard;
mod key;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod precision;
#[cfg(feature = "redis")]
mod redis;
mod replica;
#[cfg(feature = "sqlite")]
mod sqlite;
mod stats;
mod tier;
mod value;

pub use answer::{Answer, Failure, Source};
pub use breaker::BreakerState;
pub use builder::{BuildError, CacheBuilder};
pub use cache::Cache;
pub use config::{BreakerConfig, CacheConfig, ConfigError, TierConfig};
pub use dtype::Dtype;
pub use feature::{FeatureCache, FeatureStats};
pub use key::{Digest, Input, Key, KeyFields, Parameter};
pub use memory::{MemoryConfig, MemoryTier};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresConfig, PostgresOpenError, PostgresTier};
pub use precision::CrossPrecision;
#[cfg(feature = "redis")]
pub use redis::{RedisConfig, RedisOpenError, RedisTier};
pub use replica::{Leases, ReplicaConfig, Token};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteConfig, SqliteOpenError, SqliteReader, SqliteTier};
pub use stats::{CacheStats, LATENCY_BUCKETS, Latency, Lost, OperationStats, TierStats};
pub use tier::{Found, Tier, TierError, TierFuture};
pub use value::{Corrupt, Tensor, Value, ValueError};
