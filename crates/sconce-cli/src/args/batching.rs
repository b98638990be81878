//! Flags that say how batches are formed.

use std::time::Duration;

use sconce::BatcherConfig;

use super::numbers::whole;
use crate::error::Error;

/// The largest size of a batch.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Batching")]
pub(crate) struct BatchSizeArgs {
    /// Items per batch at most
    #[arg(long, value_name = "ITEMS", default_value_t = BatcherConfig::default().max_batch_size, value_parser = whole::<usize>)]
    max_batch_size: usize,

    /// Weight per batch at most: tokens for text, 1 per item otherwise
    #[arg(long, value_name = "WEIGHT", default_value_t = BatcherConfig::default().max_batch_weight, value_parser = whole::<usize>)]
    max_batch_weight: usize,
}

/// The forming of batches in a command whose requests may have to wait or be refused.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Batching")]
pub(crate) struct BatchingArgs {
    #[command(flatten)]
    size: BatchSizeArgs,

    /// Items that may wait; further items are refused
    #[arg(long, value_name = "ITEMS", default_value_t = BatcherConfig::default().max_queue_size, value_parser = whole::<usize>)]
    max_queue_size: usize,

    /// Weight that may wait; further items are refused
    #[arg(long, value_name = "WEIGHT", default_value_t = BatcherConfig::default().max_queue_weight, value_parser = whole::<usize>)]
    max_queue_weight: usize,

    /// Microseconds that an idle device waits for a fuller batch
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = whole::<u64>)]
    max_queue_delay_us: u64,

    /// Milliseconds that each step of priority below the highest adds to an item's time of arrival
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000, value_parser = whole::<u64>)]
    priority_ageing_ms: u64,
}

impl BatchSizeArgs {
    /// Bounds for a command that reads its own inputs; its read-ahead bounds the queue.
    pub(crate) fn config(&self) -> Result<BatcherConfig, Error> {
        let Self { max_batch_size, max_batch_weight } = *self;
        let default = BatcherConfig::default();
        // Four batches may wait, or the default number of items if that is more.
        let max_queue_size = default.max_queue_size.max(max_batch_size.saturating_mul(4));
        let max_queue_weight = default.max_queue_weight.max(max_batch_weight.saturating_mul(4));
        checked(BatcherConfig { max_batch_size, max_batch_weight, max_queue_size, max_queue_weight, ..default })
    }
}

impl BatchingArgs {
    pub(crate) fn config(&self) -> Result<BatcherConfig, Error> {
        let BatchSizeArgs { max_batch_size, max_batch_weight } = self.size;
        checked(BatcherConfig {
            max_batch_size,
            max_batch_weight,
            max_queue_size: self.max_queue_size,
            max_queue_weight: self.max_queue_weight,
            max_queue_delay: Duration::from_micros(self.max_queue_delay_us),
            priority_ageing: Duration::from_millis(self.priority_ageing_ms),
        })
    }
}

fn checked(config: BatcherConfig) -> Result<BatcherConfig, Error> {
    config.validate()?;
    Ok(config)
}
