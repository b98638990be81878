//! Host memory that callers hand over as pointers. All access to it is here.
//!
//! The pointers come over the C interface of CUDA, whose contract each `SAFETY` line relies on: a caller passes valid
//! ranges, and keeps them valid until the work that uses them is complete. The functions are safe to call because no
//! Rust type can express that contract, and every call of them would repeat it.
#![expect(clippy::not_unsafe_ptr_arg_deref, reason = "the contract of the C interface, as said above")]

use std::alloc::Layout;
use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;

use super::error::Status;

const PAGE: usize = 4096;

/// A caller's place for a result; CUDA allows it to be null where the caller does not want the result.
pub type Out<'a, T> = Option<&'a mut MaybeUninit<T>>;

/// Writes a result; a null pointer is an invalid value.
pub fn put<T>(place: Out<T>, value: T) -> Result<(), Status> {
    place.ok_or(Status::INVALID_VALUE)?.write(value);
    Ok(())
}

/// An address of host memory for work on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPointer(pub usize);

/// Copies `bytes` of host memory.
pub fn read(from: HostPointer, bytes: usize) -> Vec<u8> {
    if bytes == 0 {
        return Vec::new();
    }
    let mut data = vec![0; bytes];
    // SAFETY: the caller of the CUDA function vouches for `bytes` readable bytes at `from`; `data` is new.
    unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, data.as_mut_ptr(), bytes) };
    data
}

/// Writes host memory.
pub fn write(to: HostPointer, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    // SAFETY: the caller of the CUDA function vouches for as many writable bytes at `to` until it has waited for the
    // copy; `data` is not the caller's memory.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to.0 as *mut u8, data.len()) };
}

/// Reads a value of the caller.
pub fn value<T: Copy>(pointer: *const c_void) -> Result<T, Status> {
    if pointer.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: the caller of the CUDA function vouches for a `T` at the address, aligned or not.
    Ok(unsafe { std::ptr::read_unaligned(pointer.cast::<T>()) })
}

/// Writes a value of the caller.
pub fn set_value<T>(pointer: *mut c_void, value: T) -> Result<(), Status> {
    if pointer.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: the caller of the CUDA function vouches for room for a `T` at the address, aligned or not.
    unsafe { std::ptr::write_unaligned(pointer.cast::<T>(), value) };
    Ok(())
}

/// Pointer number `index` of an array of pointers.
pub fn element(array: *const *mut c_void, index: usize) -> Result<*mut c_void, Status> {
    if array.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: the caller of the CUDA function vouches for an array with one pointer for each parameter.
    Ok(unsafe { *array.add(index) })
}

/// Reads a C string of the caller.
pub fn text(pointer: *const c_char) -> Result<String, Status> {
    if pointer.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: the caller of the CUDA function vouches for a string that ends with a zero byte.
    let text = unsafe { CStr::from_ptr(pointer) };
    Ok(text.to_string_lossy().into_owned())
}

/// Calls a function of the caller.
pub fn call(function: extern "C" fn(*mut c_void), argument: HostPointer) {
    function(argument.0 as *mut c_void);
}

/// Allocates host memory aligned to a page.
pub fn allocate(bytes: usize) -> Option<HostPointer> {
    let layout = Layout::from_size_align(bytes.max(1), PAGE).ok()?;
    // SAFETY: the layout has a size above zero.
    let memory = unsafe { std::alloc::alloc(layout) };
    (!memory.is_null()).then_some(HostPointer(memory as usize))
}

/// Frees the memory that [`allocate`] returned for `bytes`.
pub fn release(memory: HostPointer, bytes: usize) {
    let Ok(layout) = Layout::from_size_align(bytes.max(1), PAGE) else { return };
    // SAFETY: the simulator keeps the size of each allocation, and forgets it when it is released.
    unsafe { std::alloc::dealloc(memory.0 as *mut u8, layout) };
}
