//! Threads, locks, atomics and the clock of this crate: those of the standard library and crossbeam.
//!
//! With `--cfg shuttle` or `--cfg loom` they are stand-ins by which a test tries many schedules (`tests/run schedules`).
//! What blocks a thread is named here and nowhere else; what tokio's channels, locks and notifications block is a future, and so they
//! stay as they are.

#[cfg(any(shuttle, loom))]
mod modelled;

#[cfg(not(any(shuttle, loom)))]
pub(crate) use {
    crossbeam_utils::sync::{Parker, Unparker, WaitGroup},
    std::sync::{Mutex, MutexGuard, atomic},
    std::thread,
};

#[cfg(any(shuttle, loom))]
pub(crate) use modelled::{Mutex, MutexGuard, Parker, Unparker, WaitGroup, atomic, now, thread};

/// The time.
#[cfg(not(any(shuttle, loom)))]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}
