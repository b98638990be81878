//! The stack of tiers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::answer::{DeadlineExceeded, FlightResult, Source, SourcedValue};
use crate::behind::Behind;
use crate::flight::Flights;
use crate::guard::Guarded;
use crate::memory::MemoryTier;
use crate::replica::{Lease, Replicas};
use crate::stats::{CacheStats, Counter};
use crate::terms::FlightTerms;
use crate::{Key, Value};

/// Tiers of cache in front of a computation that fails with `E`. Share it in an `Arc`.
///
/// A tier that is slow, full, broken or gone costs a miss within its time budget, and soon nothing, because its breaker
/// opens. It never makes a lookup fail. Callers of one computation may have different [`FlightTerms`] `T`; by default they
/// have none.
pub struct Cache<E, T: FlightTerms<E> = ()> {
    pub(crate) memory: Option<MemoryTier>,
    pub(crate) lower: Vec<Lower>,
    pub(crate) negatives: moka::sync::Cache<Key, Arc<E>>,
    pub(crate) replicas: Option<Replicas>,
    pub(crate) flights: Flights<FlightResult<E>, T>,
    pub(crate) counts: Counts,
}

/// A tier below memory and the queue in front of it.
pub(crate) struct Lower {
    pub(crate) tier: Arc<Guarded>,
    pub(crate) behind: Behind,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) computed: Counter,
    pub(crate) failed: Counter,
    pub(crate) shared: Counter,
    pub(crate) from_replicas: Counter,
    pub(crate) negative_hits: Counter,
}

impl<E: Send + Sync + 'static, T: FlightTerms<E>> Cache<E, T> {
    /// Looks up `key`, or one of the keys in `instead` that may answer for it, nearest first: those of higher
    /// precisions that a policy allows ([`CrossPrecision`](crate::CrossPrecision)), or none. A nearer tier goes before
    /// a nearer key. A value that is found is stored in the tiers above.
    pub async fn get(&self, key: Key, instead: &[Key]) -> Option<SourcedValue> {
        match self.in_memory(key, instead) {
            Some(answer) => Some(answer),
            None => self.in_lower_tiers(key, instead).await,
        }
    }

    /// Looks up many keys in one operation per tier. Returns one answer or `None` per key, in the same order.
    pub async fn get_many(&self, keys: &[Key]) -> Vec<Option<SourcedValue>> {
        let mut answers: Vec<_> = keys.iter().map(|key| self.in_memory(*key, &[])).collect();
        for (level, lower) in self.lower.iter().enumerate() {
            let missing: Vec<_> = (0..keys.len()).filter(|index| answers[*index].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            let wanted: Vec<_> = missing.iter().map(|index| keys[*index]).collect();
            for (index, value) in missing.into_iter().zip(lower.tier.get_many(&wanted).await) {
                answers[index] = value.map(|value| self.promote(keys[index], value, level));
            }
        }
        answers
    }

    /// Stores a value: in memory at once, in the other tiers behind. If a tier's queue is full, the value is dropped
    /// there, and counted. A caller that must know that it arrived uses the tier itself ([`Tier::put_many`](crate::Tier)).
    pub fn put(&self, key: Key, value: &Value) {
        self.store(key, value, None);
    }

    /// Waits until all entries stored so far are written or lost, for at most `deadline`.
    ///
    /// # Errors
    /// [`DeadlineExceeded`] if that is not long enough; writing goes on.
    pub async fn flush(&self, deadline: Duration) -> Result<(), DeadlineExceeded> {
        let all = async {
            for lower in &self.lower {
                lower.behind.flush().await;
            }
        };
        tokio::time::timeout(deadline, all).await.map_err(|_| DeadlineExceeded)
    }

    /// Stops filling the tiers below memory: takes no more entries, writes the queued ones for at most `deadline`, ends
    /// the tasks. Returns the number of entries that were not written. Lookups and memory go on.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        let started = Instant::now();
        let left = || deadline.saturating_sub(started.elapsed());
        let mut lost = 0;
        for lower in &self.lower {
            lost += lower.behind.close(left()).await;
            // Settling is optional: a tier that is not settled in time stays intact.
            tokio::time::timeout(left(), lower.tier.settle()).await.ok();
        }
        lost
    }

    /// Counts since the cache was made.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let lower = self.lower.iter().map(|lower| {
            let mut stats = lower.tier.stats();
            lower.behind.count(&mut stats);
            stats
        });
        CacheStats {
            tiers: self.memory.iter().map(MemoryTier::stats).chain(lower).collect(),
            computed: self.counts.computed.get(),
            failed: self.counts.failed.get(),
            shared: self.counts.shared.get(),
            from_replicas: self.counts.from_replicas.get(),
            negative_hits: self.counts.negative_hits.get(),
        }
    }

    pub(crate) fn in_memory(&self, key: Key, instead: &[Key]) -> Option<SourcedValue> {
        let memory = self.memory.as_ref()?;
        let value = memory.get(&key).or_else(|| instead.iter().find_map(|key| memory.get(key)))?;
        Some(SourcedValue { value, source: Source::Tier(MemoryTier::NAME) })
    }

    pub(crate) async fn in_lower_tiers(&self, key: Key, instead: &[Key]) -> Option<SourcedValue> {
        let keys: Vec<_> = [&[key], instead].concat();
        for (level, lower) in self.lower.iter().enumerate() {
            let values = lower.tier.get_many(&keys).await;
            if let Some((key, value)) = keys.iter().zip(values).find_map(|(key, value)| Some((*key, value?))) {
                return Some(self.promote(key, value, level));
            }
        }
        None
    }

    /// Stores a value that was found in the lower tier `level` in all tiers above it.
    pub(crate) fn promote(&self, key: Key, value: Value, level: usize) -> SourcedValue {
        if let Some(memory) = &self.memory {
            memory.put(key, value.clone());
        }
        for above in &self.lower[..level] {
            above.behind.put(key, value.clone(), None);
        }
        SourcedValue { value, source: Source::Tier(self.lower[level].tier.name()) }
    }

    /// Stores a value in all tiers. The lease is held until the nearest tier below memory, which replicas share, has
    /// the value.
    pub(crate) fn store(&self, key: Key, value: &Value, mut lease: Option<Lease>) {
        if let Some(memory) = &self.memory {
            memory.put(key, value.clone());
        }
        for lower in &self.lower {
            lower.behind.put(key, value.clone(), lease.take());
        }
    }
}
