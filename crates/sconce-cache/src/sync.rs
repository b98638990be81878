//! The locks of this crate: the standard library's, or with `--cfg shuttle` stand-ins by which a test tries many schedules
//! (`tests/run schedules`). Counters need no stand-ins, because nothing waits for them.

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard};
