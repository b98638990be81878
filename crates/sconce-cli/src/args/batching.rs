//! How batches are formed.

use std::time::Duration;

use sconce::BatcherConfig;

use super::numbers::whole;
use crate::error::Error;

/// How large batches are.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Batching")]
pub(crate) struct BatchSizeArgs {
    /// Items per batch
    #[arg(long, value_name = "ITEMS", default_value_t = BatcherConfig::default().max_batch_size, value_parser = whole::<usize>)]
    max_batch_size: usize,

    /// Weight per batch: tokens for text, 1 per item otherwise
    #[arg(long, value_name = "WEIGHT", default_value_t = BatcherConfig::default().max_batch_weight, value_parser = whole::<usize>)]
    max_batch_weight: usize,
}

/// How batches are formed where requests come from elsewhere, and may have to wait or be refused.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Batching")]
pub(crate) struct BatchingArgs {
    #[command(flatten)]
    size: BatchSizeArgs,

    /// Items that may wait; more are refused
    #[arg(long, value_name = "ITEMS", default_value_t = BatcherConfig::default().max_queue_size, value_parser = whole::<usize>)]
    max_queue_size: usize,

    /// Weight that may wait; more is refused
    #[arg(long, value_name = "WEIGHT", default_value_t = BatcherConfig::default().max_queue_weight, value_parser = whole::<usize>)]
    max_queue_weight: usize,

    /// Microseconds that an idle device waits for a fuller batch
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = whole::<u64>)]
    max_queue_delay_us: u64,

    /// Milliseconds by which an item counts as younger for each step of priority below the highest
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000, value_parser = whole::<u64>)]
    priority_ageing_ms: u64,
}

impl BatchSizeArgs {
    /// Bounds for a command that reads its own inputs: what waits is bounded by what it reads ahead.
    pub(crate) fn config(&self) -> Result<BatcherConfig, Error> {
        let Self { max_batch_size, max_batch_weight } = *self;
        let default = BatcherConfig::default();
        // As many batches may wait as do by default.
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
