//! Every function of the CUDA libraries that candle may call, under its own name, opened on first call.
//!
//! A binary linked with `-lcuda` does not start where there is no driver. Linked with this crate it does: the linker
//! finds `cuInit` and the others here, and each of them asks the dynamic loader for the real one when it is first called.
//! Where the library or the function is missing, the answer is a status of that library, such as
//! `CUDA_ERROR_NO_DEVICE`, which candle's callers know how to handle.
//!
//! ```
//! // Name this crate where you link candle's CUDA backend: rustc does not link a dependency that nothing names.
//! use sconce_cuda_link as _;
//!
//! match sconce_cuda_link::DRIVER.open() {
//!     Ok(()) => println!("there is a driver"),
//!     Err(missing) => println!("{missing}"),
//! }
//! ```
//!
//! The path of one call: the function jumps to the address in its `Function`; at first that is its own second half, which
//! goes through `resolve_and_jump` (saves all arguments) to `Function::resolve` (opens the library, looks the function
//! up, stores its address); from then on it is the real function, one indirect jump away.
//!
//! To add a function, add its name to the list of its library in `symbols/`; see `README.md` for where the lists come from.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("the cargo feature `cuda` is for Linux on x86-64 and aarch64; build without it");

mod function;
mod library;
mod trampoline;

pub use library::{CUBLAS, CUBLAS_LT, CURAND, DRIVER, Library, LibraryMissing, NVRTC, RUNTIME};

#[cfg(test)]
mod tests;
