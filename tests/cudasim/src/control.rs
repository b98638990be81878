//! The simulator's own symbols, for tests that run on it: counts, failures to inject, the last fault.
//!
//! `sconce-cudasim-control` finds them in the driver that a program has loaded. They do not count as calls of the driver.

use std::ffi::c_char;

use sconce_cudasim_control::{Counts, INTERFACE};

use crate::device::host::{HostPointer, write};
use crate::device::simulator::{Simulator, lock};

fn with<T>(act: impl FnOnce(&mut Simulator) -> T) -> T {
    act(lock().as_mut().expect("built when it was locked"))
}

/// Version of this interface.
#[unsafe(no_mangle)]
pub extern "C" fn cudasim_interface() -> u32 {
    INTERFACE
}

/// Writes the counts.
///
/// # Safety
/// `out` points to writable memory for a `Counts`, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudasim_counts(out: *mut Counts) {
    let counts = with(|simulator| simulator.counts);
    if !out.is_null() {
        // SAFETY: the caller vouches for the memory.
        unsafe { out.write(counts) };
    }
}

/// Sets all counts to zero; peak memory starts from the memory in use.
#[unsafe(no_mangle)]
pub extern "C" fn cudasim_reset_counts() {
    with(|simulator| {
        let used: usize = simulator.devices.iter().map(|device| device.memory.used).sum();
        simulator.counts = Counts { peak_memory: used as u64, ..Default::default() };
    });
}

/// Makes the `n`-th allocation from now on fail; zero for none.
#[unsafe(no_mangle)]
pub extern "C" fn cudasim_fail_allocation(n: u64) {
    with(|simulator| simulator.failures.allocation_in = (n > 0).then_some(n));
}

/// Loses the device after `n` more launches and matrix products.
#[unsafe(no_mangle)]
pub extern "C" fn cudasim_lose_device_after_launches(n: u64) {
    with(|simulator| simulator.failures.loss_in = Some(n));
}

/// Limits the memory of each device to `bytes`; `usize::MAX` lifts the limit.
#[unsafe(no_mangle)]
pub extern "C" fn cudasim_set_memory_limit(bytes: usize) {
    with(|simulator| simulator.failures.memory_limit = (bytes != usize::MAX).then_some(bytes));
}

/// Memory in use in bytes, over all devices.
#[unsafe(no_mangle)]
pub extern "C" fn cudasim_memory_in_use() -> usize {
    with(|simulator| simulator.devices.iter().map(|device| device.memory.used).sum())
}

/// Cancels all failures, also those that have happened, and forgets queued work.
#[unsafe(no_mangle)]
pub extern "C" fn cudasim_restore() {
    with(Simulator::restore);
}

/// Writes the last fault as UTF-8, cut to `length` bytes; returns its full length, zero where there was no fault.
#[unsafe(no_mangle)]
pub extern "C" fn cudasim_last_fault(out: *mut c_char, length: usize) -> usize {
    let text = with(|simulator| simulator.last_fault.clone()).unwrap_or_default();
    if !out.is_null() {
        write(HostPointer(out as usize), &text.as_bytes()[..text.len().min(length)]);
    }
    text.len()
}
