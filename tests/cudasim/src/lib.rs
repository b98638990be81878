//! A stand-in for a CUDA driver.
pub mod device;
pub mod interpreter;
pub mod ptx;
