//! Bounds of the stack and of each tier in it.

use std::time::Duration;

/// Bounds of the queues in front of the tiers, and of remembered bad inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// Entries that wait to be written, for each tier below memory; 1 to 1,048,576. Too small: bursts are dropped. Too
    /// large: much is lost when the process dies.
    pub max_queue_size: usize,
    /// Bytes that wait to be written, for each tier below memory; at least 1. Too small and too large: as `max_queue_size`.
    pub max_queue_bytes: usize,
    /// Entries written at once; 1 to 65,536. Too small: a round trip or a transaction is paid too often. Too large: a write
    /// takes so long that it passes its budget.
    pub max_batch_size: usize,
    /// Time for which a bad input is remembered; at most 100 years. Too short: it is computed again. Too long: memory
    /// is spent on errors.
    pub negative_ttl: Duration,
    /// Number of bad inputs that are remembered. Too small: they are computed again. Too large: memory is spent on errors.
    pub max_negatives: u64,
}

/// 1,024 entries or 64 MiB may wait for each tier and are written 64 at a time; 10,000 bad inputs for 10 s.
impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_queue_size: 1024,
            max_queue_bytes: 64 << 20,
            max_batch_size: 64,
            negative_ttl: Duration::from_secs(10),
            max_negatives: 10_000,
        }
    }
}

impl CacheConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        size("max_queue_size", self.max_queue_size, MAX_QUEUE_SIZE)?;
        size("max_queue_bytes", self.max_queue_bytes, usize::MAX)?;
        size("max_batch_size", self.max_batch_size, MAX_BATCH_SIZE)?;
        bounded("negative_ttl", self.negative_ttl, (Duration::ZERO, "no time"), MAX_TTL)
    }
}

/// Budgets and bounds of a tier below memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierConfig {
    /// Time for a lookup; after it the lookup is a miss. More than zero and at most a day, in steps of tokio's timers:
    /// 1 ms. Too short: hits are thrown away. Too long: a slow tier slows down every answer until its breaker opens.
    pub get_budget: Duration,
    /// Time for writing a batch; more than zero and at most a day. No caller waits for it. Too short: entries are lost.
    /// Too long: the queue fills up while a slow tier is tried.
    pub put_budget: Duration,
    /// Bytes of the largest value that is stored here; at least 1. Too small: answers are computed again. Too large:
    /// one value holds up the others that share its connection.
    pub max_value_bytes: usize,
    /// Breaker for the operations of the tier.
    pub breaker: BreakerConfig,
}

/// 10 ms to read, 1 s to write, values of at most 8 MiB.
impl Default for TierConfig {
    fn default() -> Self {
        Self {
            get_budget: Duration::from_millis(10),
            put_budget: Duration::from_secs(1),
            max_value_bytes: 8 << 20,
            breaker: BreakerConfig::default(),
        }
    }
}

impl TierConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        time("get_budget", self.get_budget)?;
        time("put_budget", self.put_budget)?;
        size("max_value_bytes", self.max_value_bytes, usize::MAX)?;
        self.breaker.validate()
    }
}

/// Settings of a circuit breaker, which stops using a tier that fails. Reads and writes have a breaker each: a full
/// disk can still be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open the breaker; at least 1. Too small: a hiccup turns the tier off. Too large: as many
    /// answers are late before it is turned off.
    pub max_failures: u32,
    /// Time for which the breaker stays open at first; then one operation is a trial. Doubled each time the trial
    /// fails. More than zero and at most a day. Too short: a dead tier costs its budget often. Too long: a tier that
    /// works again stays unused.
    pub cool_down: Duration,
    /// The longest time for which the breaker stays open: from `cool_down` to a day.
    pub max_cool_down: Duration,
}

impl BreakerConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        size("breaker.max_failures", self.max_failures as usize, usize::MAX)?;
        time("breaker.cool_down", self.cool_down)?;
        time("breaker.max_cool_down", self.max_cool_down)?;
        if self.max_cool_down >= self.cool_down {
            return Ok(());
        }
        let allowed = format!("at least {:?} (breaker.cool_down)", self.cool_down);
        Err(ConfigError { field: "breaker.max_cool_down", value: format!("{:?}", self.max_cool_down), allowed })
    }
}

/// Opens after 5 failures, for 0.5 s at first and 15 s at most.
impl Default for BreakerConfig {
    fn default() -> Self {
        Self { max_failures: 5, cool_down: Duration::from_millis(500), max_cool_down: Duration::from_secs(15) }
    }
}

/// A configured value that is out of bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but must be {allowed}")]
pub struct ConfigError {
    /// Name of the field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// The values that are allowed.
    pub allowed: String,
}

/// Largest bound of a queue. Some queues allocate room for all their entries at once.
pub(crate) const MAX_QUEUE_SIZE: usize = 1 << 20;
/// Largest number of entries of one operation, which holds all of them and names them in one statement.
const MAX_BATCH_SIZE: usize = 1 << 16;
/// Longest timeout or pause. Sums and multiples of such times never overflow.
const MAX_TIME: Duration = Duration::from_hours(24);
/// Longest time to live of an entry that has one. Every store can represent it.
const MAX_TTL: Duration = Duration::from_hours(24 * 36_500);

/// Refuses 0 and values above `max`.
pub(crate) fn size(field: &'static str, value: usize, max: usize) -> Result<(), ConfigError> {
    bounded(field, value, (1, "at least 1"), max)
}

/// Refuses zero and times above a day.
pub(crate) fn time(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    bounded(field, value, (Duration::from_nanos(1), "longer than nothing"), MAX_TIME)
}

/// Refuses times above a day.
pub(crate) fn time_or_none(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    bounded(field, value, (Duration::ZERO, "no time"), MAX_TIME)
}

/// Refuses times below a millisecond, the unit in which Redis counts, and above a day.
pub(crate) fn lease(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    bounded(field, value, (Duration::from_millis(1), "at least 1ms"), MAX_TIME)
}

/// Refuses times below a millisecond, the unit in which stores count, and above 100 years.
pub(crate) fn ttl(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    bounded(field, value, (Duration::from_millis(1), "at least 1ms"), MAX_TTL)
}

fn bounded<V: PartialOrd + Copy + std::fmt::Debug>(
    field: &'static str,
    value: V,
    (min, at_least_min): (V, &str),
    max: V,
) -> Result<(), ConfigError> {
    let allowed = if value < min {
        at_least_min.to_owned()
    } else if value > max {
        format!("at most {max:?}")
    } else {
        return Ok(());
    };
    Err(ConfigError { field, value: format!("{value:?}"), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_bounds_is_refused_with_its_field_and_what_is_allowed() {
        let cache = CacheConfig::default;
        assert_eq!(cache().validate(), Ok(()));
        let table = [
            (CacheConfig { max_queue_size: 0, ..cache() }, "max_queue_size is 0, but must be at least 1"),
            (
                CacheConfig { max_queue_size: (1 << 20) + 1, ..cache() },
                "max_queue_size is 1048577, but must be at most 1048576",
            ),
            (CacheConfig { max_queue_bytes: 0, ..cache() }, "max_queue_bytes is 0, but must be at least 1"),
            (CacheConfig { max_batch_size: 0, ..cache() }, "max_batch_size is 0, but must be at least 1"),
            (CacheConfig { max_batch_size: 1 << 17, ..cache() }, "max_batch_size is 131072, but must be at most 65536"),
            (
                CacheConfig { negative_ttl: MAX_TTL + Duration::from_nanos(1), ..cache() },
                "negative_ttl is 3153600000.000000001s, but must be at most 3153600000s",
            ),
        ];
        for (config, message) in table {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
        let (tier, breaker) = (TierConfig::default, BreakerConfig::default);
        assert_eq!(tier().validate(), Ok(()));
        let second = Duration::from_secs(1);
        let impatient = BreakerConfig { cool_down: second, max_cool_down: second / 2, ..breaker() };
        let table = [
            (TierConfig { get_budget: Duration::ZERO, ..tier() }, "get_budget is 0ns, but must be longer than nothing"),
            (
                TierConfig { put_budget: Duration::MAX, ..tier() },
                "put_budget is 18446744073709551615.999999999s, but must be at most 86400s",
            ),
            (
                TierConfig {
                    breaker: BreakerConfig { cool_down: 2 * MAX_TIME, max_cool_down: Duration::MAX, ..breaker() },
                    ..tier()
                },
                "breaker.cool_down is 172800s, but must be at most 86400s",
            ),
            (
                TierConfig { breaker: BreakerConfig { max_cool_down: 2 * MAX_TIME, ..breaker() }, ..tier() },
                "breaker.max_cool_down is 172800s, but must be at most 86400s",
            ),
            (
                TierConfig { breaker: BreakerConfig { max_failures: 0, ..breaker() }, ..tier() },
                "breaker.max_failures is 0, but must be at least 1",
            ),
            (
                TierConfig { breaker: impatient, ..tier() },
                "breaker.max_cool_down is 500ms, but must be at least 1s (breaker.cool_down)",
            ),
        ];
        for (config, message) in table {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }
}
