//! Replay of a trace against a model in this process.
//!
//! The load is open: each request is sent at its time, however many are not answered yet, and its latency counts from the
//! time at which it should have been sent. So a stall counts for every request that came during it (no coordinated
//! omission). `load` finds or makes up the trace, `inputs` makes the inputs, `driver` sends them, `figures` sums up.

mod driver;
mod figures;
mod inputs;
mod load;

pub(crate) use driver::{BatchRun, ReplayOutcome, ReplayedRequest, Replayer};
#[cfg(test)]
pub(crate) use figures::Stages;
pub(crate) use figures::{STAGES, SortedTimes, StageFigures, stage};
pub(crate) use inputs::{PlannedRequest, ReplayPlan};
pub(crate) use load::{LoadArgs, ReplayLoadError, positive_number};
