//! Three tiers of cache for computed tensors: memory, Redis, a database.
//!
//! A key is a digest of everything an answer depends on ([`KeyFields`]); a value is a list of tensors and the precision
//! that made them ([`Value`]). Any subset of tiers makes a [`Cache`]. A tier that is slow, full, broken or gone costs a
//! miss within its time budget, never a failure. Concurrent requests for the same value compute it once, in the process
//! and, with Redis, across replicas. The crate knows nothing of models.
//!
//! ```
//! use std::time::Duration;
//!
//! use sconce_cache::{Cache, Dtype, Failure, Key, MemoryConfig, Source, SqliteConfig, SqliteTier, TensorView, TierConfig, Value};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("answers.sqlite");
//! let cache: Cache<std::io::Error> = Cache::builder()
//!     .memory(MemoryConfig::default())
//!     .tier(SqliteTier::open(&SqliteConfig::new(path))?, TierConfig::default())
//!     .build()?;
//!
//! let key = Key::from_bytes([7; 32]); // a real one comes from `KeyFields::key`
//! let compute = || async {
//!     let embedding: Vec<u8> = [0.6_f32, 0.8].iter().flat_map(|x| x.to_le_bytes()).collect();
//!     let tensor = TensorView { name: "embedding", dtype: Dtype::F32, shape: &[1, 2], bytes: &embedding };
//!     Value::new("int8", &[tensor]).map_err(|error| Failure::Passing(std::io::Error::other(error)))
//! };
//! let first = cache.get_or_compute(key, &[], compute).await?;
//! let second = cache.get_or_compute(key, &[], compute).await?;
//! assert_eq!(first.source, Source::Computed);
//! assert_eq!(second.source, Source::Tier("memory"));
//! assert_eq!(second.value.precision(), "int8");
//! cache.shutdown(Duration::from_secs(5)).await; // writes the entries that still wait for the database
//! # Ok(())
//! # }
//! ```
//!
//! # The path of one lookup
//! [`Cache::get_or_compute`] → memory ([`MemoryTier`], on the caller) → remembered bad inputs → single flight: one of
//! the callers that want the same value leads, the others follow (`claim.rs`, `flight.rs`; [`FlightTerms`] decide which
//! followers get a failure) → each tier below, within its budget and if its breaker lets it (`guard.rs`); a value that
//! is found is stored in the tiers above → where replicas share a lock, take it or wait for the replica that has it
//! (`replica.rs`) → compute → memory at once, the other tiers behind, through a bounded queue each (`behind.rs`).
//!
//! # Where to add things
//! - A tier: implement [`Tier`], and [`StoredTier`] if its entries outlive the process; list it in
//!   `tests/cache/conformance.rs`, which tests it.
//! - A field of a key, or a change of the meaning of a stored value: raise `SCHEMA_VERSION` in `key.rs`.
//! - A rule about leaving a failing tier alone: `breaker.rs`, which is pure.
//! - Prepared inputs: [`FeatureCache`], which is independent of the tiers.

mod access;
mod answer;
mod behind;
mod breaker;
mod builder;
mod cache;
mod claim;
mod config;
mod dtype;
mod feature;
mod flight;
mod get_or_compute;
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
mod stored;
mod sync;
mod terms;
mod tier;
mod value;

pub use access::Access;
pub use answer::{DeadlineExceeded, Failure, Source, SourcedValue};
pub use breaker::BreakerState;
pub use builder::{BuildError, CacheBuilder};
pub use cache::Cache;
pub use claim::{Claim, ClaimOutcome, Follower, Leader};
pub use config::{BreakerConfig, CacheConfig, ConfigError, TierConfig};
pub use dtype::Dtype;
pub use feature::{FeatureCache, FeatureStats};
pub use key::{Digest, Key, KeyFields, KeyTensor, Parameter};
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
pub use stored::{Cursor, Purge, Scanned, StoredTier, Usage};
pub use terms::FlightTerms;
pub use tier::{Found, Tier, TierError, TierFuture};
pub use value::{Corrupt, TensorView, Value, ValueError};
