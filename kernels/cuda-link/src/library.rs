//! The CUDA libraries: their file names, and the statuses that their functions return where they are missing.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

/// The driver, which comes with the kernel module.
pub static DRIVER: Library = Library::new(&[c"libcuda.so.1", c"libcuda.so"], Absent { library: 100, function: 801 });
/// Linear algebra. This library and the following ones come with a CUDA toolkit.
pub static CUBLAS: Library = Library::new(
    &[c"libcublas.so.13", c"libcublas.so.12", c"libcublas.so"],
    // CUBLAS_STATUS_NOT_INITIALIZED, CUBLAS_STATUS_NOT_SUPPORTED.
    Absent { library: 1, function: 15 },
);
/// Linear algebra with the lighter interface.
pub static CUBLAS_LT: Library = Library::new(
    &[c"libcublasLt.so.13", c"libcublasLt.so.12", c"libcublasLt.so"],
    // The same as for cuBLAS.
    Absent { library: 1, function: 15 },
);
/// Random numbers.
pub static CURAND: Library = Library::new(
    &[c"libcurand.so.10", c"libcurand.so"],
    // CURAND_STATUS_INITIALIZATION_FAILED, CURAND_STATUS_INTERNAL_ERROR.
    Absent { library: 203, function: 999 },
);
/// The run-time compiler of CUDA C++; Sconce itself does not use it.
pub static NVRTC: Library = Library::new(
    &[c"libnvrtc.so.13", c"libnvrtc.so.12", c"libnvrtc.so"],
    // NVRTC_ERROR_INTERNAL_ERROR.
    Absent { library: 11, function: 11 },
);
/// The runtime API. Kernels that nvcc links into a program call it: candle's quantised ones, in a build with a toolkit.
pub static RUNTIME: Library = Library::new(
    &[c"libcudart.so.13", c"libcudart.so.12", c"libcudart.so"],
    // cudaErrorNoDevice, cudaErrorNotSupported: the same numbers as the driver's.
    Absent { library: 100, function: 801 },
);

/// A shared library that is opened when it is first needed.
#[derive(Debug)]
pub struct Library {
    /// File names, in the order in which they are tried.
    names: &'static [&'static CStr],
    absent: Absent,
    handle: OnceLock<Result<Handle, LibraryMissing>>,
}

/// Statuses, in the library's own numbers, that functions return where they cannot be called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Absent {
    /// Status of every function of a library that cannot be opened: not initialised, or no device.
    pub(crate) library: c_int,
    /// Status of a function that the opened library is too old to have: not supported.
    pub(crate) function: c_int,
}

/// A library that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} cannot be opened: {reason}")]
pub struct LibraryMissing {
    /// The first of the names that were tried.
    pub name: String,
    /// The dynamic loader's message for that name.
    pub reason: String,
}

/// The dynamic loader's handle. Never closed: addresses of the library's functions are kept until the process ends.
#[derive(Debug, Clone, Copy)]
struct Handle(NonNull<c_void>);

// SAFETY: the dynamic loader's functions may be called with a handle from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Library {
    pub(crate) const fn new(names: &'static [&'static CStr], absent: Absent) -> Self {
        Self { names, absent, handle: OnceLock::new() }
    }

    /// Opens the library, if that has not been tried before.
    ///
    /// # Errors
    /// [`LibraryMissing`] has the name that was tried first and the dynamic loader's message.
    pub fn open(&self) -> Result<(), LibraryMissing> {
        self.handle().map(|_| ()).map_err(Clone::clone)
    }

    /// The address of a function, or the status to return where it is missing.
    pub(crate) fn function(&self, name: &CStr) -> Result<NonNull<c_void>, c_int> {
        let Ok(Handle(handle)) = self.handle() else { return Err(self.absent.library) };
        // SAFETY: the handle is of an open library, the name ends with a zero.
        let address = unsafe { libc::dlsym(handle.as_ptr(), name.as_ptr()) };
        NonNull::new(address).ok_or(self.absent.function)
    }

    fn handle(&self) -> Result<Handle, &LibraryMissing> {
        self.handle.get_or_init(|| open(self.names)).as_ref().copied()
    }
}

fn open(names: &[&CStr]) -> Result<Handle, LibraryMissing> {
    let mut first = None;
    for name in names {
        // SAFETY: the name ends with a zero. The library's constructors run, as they would if it were linked.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if let Some(handle) = NonNull::new(handle) {
            return Ok(Handle(handle));
        }
        let missing = || LibraryMissing { name: name.to_string_lossy().into_owned(), reason: loader_error() };
        first.get_or_insert_with(missing);
    }
    Err(first.expect("each library has a name"))
}

fn loader_error() -> String {
    // SAFETY: called right after a failure on the same thread.
    let text: *const c_char = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the dynamic loader gives no reason".to_owned();
    }
    // SAFETY: not null, and the loader keeps the text until its next call on this thread.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
