//! Dynamic micro-batching for any executor.
//!
//! Callers hand in items one at a time; a device thread takes what waits as one batch, runs it, and answers each
//! caller. Queues and batches are bounded by count and by weight, items have deadlines, a dropped future cancels,
//! refusals are typed, and a panic in the executor is caught and answered. Nothing here knows of tensors.
//!
//! ```
//! use sconce_batch::{BatcherConfig, Queue, from_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let squares = from_fn(|batch: &[u64]| Ok(batch.iter().map(|number| number * number).collect()));
//! let queue = Queue::spawn("squares", BatcherConfig::default(), [squares])?;
//! let (three, four) = tokio::join!(queue.call(3, None), queue.call(4, None));
//! assert_eq!((three?.output, four?.output), (9, 16));
//! # Ok(())
//! # }
//! ```
//!
//! # The path of one item
//! [`Queue::call`] → [`Batcher::offer`] admits it as an entry (hand-off 1: a sleeping device thread is woken) →
//! [`Batcher::poll`] puts it into a batch → [`Executor::run`] → the entry's reply (hand-off 2: the caller is woken).
//!
//! # Where to add things
//! A rule about what runs when goes into [`Batcher`], which is pure and takes `now`; the simulation in
//! `tests/simulation.rs` then covers it. A figure that operators need goes into [`Stats`]. `worker.rs` and `queue.rs` only sleep, lock and send.

mod batcher;
mod block_on;
mod config;
mod cost;
mod deficit_round_robin;
mod device;
mod error;
mod executor;
mod lane;
mod linger;
mod queue;
mod shared;
mod stats;
mod terms;

pub use batcher::{Batcher, Entry, EntryId, Ran, Refused, Step};
pub use config::{BatcherConfig, ConfigError};
pub use cost::CostModel;
pub use deficit_round_robin::{DeficitRoundRobin, Turn, Want};
pub use device::Device;
pub use error::{Error, ExecutorError};
pub use executor::{Executor, Layout, from_fn};
pub use queue::{Depth, Queue, SpawnError, Ticket};
pub use shared::Completion;
pub use stats::{BATCH_SIZE_BUCKETS, Refusals, Stats};
pub use terms::{Priority, Terms};
