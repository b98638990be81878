//! Stands in for `cuda.rs` in builds without the feature `cuda`: there are no devices.

use candle_core::{Device, Error};

use super::{CudaDevice, DeviceError, DeviceFailure, Version};

pub(super) fn devices() -> Result<Vec<CudaDevice>, DeviceError> {
    Err(DeviceError::NotBuilt)
}

pub(super) fn device(_: usize) -> Result<CudaDevice, DeviceError> {
    Err(DeviceError::NotBuilt)
}

pub(super) fn driver() -> Result<Version, DeviceError> {
    Err(DeviceError::NotBuilt)
}

pub(super) fn open(_: usize) -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt)
}

pub(super) fn failure(_: &Error) -> Option<DeviceFailure> {
    None
}
