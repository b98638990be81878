//! A CUDA driver, cuBLAS and cuRAND that run on a CPU and check the programs that run on them.
//!
//! The shared object that this crate builds takes the place of `libcuda.so.1` and its companions. A program that is
//! linked against CUDA then runs as on a machine with a card: its PTX is interpreted instruction by instruction, and
//! mistakes that a card would let pass are reported: accesses out of bounds or after a free, reads of unwritten memory,
//! races on shared memory, barriers that not all threads reach, copies that nothing waited for.
//!
//! The path of a kernel: `cuModuleLoadData` parses PTX ([`ptx`]), `cuModuleGetFunction` compiles an entry point,
//! `cuLaunchKernel` ([`driver`]) puts it on a stream ([`device`]), and when the stream gets to it the interpreter
//! runs it over the device's memory.
//!
//! | to add | where |
//! |---|---|
//! | a PTX instruction | `ptx/operation.rs`, `ptx/decode/`, `interpreter/` |
//! | a call of the driver | `driver/`, work that waits on a stream in `device/work.rs` |
//! | a call of cuBLAS or cuRAND | `blas/`, `random/` |
//! | a count or an injected failure | the control crate (`control/src/counts.rs`), `device/simulator.rs`, `control.rs` |

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
