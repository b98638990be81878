//! Counts of the cache since it was made, as values that any exporter can read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::breaker::BreakerState;

/// Number of buckets of a [`Latency`].
pub const LATENCY_BUCKETS: usize = 24;

/// Counts of the cache since it was made. They only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Each tier, nearest first.
    pub tiers: Vec<TierStats>,
    /// Answers that were computed because no tier had them.
    pub computed: u64,
    /// Computations that failed.
    pub failed: u64,
    /// Callers that got the answer that another caller of this process computed or looked up.
    pub shared: u64,
    /// Answers that another replica had computed while this one waited.
    pub from_replicas: u64,
    /// Requests that were answered with a remembered bad input.
    pub negative_hits: u64,
}

/// Counts of one tier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierStats {
    /// Name of the tier.
    pub tier: &'static str,
    /// Keys that the tier had.
    pub hits: u64,
    /// Keys that the tier did not have. Keys of lookups that failed are not counted.
    pub misses: u64,
    /// Keys under which the tier had something other than an intact value.
    pub corrupt: u64,
    /// Bytes of the values that were read.
    pub read_bytes: u64,
    /// Entries that were written.
    pub puts: u64,
    /// Bytes of the entries that were written.
    pub written_bytes: u64,
    /// Bytes that the tier holds now; known for the memory tier only.
    pub held_bytes: Option<u64>,
    /// Entries that were not written, by reason.
    pub lost: Lost,
    /// Lookups.
    pub reads: OperationStats,
    /// Writes, each of a batch.
    pub writes: OperationStats,
}

/// Entries that were not stored, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// The queue in front of the tier was full, or closed.
    pub queue_full: u64,
    /// The entries were larger than the tier takes.
    pub too_large: u64,
    /// The batch failed, ran out of time, or found the breaker open.
    pub failed: u64,
}

/// Operations of one kind on one tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationStats {
    /// Operations for which the tier returned an error.
    pub errors: u64,
    /// Operations that passed their budget.
    pub timeouts: u64,
    /// Operations that were not tried, because the breaker was open.
    pub skipped: u64,
    /// State of the breaker now.
    pub breaker: BreakerState,
    /// Number of times that the breaker has opened.
    pub opened: u64,
    /// Time of the operations that were tried, failed ones included.
    pub latency: Latency,
}

/// Histogram of the time that operations took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Number of operations.
    pub count: u64,
    /// Time of all operations together.
    pub total: Duration,
    /// Operations by time: bucket `n` has those of up to 2ⁿ µs that no lower bucket has; the last has all slower ones.
    pub buckets: [u64; LATENCY_BUCKETS],
}

impl Latency {
    /// Upper bound, within a factor of two, of the time in which this part (0 to 1) of the operations ended; zero if
    /// there were none.
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

/// A counter that many threads add to. Counters do not depend on each other, so the order of memory accesses does not
/// matter.
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

/// Index of the first bucket whose upper bound in µs, a power of two, is not below `time`.
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
