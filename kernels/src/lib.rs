//! Fused kernels for CPUs and CUDA devices, each beside its plain reference: the only crate of Sconce with `unsafe`.
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
//! The path of one call: the public function in a kernel's `mod.rs` checks shapes and passes the rows to its `simd.rs`,
//! which is written once over `simd::Simd` and compiled for each instruction set ([`Isa`]); the best one of the
//! processor is picked at run time. [`encoder::Encoder`] puts the kernels together, [`Team`] spreads them over threads.
//!
//! | folder | content |
//! |---|---|
//! | [`linear`] | linear layers with packed weights: f32, int8, llama.cpp's blocks; activations fused; a candle operation |
//! | [`quantize`] | rows to bytes, each with its scale and zero point |
//! | [`attention`] | packed sequences of any lengths, online softmax |
//! | [`bias_gelu`] | bias and GELU; a candle operation |
//! | [`residual_norm`] | residual and layer norm |
//! | [`embedding`] | tables in f32 or int8; the sum of three rows and its norm |
//! | [`pooling`] | one vector per sequence |
//! | [`encoder`] | encoders described as data ([`encoder::EncoderSpec`]); all kernels as one operation on packed tokens |
//! | [`device`] | the CUDA devices of this machine; no kernel |
//!
//! With the feature `cuda` a kernel's folder also has its `.cu`, the PTX made of it (`tools/cuda/make-ptx`), and the
//! launch (`cuda.rs`); [`device`] finds the devices, and `encoder::cuda` is the encoder on one of them.
//!
//! | instruction set | test machines |
//! |---|---|
//! | AVX-512 with VNNI, AVX-VNNI, AVX2 with FMA, portable | Intel Emerald Rapids, in every test run (those that the processor has) |
//! | CUDA, compute capability 7.5, 8.0 and 8.9 | on the simulator (`tests/cudasim`), in every test run; on an H200 by hand, 2026-11-27 |
//! | NEON with dot product | under QEMU (`-cpu max`), by hand, 2026-11-24; never on a real processor, never timed |
//!
//! To add a kernel, add a folder: `mod.rs` (formula with its source, checked functions, candle hook), `reference.rs`
//! (plain f64, written to be read), `simd.rs` (fast), `cases.rs` (one table of cases for every implementation),
//! `tests.rs` (every instruction set against the reference), and a group in `benches/kernels.rs`; for GPUs
//! `<kernel>.cu`, its PTX, and `cuda.rs` with a test over the same cases. To add an instruction set, implement
//! `simd::Simd` and list it in `simd/mod.rs`; all tests then run on it.

#![deny(unsafe_op_in_unsafe_fn)]

// Named so that it is linked: it defines the functions that candle's CUDA backend calls.
#[cfg(feature = "cuda")]
use sconce_cuda_link as _;

mod aligned;
pub mod attention;
pub mod bias_gelu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod device;
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
