//! Bounds of the stack and of each tier in it.

use std::time::Duration;

/// Bounds of what the whole stack keeps for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// Entries that wait to be written, for each tier below memory. Too small: bursts are dropped. Too large: much is
    /// lost when the process dies.
    pub max_queue_size: usize,
    /// Bytes that wait to be written, for each tier below memory. Too small and too large: as `max_queue_size`.
    pub max_queue_bytes: usize,
    /// Entries written at once. Too small: a round trip or a transaction is paid too often. Too large: one takes so long
    /// that it passes its budget.
    pub max_batch_size: usize,
    /// How long a deterministic bad input is remembered. Too short: it is computed again. Too long: memory is spent
    /// on errors.
    pub negative_ttl: Duration,
    /// Bad inputs that are remembered.
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
        positive("max_queue_size", self.max_queue_size)?;
        positive("max_queue_bytes", self.max_queue_bytes)?;
        positive("max_batch_size", self.max_batch_size)
    }
}

/// What the stack allows a tier below memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierConfig {
    /// Time for a lookup; after it the lookup is a miss. Too short: hits are thrown away. Too long: a slow tier slows
    /// down every answer until its breaker opens. Timers are as fine as tokio's: 1 ms.
    pub get_budget: Duration,
    /// Time for writing a batch. Nobody waits for it.
    pub put_budget: Duration,
    /// Larger values are not stored here. Too small: answers are computed again. Too large: one value holds up the
    /// others that share its connection.
    pub max_value_bytes: usize,
    /// When the tier is left alone.
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
        not_zero("get_budget", self.get_budget)?;
        not_zero("put_budget", self.put_budget)?;
        positive("max_value_bytes", self.max_value_bytes)?;
        self.breaker.validate()
    }
}

/// When a tier is left alone, and for how long. Reads and writes have a breaker each: a full disk can still be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures in a row that open it. Too small: a hiccup turns the tier off. Too large: as many answers are late
    /// before it is.
    pub max_failures: u32,
    /// How long it stays open the first time; then one operation tries. Doubled each time the trial fails. Too short: a
    /// dead tier costs its budget often. Too long: a tier that is back stays unused.
    pub cool_down: Duration,
    /// The longest it stays open.
    pub max_cool_down: Duration,
}

impl BreakerConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        positive("breaker.max_failures", self.max_failures as usize)?;
        not_zero("breaker.cool_down", self.cool_down)?;
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
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

pub(crate) fn positive(field: &'static str, value: usize) -> Result<(), ConfigError> {
    if value > 0 {
        return Ok(());
    }
    Err(ConfigError { field, value: value.to_string(), allowed: "at least 1".to_owned() })
}

pub(crate) fn not_zero(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    if !value.is_zero() {
        return Ok(());
    }
    Err(ConfigError { field, value: format!("{value:?}"), allowed: "longer than nothing".to_owned() })
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
            (CacheConfig { max_queue_bytes: 0, ..cache() }, "max_queue_bytes is 0, but must be at least 1"),
            (CacheConfig { max_batch_size: 0, ..cache() }, "max_batch_size is 0, but must be at least 1"),
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
