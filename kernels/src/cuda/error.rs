//! Errors of the driver and of cuBLAS as [`KernelError`]s.

use std::fmt::Display;

use cudarc::cublas::result::CublasError;
use cudarc::driver::DriverError;

use crate::KernelError;
use crate::device::DeviceFailure;
use crate::device::cuda::{of_cublas, of_driver};

/// Names the call that failed.
pub(super) trait Named<T> {
    fn named(self, call: &'static str) -> Result<T, KernelError>;
}

impl<T> Named<T> for Result<T, DriverError> {
    fn named(self, call: &'static str) -> Result<T, KernelError> {
        self.map_err(|error| kernel_error(call, of_driver(error.0), &error))
    }
}

impl<T> Named<T> for Result<T, CublasError> {
    fn named(self, call: &'static str) -> Result<T, KernelError> {
        self.map_err(|error| kernel_error(call, of_cublas(error.0), &error))
    }
}

fn kernel_error(call: &'static str, failure: Option<DeviceFailure>, error: &dyn Display) -> KernelError {
    match failure {
        Some(DeviceFailure::OutOfMemory) => KernelError::OutOfDeviceMemory { call },
        Some(DeviceFailure::Lost) => KernelError::DeviceLost { call, error: error.to_string() },
        None => KernelError::Device { call, error: error.to_string() },
    }
}
