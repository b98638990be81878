//! cuBLAS: matrix products, enqueued on the handle's stream like a kernel.

mod entry;
mod gemm;

pub use entry::*;
pub(crate) use gemm::Gemm;
