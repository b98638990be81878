//! Reads the counts of the CUDA simulator and injects failures, from a program that runs on the simulator.
//!
//! A test links this crate, never the simulator, which exports functions called `cuInit` and so on: these must come from
//! the machine's driver. [`Control::attach`] opens that driver and looks for the simulator's own symbols; on a real
//! driver, or without one, there is nothing to control.
//!
//! ```
//! use sconce_cudasim_control::Control;
//!
//! if let Some(control) = Control::attach() {
//!     control.reset_counts();
//!     // … run a batch …
//!     assert!(control.counts().launches <= 60);
//! }
//! ```

mod counts;

use std::ffi::c_char;

use libloading::{Library, Symbol};

pub use counts::Counts;

/// File name of the driver, and of the simulator.
const DRIVER: &str = "libcuda.so.1";
/// Version of the interface between this crate and the simulator.
pub const INTERFACE: u32 = 2;

/// Access to the simulator that this process runs on.
#[derive(Debug)]
pub struct Control {
    driver: Library,
}

impl Control {
    /// Attaches to the simulator that is this process's driver; `None` where a real driver or none is found.
    #[must_use]
    pub fn attach() -> Option<Self> {
        // SAFETY: opening a driver runs its initialisers, which is what every CUDA program does at its start.
        let driver = unsafe { Library::new(DRIVER) }.ok()?;
        // SAFETY: a library that has this symbol is the simulator, which gives it this type.
        let interface: Symbol<extern "C" fn() -> u32> = unsafe { driver.get(b"cudasim_interface\0") }.ok()?;
        if interface() != INTERFACE {
            return None;
        }
        Some(Self { driver })
    }

    /// The counts since the last reset.
    ///
    /// # Panics
    ///
    /// Where the simulator breaks its own interface.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read: Symbol<extern "C" fn(*mut Counts)> = self.symbol(b"cudasim_counts\0");
        let mut counts = Counts::default();
        read(&raw mut counts);
        counts
    }

    /// Sets all counts to zero; peak memory starts from the memory in use.
    pub fn reset_counts(&self) {
        let reset: Symbol<extern "C" fn()> = self.symbol(b"cudasim_reset_counts\0");
        reset();
    }

    /// Device memory in use, in bytes, over all devices.
    #[must_use]
    pub fn memory_in_use(&self) -> usize {
        let read: Symbol<extern "C" fn() -> usize> = self.symbol(b"cudasim_memory_in_use\0");
        read()
    }

    /// Makes the `n`-th allocation of device memory from now on fail, counted from one; zero cancels that.
    pub fn fail_allocation(&self, n: u64) {
        let set: Symbol<extern "C" fn(u64)> = self.symbol(b"cudasim_fail_allocation\0");
        set(n);
    }

    /// Loses the device after `n` more launches and matrix products: every call then fails until [`Self::restore`].
    pub fn lose_device_after_launches(&self, n: u64) {
        let set: Symbol<extern "C" fn(u64)> = self.symbol(b"cudasim_lose_device_after_launches\0");
        set(n);
    }

    /// Limits the memory of each device to `bytes`; `usize::MAX` lifts the limit.
    pub fn set_memory_limit(&self, bytes: usize) {
        let set: Symbol<extern "C" fn(usize)> = self.symbol(b"cudasim_set_memory_limit\0");
        set(bytes);
    }

    /// Cancels all failures, also those that have happened, and forgets queued work.
    pub fn restore(&self) {
        let restore: Symbol<extern "C" fn()> = self.symbol(b"cudasim_restore\0");
        restore();
    }

    /// The last fault in words: its kind, kernel, instruction, block and warp.
    #[must_use]
    pub fn last_fault(&self) -> Option<String> {
        let read: Symbol<extern "C" fn(*mut c_char, usize) -> usize> = self.symbol(b"cudasim_last_fault\0");
        let mut text = vec![0u8; read(std::ptr::null_mut(), 0)];
        let length = read(text.as_mut_ptr().cast(), text.len());
        text.truncate(length);
        (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
    }

    /// A symbol of the interface, whose version `attach` has checked.
    fn symbol<T>(&self, name: &[u8]) -> Symbol<'_, T> {
        // SAFETY: the interface's number says which symbols there are and of which types; `T` is given at each use
        // as the simulator declares it.
        unsafe { self.driver.get(name) }.expect("the interface has this symbol")
    }
}
