//! One GPU: its context, a stream, the functions of the kernels, memory and cuBLAS. The launchers of the kernels lie beside
//! their CPU code (`<kernel>/cuda.rs`), [`crate::encoder::cuda`] puts them together.
//!
//! - **PTX** is committed for compute capabilities 7.5, 8.0 and 8.9 (`<kernel>/ptx/`, made by `tools/cuda/make-ptx`; zcat
//!   shows it), one file for versions that differ in their target alone, and embedded as it lies there. It is decompressed
//!   when a device is opened; the driver compiles the highest that the device can run (`ptx.rs`). No CUDA toolkit is needed.
//! - **Calls** go straight to the driver, one per launch: cudarc's safe launches cost several, and its buffers two events
//!   each. The `unsafe` code for that is in `gpu.rs`, `memory.rs` and `blas.rs`; a launcher checks shapes, and its views
//!   know their bounds.
//! - **One stream, one thread**: a [`Gpu`] has one owner. It may move to another thread, since every public verb begins
//!   by making its context current.

mod activation;
mod blas;
mod error;
mod gpu;
mod graph;
mod memory;
mod ptx;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use activation::DeviceActivation as Activation;
pub use gpu::Gpu;
pub(crate) use gpu::{Argument, LaunchShape, dimension};
pub(crate) use graph::Graph;
pub(crate) use memory::{Buffer, Element, Matrix, Pinned, QuantizedMatrix, View};

use crate::KernelError;

/// A number as kernels take it: 32 bits with sign.
pub(crate) fn int(number: usize) -> Result<i32, KernelError> {
    i32::try_from(number).map_err(|_| mismatch(format!("{number} is more than a kernel can count")))
}

/// The error for parts that do not fit together.
pub(crate) fn mismatch(what: String) -> KernelError {
    KernelError::Mismatch { what }
}
