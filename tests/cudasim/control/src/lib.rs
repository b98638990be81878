//! Reads the counts of the CUDA simulator, and makes things fail, from a program that runs on it.
//!
//! A test links this crate, never the simulator: that exports functions called `cuInit` and so on, which must come from
//! whatever driver the machine has. [`Control::attach`] opens that driver and looks for the simulator's own symbols; on
//! a real driver, or without one, there is nothing to control.
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

/// The driver's name, under which the simulator is found as well.
const DRIVER: &str = "libcuda.so.1";
/// The interface that this crate speaks, which the simulator says that it has.
pub const INTERFACE: u32 = 2;

/// A way to the simulator that this process runs on.
#[derive(Debug)]
pub struct Control {
    driver: Library,
}

impl Control {
    /// The simulator that is this process's driver; `None` where a real driver or none is found.
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

    /// What was asked of the machine since the last reset.
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

    /// Sets all counts to zero; peak memory starts from what is in use.
    pub fn reset_counts(&self) {
        let reset: Symbol<extern "C" fn()> = self.symbol(b"cudasim_reset_counts\0");
        reset();
    }

    /// Device memory that is in use, in bytes, over all devices.
    #[must_use]
    pub fn memory_in_use(&self) -> usize {
        let read: Symbol<extern "C" fn() -> usize> = self.symbol(b"cudasim_memory_in_use\0");
        read()
    }

    /// The `n`-th allocation of device memory from now on fails, counted from one; zero takes that back.
    pub fn fail_allocation(&self, n: u64) {
        let set: Symbol<extern "C" fn(u64)> = self.symbol(b"cudasim_fail_allocation\0");
        set(n);
    }

    /// After `n` more launches and matrix products the device is lost: every call fails until [`Self::restore`].
    pub fn lose_device_after_launches(&self, n: u64) {
        let set: Symbol<extern "C" fn(u64)> = self.symbol(b"cudasim_lose_device_after_launches\0");
        set(n);
    }

    /// Limits the memory of each device to `bytes`; `usize::MAX` takes that back.
    pub fn set_memory_limit(&self, bytes: usize) {
        let set: Symbol<extern "C" fn(usize)> = self.symbol(b"cudasim_set_memory_limit\0");
        set(bytes);
    }

    /// Takes back all failures, those that have happened too, and forgets work that has not run.
    pub fn restore(&self) {
        let restore: Symbol<extern "C" fn()> = self.symbol(b"cudasim_restore\0");
        restore();
    }

    /// The last fault in words: what, in which kernel, at which instruction, in which block and warp.
    #[must_use]
    pub fn last_fault(&self) -> Option<String> {
        let read: Symbol<extern "C" fn(*mut c_char, usize) -> usize> = self.symbol(b"cudasim_last_fault\0");
        let mut text = vec![0u8; read(std::ptr::null_mut(), 0)];
        let length = read(text.as_mut_ptr().cast(), text.len());
        text.truncate(length);
        (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
    }

    /// A symbol of the interface whose number was checked when this was attached.
    fn symbol<T>(&self, name: &[u8]) -> Symbol<'_, T> {
        // SAFETY: the interface's number says which symbols there are and of which types; `T` is given at each use
        // as the simulator declares it.
        unsafe { self.driver.get(name) }.expect("the interface has this symbol")
    }
}
