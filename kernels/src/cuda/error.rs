//! What the driver and cuBLAS say, as [`KernelError`]s.

use cudarc::cublas::result::CublasError;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

use crate::KernelError;

/// Names the call that failed.
pub(super) trait Named<T> {
    fn named(self, call: &'static str) -> Result<T, KernelError>;
}

impl<T> Named<T> for Result<T, DriverError> {
    fn named(self, call: &'static str) -> Result<T, KernelError> {
        self.map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => KernelError::OutOfDeviceMemory { call },
            _ => KernelError::Device { call, error: error.to_string() },
        })
    }
}

impl<T> Named<T> for Result<T, CublasError> {
    fn named(self, call: &'static str) -> Result<T, KernelError> {
        self.map_err(|error| match error.0 {
            cudarc::cublas::sys::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => KernelError::OutOfDeviceMemory { call },
            _ => KernelError::Device { call, error: error.to_string() },
        })
    }
}
