//! One function: where it is, or what stands in for it.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::Library;

/// A function under its own name. The trampolines know that `address` comes first.
#[repr(C)]
pub(crate) struct Function {
    /// Where a call jumps to.
    address: AtomicPtr<()>,
    library: &'static Library,
    name: &'static CStr,
}

impl Function {
    /// `name` ends with a zero.
    pub(crate) const fn new(first_call: extern "C" fn(), library: &'static Library, name: &'static str) -> Self {
        let Ok(name) = CStr::from_bytes_with_nul(name.as_bytes()) else { panic!("a name ends with its only zero") };
        Self { address: AtomicPtr::new(first_call as *mut ()), library, name }
    }

    /// The real function, or what answers in its place, for this call and all that follow.
    pub(crate) extern "C" fn resolve(&'static self) -> *const () {
        let address = match self.library.function(self.name) {
            Ok(address) => address.as_ptr().cast(),
            Err(status) => stand_in(self.name, status).cast_mut(),
        };
        // Two first calls at a time find the same address. Relaxed: what the address points to was there before.
        self.address.store(address, Ordering::Relaxed);
        address
    }
}

/// A function with the return type of the one that is missing. Under the C calling conventions of x86-64 and aarch64 it
/// may ignore arguments that it was given.
fn stand_in(name: &CStr, status: c_int) -> *const () {
    match name.to_bytes() {
        b"cuGetErrorString" | b"cuGetErrorName" => driver_error_text as *const (),
        b"cublasXerbla" => nothing as *const (),
        name if name.ends_with(b"ErrorString") || name.ends_with(b"ErrorName") => error_text as *const (),
        name if name.ends_with(b"StatusString") || name.ends_with(b"StatusName") => error_text as *const (),
        // Versions, and what nvcc's start-up code calls to register kernels.
        name if name.ends_with(b"Version") && name.starts_with(b"cublas") => zero as *const (),
        name if name.starts_with(b"__cuda") => zero as *const (),
        _ => answering(status),
    }
}

/// A function that returns this status of a library.
fn answering(status: c_int) -> *const () {
    extern "C" fn answer<const STATUS: c_int>() -> c_int {
        STATUS
    }
    match status {
        1 => answer::<1> as *const (),
        11 => answer::<11> as *const (),
        15 => answer::<15> as *const (),
        100 => answer::<100> as *const (),
        203 => answer::<203> as *const (),
        801 => answer::<801> as *const (),
        _ => answer::<999> as *const (),
    }
}

/// What can be said where the library that has the texts is missing.
const TEXT: &CStr = c"the CUDA library of this function is not installed";

extern "C" fn driver_error_text(status: c_int, text: *mut *const c_char) -> c_int {
    let said = match status {
        100 => c"no CUDA driver (libcuda.so.1) on this machine",
        801 => c"the installed CUDA driver is too old for this",
        _ => TEXT,
    };
    if !text.is_null() {
        // SAFETY: the driver's documentation asks for a pointer that may be written to.
        unsafe { text.write(said.as_ptr()) };
    }
    0
}

extern "C" fn error_text() -> *const c_char {
    TEXT.as_ptr()
}

extern "C" fn zero() -> *const () {
    ptr::null()
}

extern "C" fn nothing() {}
