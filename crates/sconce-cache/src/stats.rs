//! What the cache has done since it was made, as values that any exporter can read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::breaker::BreakerState;

/// Buckets of a [`Latency`].
pub const LATENCY_BUCKETS: usize = 24;

/// What the cache has done since it was made. Counts only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Each tier, nearest first.
    pub tiers: Vec<TierStats>,
    /// Answers that were computed because no tier had them.
    pub computed: u64,
    /// Computations that failed.
    pub failed: u64,
    /// Callers who got what another caller of this process was computing or looking up already.
    pub shared: u64,
    /// Answers that another replica had computed while this one waited.
    pub from_replicas: u64,
    /// Bad inputs that were answered from memory.
    pub negative_hits: u64,
}

/// What one tier has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierStats {
    /// Its name.
    pub tier: &'static str,
    /// Keys that it had.
    pub hits: u64,
    /// Keys that it did not have; those it could not be asked for are not among them.
    pub misses: u64,
    /// Keys under which it had something broken.
    pub corrupt: u64,
    /// Bytes of the values that it gave.
    pub read_bytes: u64,
    /// Entries that it took.
    pub puts: u64,
    /// Bytes of the entries that it took.
    pub written_bytes: u64,
    /// Bytes that it holds, where the tier knows: memory only.
    pub held_bytes: Option<u64>,
    /// Entries that never reached it, by reason.
    pub lost: Lost,
    /// Lookups.
    pub reads: OperationStats,
    /// Writes of a batch.
    pub writes: OperationStats,
}

/// Entries that were not stored, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The queue in front of the tier was full, or closed.
    pub queue_full: u64,
    /// Larger than the tier takes.
    pub too_large: u64,
    /// Their batch failed, ran out of time, or found the breaker open.
    pub failed: u64,
}

/// Operations of one kind on one tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationStats {
    /// Those that the tier said had failed.
    pub errors: u64,
    /// Those that passed their budget.
    pub timeouts: u64,
    /// Those not tried, because the breaker was open.
    pub skipped: u64,
    /// The breaker now.
    pub breaker: BreakerState,
    /// How often it has opened.
    pub opened: u64,
    /// Those that were tried, however they ended.
    pub latency: Latency,
}

/// How long operations took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Operations.
    pub count: u64,
    /// Their times together.
    pub total: Duration,
    /// Operations by time: bucket `n` has those up to 2ⁿ µs; the last has all slower ones.
    pub buckets: [u64; LATENCY_BUCKETS],
}

impl Latency {
    /// An upper bound, within a factor of two, of the time that this part of the operations took at most; zero where there
    /// were none.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is between 0 and count")]
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = (self.count as f64 * part.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && seen > 0 {
                return Duration::from_micros(1 << bucket);
            }
        }
        Duration::ZERO
    }
}

/// Counts that many threads add to. Each stands for itself, so the order of memory accesses does not matter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct LatencyCounter {
    total_ns: AtomicU64,
    buckets: [Counter; LATENCY_BUCKETS],
}

impl LatencyCounter {
    pub(crate) fn record(&self, time: Duration) {
        // 500 years fit.
        self.total_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.buckets[bucket(time)].add(1);
    }

    pub(crate) fn get(&self) -> Latency {
        let buckets = std::array::from_fn(|bucket| self.buckets[bucket].get());
        let total = Duration::from_nanos(self.total_ns.load(Ordering::Relaxed));
        Latency { count: buckets.iter().sum(), total, buckets }
    }
}

/// The first bucket whose upper bound in µs, a power of two, is not below `time`.
fn bucket(time: Duration) -> usize {
    let us = time.as_nanos().div_ceil(1000).max(1);
    (us.next_power_of_two().trailing_zeros() as usize).min(LATENCY_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_ends_at_a_power_of_two_of_microseconds() {
        let table = [(0, 0), (1_000, 0), (1_001, 1), (2_000, 1), (4_000, 2), (4_001, 3), (60_000_000_000, 23)];
        for (ns, expected) in table {
            assert_eq!(bucket(Duration::from_nanos(ns)), expected, "{ns} ns");
        }
    }

    #[test]
    fn a_quantile_is_the_upper_bound_of_its_bucket() {
        let latency = LatencyCounter::default();
        assert_eq!(latency.get().quantile(0.5), Duration::ZERO);
        for us in [1, 3, 3, 100] {
            latency.record(Duration::from_micros(us));
        }
        let latency = latency.get();
        assert_eq!((latency.count, latency.total), (4, Duration::from_micros(107)));
        let quantiles = [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| latency.quantile(part).as_micros());
        assert_eq!(quantiles, [1, 1, 4, 4, 128]);
    }
}
