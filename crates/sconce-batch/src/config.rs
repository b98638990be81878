//! Bounds of a queue and of the batches taken from it.

use std::time::Duration;

/// Bounds of a queue and of the batches taken from it.
///
/// Names follow Triton's model configuration where it has the same setting. Weight is in the unit of
/// [`Executor::weight`](crate::Executor::weight): tokens for text, 1 per item by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatcherConfig {
    /// Items per batch; at least 1. Too small: the device's fixed cost is paid too often. Too large: the first item of
    /// a batch waits for the last.
    pub max_batch_size: usize,
    /// Weight per batch, from 1 to [`MAX_WEIGHT`](Self::MAX_WEIGHT). A single item above it is refused. Too small: long
    /// items are refused. Too large: a batch of long items holds the device, and its memory, for too long.
    pub max_batch_weight: usize,
    /// Queued items, those in a running batch not counted; at least 1. Too small: bursts are refused. Too large: items
    /// are queued for longer than their answers are wanted.
    pub max_queue_size: usize,
    /// Weight of the queued items, from `max_batch_weight` to [`MAX_WEIGHT`](Self::MAX_WEIGHT). Too small and too large: as
    /// `max_queue_size`.
    pub max_queue_weight: usize,
    /// Time that an idle device waits for a fuller batch after the first item came; at most
    /// [`MAX_QUEUE_DELAY`](Self::MAX_QUEUE_DELAY). With zero, the default, it takes the queued items at once. An item
    /// with a deadline never waits for a fuller batch longer than half of its time. Too short: batches are small. Too
    /// long: every item waits.
    pub max_queue_delay: Duration,
    /// Time by which an item counts as having come later, for each step of priority below the highest; at most
    /// [`MAX_PRIORITY_AGEING`](Self::MAX_PRIORITY_AGEING). Too short: a high priority hardly helps. Too long: in a long
    /// overload items of a low priority wait that much longer.
    pub priority_ageing: Duration,
}

/// 32 items or 8,192 units of weight per batch (32 texts of 256 tokens); 32 such batches may be queued.
impl Default for BatcherConfig {
    fn default() -> Self {
        Self {
            max_batch_size: 32,
            max_batch_weight: 8_192,
            max_queue_size: 1024,
            max_queue_weight: 262_144,
            max_queue_delay: Duration::ZERO,
            priority_ageing: Duration::from_secs(1),
        }
    }
}

impl BatcherConfig {
    /// The largest [`max_batch_weight`](Self::max_batch_weight) and [`max_queue_weight`](Self::max_queue_weight), so
    /// that no sum of weights overflows.
    pub const MAX_WEIGHT: usize = usize::MAX >> 16;
    /// The longest [`max_queue_delay`](Self::max_queue_delay).
    pub const MAX_QUEUE_DELAY: Duration = Duration::from_mins(1);
    /// The longest [`priority_ageing`](Self::priority_ageing).
    pub const MAX_PRIORITY_AGEING: Duration = Duration::from_hours(1);

    /// Checks every field against its bounds.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field that is out of bounds, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let at_most = |field, value: usize, max: usize| {
            if value <= max {
                return Ok(());
            }
            Err(ConfigError { field, value: value.to_string(), allowed: format!("at most {max}") })
        };
        at_most("max_batch_weight", self.max_batch_weight, Self::MAX_WEIGHT)?;
        at_most("max_queue_weight", self.max_queue_weight, Self::MAX_WEIGHT)?;
        let at_least = |field, value: usize, min: usize, why| {
            if value >= min {
                return Ok(());
            }
            Err(ConfigError { field, value: value.to_string(), allowed: format!("at least {min}{why}") })
        };
        at_least("max_batch_size", self.max_batch_size, 1, "")?;
        at_least("max_batch_weight", self.max_batch_weight, 1, "")?;
        at_least("max_queue_size", self.max_queue_size, 1, "")?;
        at_least(
            "max_queue_weight",
            self.max_queue_weight,
            self.max_batch_weight,
            " (max_batch_weight), or the heaviest item allowed could never wait",
        )?;
        let no_longer_than = |field, value: Duration, max: Duration| {
            if value <= max {
                return Ok(());
            }
            Err(ConfigError { field, value: format!("{value:?}"), allowed: format!("at most {max:?}") })
        };
        no_longer_than("max_queue_delay", self.max_queue_delay, Self::MAX_QUEUE_DELAY)?;
        no_longer_than("priority_ageing", self.priority_ageing, Self::MAX_PRIORITY_AGEING)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_bounds_is_refused_with_its_field_and_what_is_allowed() {
        let good = BatcherConfig::default;
        let table = [
            (BatcherConfig { max_batch_size: 0, ..good() }, "max_batch_size is 0, but must be at least 1"),
            (BatcherConfig { max_batch_weight: 0, ..good() }, "max_batch_weight is 0, but must be at least 1"),
            (BatcherConfig { max_queue_size: 0, ..good() }, "max_queue_size is 0, but must be at least 1"),
            (
                BatcherConfig { max_queue_weight: 5, ..good() },
                "max_queue_weight is 5, but must be at least 8192 (max_batch_weight), \
                 or the heaviest item allowed could never wait",
            ),
            (
                BatcherConfig { max_batch_weight: usize::MAX, ..good() },
                "max_batch_weight is 18446744073709551615, but must be at most 281474976710655",
            ),
            (
                BatcherConfig { max_queue_weight: usize::MAX, ..good() },
                "max_queue_weight is 18446744073709551615, but must be at most 281474976710655",
            ),
            (
                BatcherConfig { max_queue_delay: Duration::from_secs(61), ..good() },
                "max_queue_delay is 61s, but must be at most 60s",
            ),
            (
                BatcherConfig { priority_ageing: Duration::from_secs(3601), ..good() },
                "priority_ageing is 3601s, but must be at most 3600s",
            ),
        ];
        assert_eq!(good().validate(), Ok(()));
        for (config, message) in table {
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }
}
