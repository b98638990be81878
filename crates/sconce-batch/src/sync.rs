//! Threads, locks, atomics and the clock of this crate: those of the standard library and crossbeam.
//!
//! With `--cfg shuttle` or `--cfg loom` they are stand-ins by which a test tries many schedules (`tests/run
//! schedules`). Code of this crate takes everything that blocks a thread from here. tokio's channels, locks and
//! notifications block futures, not threads, and need no stand-ins.

use std::sync::PoisonError;

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

/// The current time.
#[cfg(not(any(shuttle, loom)))]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Takes a lock even if a holder panicked: the short blocks under this crate's locks leave no half-made state.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
