//! Fused CPU kernels, each beside its plain reference: the only crate of Sconce with `unsafe`.
//!
//! ```
//! use sconce_kernels::bias_gelu::{GeluForm, bias_gelu};
//!
//! let mut rows = [0.5, -1.0, 1.5, 0.0]; // two rows of two
//! bias_gelu(&mut rows, &[0.5, 1.0], GeluForm::Erf)?;
//! assert!((rows[0] - 0.841_345).abs() < 1e-6); // gelu(1)
//! assert!(rows[1].abs() < 1e-6); // gelu(0)
//! # Ok::<(), sconce_kernels::KernelError>(())
//! ```
//!
//! The path of one call: the public function in a kernel's `mod.rs` checks shapes, picks the fastest implementation
//! that this processor can run, and hands the rows over; the tensor function beside it does the same for a candle
//! tensor and falls back to candle's own operations on devices that the kernel does not know.
//!
//! To add a kernel, add a folder: `mod.rs` (formula with its source, checked functions, candle hook), `reference.rs`
//! (plain f64, written to be read), `simd.rs` (fast), `tests.rs` (every implementation against the reference by one
//! case table). A `.cu` file goes beside them.

#![deny(unsafe_op_in_unsafe_fn)]

mod aligned;
pub mod attention;
pub mod bias_gelu;
pub mod embedding;
pub mod encoder;
mod error;
pub mod linear;
pub mod pooling;
pub mod quantize;
pub mod residual_norm;
mod rows;
mod simd;
mod team;

pub use error::KernelError;
pub use simd::Isa;
pub use team::{MAX_THREADS, Team};
