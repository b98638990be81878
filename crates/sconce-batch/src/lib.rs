#![doc = include_str!("../README.md")]
//!
//! # The path of one item
//! [`Queue::call`] → [`Batcher::offer`] admits it as an entry (hand-off 1: a sleeping device thread is woken) →
//! [`Batcher::poll`] puts it into a batch → [`Executor::run`] → the entry's reply (hand-off 2: the caller is woken).
//!
//! # Where to add things
//! A rule about what runs when goes into [`Batcher`], which is pure and takes `now`; the simulation in
//! `tests/simulation/` then covers it. Whose turn it is on a device belongs to [`DeficitRoundRobin`], a figure that operators need
//! to [`Stats`]; which of several unlike devices takes a batch is [`choose`]'s to say. `device.rs`, `lane.rs` and `queue.rs` only sleep, lock and send.

mod batcher;
mod block_on;
mod choice;
mod config;
mod cost;
mod deficit_round_robin;
mod device;
mod error;
mod executor;
mod lane;
mod linger;
mod queue;
mod running;
mod saturate;
mod shared;
mod stats;
mod terms;

pub use batcher::{
    Barred, Batcher, DeviceState, Entry, EntryId, Group, Profile, Ran, Refused, Role, Standing, Step, Trouble,
};
pub use choice::{Candidate, Choice, choose, whom_to_wake};
pub use config::{BatcherConfig, ConfigError};
pub use cost::{CostModel, Line};
pub use deficit_round_robin::{DeficitRoundRobin, Turn, Want};
pub use device::Device;
pub use error::{Error, ExecutorError};
pub use executor::{Executor, FnExecutor, Layout, Retry, from_fn};
pub use queue::{Depth, Queue, SpawnError, Ticket};
pub use shared::Completion;
pub use stats::{BATCH_SIZE_BUCKETS, Refusals, Stats};
pub use terms::{Priority, Terms};
