//! The first tier: this process's memory.

use std::time::Duration;

use moka::sync::Cache;

use crate::config::{ConfigError, size, ttl};
use crate::stats::{Counter, TierStats};
use crate::tier::{Found, Tier, TierError, TierFuture};
use crate::{Key, Value};

/// Bytes that moka keeps for an entry besides key and value, estimated from its node, its two deques and the hash table.
const OVERHEAD: usize = 200;

/// Bounds of [`MemoryTier`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes of memory, keys and overhead included; at least 1. Too small: values are evicted before they are asked for
    /// again. Too large: the process runs out of memory.
    pub max_bytes: u64,
    /// Time to live of a value: 1 ms to 100 years. Keys hold everything an answer depends on, so a value does not go stale;
    /// this only frees memory.
    pub ttl: Duration,
}

/// 256 MiB, and a time to live of one day.
impl Default for MemoryConfig {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, ttl: Duration::from_hours(24) }
    }
}

/// The memory tier: bounded by bytes, keeps the values that are asked for often (`TinyLFU`, by moka).
///
/// A new value may be refused when the tier is full of values that are asked for more often.
pub struct MemoryTier {
    values: Cache<Key, Value>,
    hits: Counter,
    misses: Counter,
    read_bytes: Counter,
    puts: Counter,
    written_bytes: Counter,
    too_large: Counter,
    max_bytes: u64,
}

impl MemoryTier {
    /// Name of the tier in answers and statistics.
    pub const NAME: &'static str = "memory";

    /// Makes an empty tier.
    ///
    /// # Errors
    /// [`ConfigError`] names the field that is out of bounds.
    pub fn new(config: &MemoryConfig) -> Result<Self, ConfigError> {
        size("max_bytes", usize::try_from(config.max_bytes).unwrap_or(usize::MAX), usize::MAX)?;
        ttl("ttl", config.ttl)?;
        let values = Cache::builder()
            .max_capacity(config.max_bytes)
            .time_to_live(config.ttl)
            // `put` refuses values whose weight does not fit into 32 bits.
            .weigher(|_, value: &Value| u32::try_from(weight(value)).unwrap_or(u32::MAX))
            .build();
        Ok(Self {
            values,
            hits: Counter::default(),
            misses: Counter::default(),
            read_bytes: Counter::default(),
            puts: Counter::default(),
            written_bytes: Counter::default(),
            too_large: Counter::default(),
            max_bytes: config.max_bytes,
        })
    }

    /// Looks up the value of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Value> {
        let value = self.values.get(key);
        match &value {
            Some(value) => {
                self.hits.add(1);
                self.read_bytes.add(value.encoded().len());
            }
            None => self.misses.add(1),
        }
        value
    }

    /// Stores a value; one that is larger than the tier, or than 4 GiB, is refused and counted.
    pub fn put(&self, key: Key, value: Value) {
        let weight = weight(&value);
        if weight as u64 > self.max_bytes || u32::try_from(weight).is_err() {
            return self.too_large.add(1);
        }
        self.puts.add(1);
        self.written_bytes.add(value.encoded().len());
        self.values.insert(key, value);
    }

    /// Bytes of all values, keys and overhead, as of the last eviction.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.values.weighted_size()
    }

    /// Runs the evictions that are due now, which otherwise run during the next operations.
    pub fn tidy_up(&self) {
        self.values.run_pending_tasks();
    }

    pub(crate) fn stats(&self) -> TierStats {
        let mut stats = TierStats {
            tier: Self::NAME,
            hits: self.hits.get(),
            misses: self.misses.get(),
            read_bytes: self.read_bytes.get(),
            puts: self.puts.get(),
            written_bytes: self.written_bytes.get(),
            held_bytes: Some(self.held_bytes()),
            ..TierStats::default()
        };
        stats.lost.too_large = self.too_large.get();
        stats
    }
}

impl Tier for MemoryTier {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> TierFuture<'a, Result<Vec<Found>, TierError>> {
        let found = |key| self.get(key).map_or(Found::Miss, Found::Hit);
        Box::pin(std::future::ready(Ok(keys.iter().map(found).collect())))
    }

    fn put_many<'a>(&'a self, entries: &'a [(Key, Value)]) -> TierFuture<'a, Result<(), TierError>> {
        for (key, value) in entries {
            self.put(*key, value.clone());
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn weight(value: &Value) -> usize {
    value.weight() + size_of::<Key>() + OVERHEAD
}
