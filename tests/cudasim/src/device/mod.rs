//! The simulated machine: memory, streams, events, graphs, modules, and injected failures.
//!
//! [`simulator::Simulator`] owns all of it behind one lock. A call of the driver locks it, enqueues or waits, and
//! unlocks: there are no threads, so the result depends on the calls and on the seed alone.

pub mod error;
pub mod graph;
pub mod host;
pub mod memory;
pub mod modules;
pub mod schedule;
pub mod settings;
pub mod simulator;
pub mod work;
