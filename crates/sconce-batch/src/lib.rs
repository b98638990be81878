#![doc = include_str!("../README.md")]
//!
//! # The path of one item
//! [`Queue::call`] → [`Batcher::offer`] admits it as an entry (hand-off 1: a sleeping device thread is woken) →
//! [`Batcher::poll`] puts it into a batch → [`Executor::run`] → the entry's reply (hand-off 2: the caller is woken).
//!
//! # Where to add things
//! - A rule about the time and content of a batch: [`Batcher`], which is pure and takes `now`; the simulation in
//!   `tests/simulation/` then covers it.
//! - The order of queues on a shared device: [`DeficitRoundRobin`].
//! - The choice among unlike devices: [`choose`].
//! - A figure that operators need: [`Stats`].
//!
//! `device.rs`, `queue_worker.rs` and `queue.rs` only sleep, lock and send.

mod batcher;
mod block_on;
mod choice;
mod config;
mod cost;
mod deficit_round_robin;
mod device;
mod device_waker;
mod error;
mod executor;
mod linger;
mod queue;
mod queue_handle;
mod queue_state;
mod queue_worker;
mod reply;
mod running;
mod saturate;
#[cfg(all(test, shuttle))]
mod schedules;
mod stats;
mod sync;
mod terms;

pub use batcher::{
    Batcher, DeviceFault, DeviceState, Entry, EntryId, ExcludedDevices, Forecast, Group, Profile, Ran, Refused, Role,
    Standing, Step,
};
pub use choice::{Candidate, Choice, choose, whom_to_wake};
pub use config::{BatcherConfig, ConfigError};
pub use cost::{CostLine, CostModel};
pub use deficit_round_robin::{DeficitRoundRobin, QueueTurn, Want};
pub use device::DeviceThread;
pub use error::{Error, ExecutorError};
pub use executor::{BatchLayout, Executor, FnExecutor, Retry, from_fn};
pub use queue::{Depth, Queue, SpawnError, Ticket};
pub use reply::Completion;
pub use stats::{BATCH_SIZE_BUCKETS, Refusals, Stats};
pub use terms::{Priority, Terms};
