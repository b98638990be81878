//! Distributions of times, in bounded memory.

use std::time::Duration;

use histogram::Histogram;
use serde::{Serialize, Serializer};

/// Each power of two of nanoseconds has 64 buckets, so a time is known within 1.6 %.
const GROUPING_POWER: u8 = 6;
/// Times beyond 2³⁷ ns, 137 s, count as that.
const MAX_POWER: u8 = 37;
const MAX_NS: u64 = (1 << MAX_POWER) - 1;

/// The number of times of each length. Takes 16 KiB, however many times there are.
///
/// Serialised, it is its count and its quantiles, in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyDistribution {
    buckets: Histogram,
}

impl Default for LatencyDistribution {
    fn default() -> Self {
        Self { buckets: Histogram::new(GROUPING_POWER, MAX_POWER).expect("the powers are in range") }
    }
}

impl LatencyDistribution {
    /// Adds a time.
    pub(crate) fn record(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(MAX_NS);
        self.buckets.increment(ns).expect("no time is larger");
    }

    /// Number of times.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.as_slice().iter().sum()
    }

    /// The time within which this part (0 to 1) of the events ended, rounded up by at most 1.6 %; zero if there were none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let bucket = self.buckets.quantile_bucket(part.clamp(0.0, 1.0));
        bucket.ok().flatten().map_or(Duration::ZERO, |bucket| Duration::from_nanos(bucket.end()))
    }

    /// For each of the `bounds`, which ascend, the number of times that lie below it and not below the one before. A bucket
    /// belongs to the bound that its middle lies below, so a bound is exact within 0.8 %.
    #[must_use]
    pub fn counts_below(&self, bounds: &[Duration]) -> Vec<u64> {
        let mut counts = vec![0; bounds.len()];
        for bucket in self.buckets.iter().filter(|bucket| bucket.count() > 0) {
            let middle = Duration::from_nanos(bucket.start().midpoint(bucket.end()));
            if let Some(count) = counts.get_mut(bounds.partition_point(|bound| *bound <= middle)) {
                *count += bucket.count();
            }
        }
        counts
    }

    /// The times that were added after `earlier`, a snapshot of the same distribution, was taken.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let buckets = self.buckets.checked_sub(&earlier.buckets).unwrap_or_else(|_| self.buckets.clone());
        Self { buckets }
    }
}

impl Serialize for LatencyDistribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Quantiles {
            count: u64,
            p50: f64,
            p90: f64,
            p99: f64,
            p999: f64,
            max: f64,
        }
        let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(|part| self.quantile(part).as_secs_f64());
        Quantiles { count: self.count(), p50, p90, p99, p999, max }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn quantiles_are_exact_within_two_percent_from_a_nanosecond_to_two_minutes() {
        for ns in [1, 63, 64, 1000, 999_999, 123_456_789, 100_000_000_000] {
            let mut distribution = LatencyDistribution::default();
            distribution.record(Duration::from_nanos(ns));
            let found = distribution.quantile(0.5).as_secs_f64() / Duration::from_nanos(ns).as_secs_f64();
            assert!((1.0..1.016).contains(&found), "{ns} ns: {found}");
        }
        let mut distribution = LatencyDistribution::default();
        distribution.record(Duration::MAX);
        assert_eq!((distribution.count(), distribution.quantile(1.0).as_secs()), (1, 137));
    }

    #[test]
    fn times_are_counted_below_the_first_bound_that_they_lie_below() {
        let mut distribution = LatencyDistribution::default();
        let bounds = [MS, 10 * MS, 100 * MS];
        for (times, ms) in [(1, 0), (2, 5), (3, 50), (4, 500)] {
            (0..times).for_each(|_| distribution.record(ms * MS));
        }
        assert_eq!(distribution.counts_below(&bounds), [1, 2, 3]);
        let earlier = distribution.clone();
        distribution.record(7 * MS);
        assert_eq!(distribution.since(&earlier).counts_below(&bounds), [0, 1, 0]);
    }

    #[test]
    fn an_empty_distribution_has_quantiles_of_zero() {
        assert_eq!(LatencyDistribution::default().quantile(0.99), Duration::ZERO);
        let json = serde_json::to_value(LatencyDistribution::default()).unwrap();
        assert_eq!((json["count"].as_u64(), json["p99"].as_f64()), (Some(0), Some(0.0)));
    }
}
