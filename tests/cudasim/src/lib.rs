//! A CUDA driver, cuBLAS and cuRAND that run on a CPU, and check what runs on them.
//!
//! The shared object that this crate builds is put in the place of `libcuda.so.1` and its companions. A program that
//! is linked against CUDA then runs as on a machine with a card: its PTX is interpreted instruction by instruction,
//! and what a card would let pass is reported: accesses out of bounds or after a free, reads of what was never written,
//! races on shared memory, barriers that not all threads reach, copies that nobody waited for.
//!
//! The way of a kernel: `cuModuleLoadData` parses PTX ([`ptx`]), `cuModuleGetFunction` compiles an entry point,
//! `cuLaunchKernel` ([`driver`]) puts it on a stream ([`device`]), and when the stream gets to it the interpreter
//! runs it over the device's memory.
//!
//! | to add | where |
//! |---|---|
//! | a PTX instruction | `ptx/operation.rs`, `ptx/decode/`, `interpreter/` |
//! | a call of the driver | `driver/`, work that waits on a stream in `device/work.rs` |
//! | a call of cuBLAS or cuRAND | `blas/`, `random/` |
//! | something to count or to make fail | `device/counts.rs`, `device/simulator.rs`, `control.rs`, and the control crate |

pub mod blas;
pub mod control;
pub mod driver;
pub mod random;

#[doc(hidden)]
pub mod device;
#[doc(hidden)]
pub mod interpreter;
#[doc(hidden)]
pub mod ptx;
