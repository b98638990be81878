//! One function of a CUDA library: its address, or the stand-in that answers where it is missing.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::Library;

/// A library function and the address that its calls jump to. The trampolines rely on `address` being the first field.
#[repr(C)]
pub(crate) struct Function {
    /// Jump target of a call: first the trampoline that resolves the function, then the function or its stand-in.
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

    /// Finds the real function, or a stand-in where it is missing, and keeps its address for all later calls.
    pub(crate) extern "C" fn resolve(&'static self) -> *const () {
        let address = match self.library.function(self.name) {
            Ok(address) => address.as_ptr().cast(),
            Err(status) => stand_in(self.name, status).cast_mut(),
        };
        // Concurrent first calls find the same address. Relaxed: the code at that address was loaded before.
        self.address.store(address, Ordering::Relaxed);
        address
    }
}

/// A stand-in with the return type of the missing function. Under the C calling conventions of x86-64 and aarch64 it may
/// ignore the arguments that it is given.
fn stand_in(name: &CStr, status: c_int) -> *const () {
    match name.to_bytes() {
        b"cuGetErrorString" | b"cuGetErrorName" => driver_error_text as *const (),
        b"cublasXerbla" => nothing as *const (),
        name if name.ends_with(b"ErrorString") || name.ends_with(b"ErrorName") => error_text as *const (),
        name if name.ends_with(b"StatusString") || name.ends_with(b"StatusName") => error_text as *const (),
        // Version queries, and the functions by which nvcc's start-up code registers kernels.
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

/// Error text where the library that has the real texts is missing.
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
