//! A device of candle's, behind a name of our own.

use candle_core::Device;

/// A device that runs candle's operations.
#[derive(Debug, Clone)]
pub struct TensorDevice(Device);

impl TensorDevice {
    /// The CPU.
    #[must_use]
    pub fn cpu() -> Self {
        Self(Device::Cpu)
    }

    /// The device as candle knows it, for a family that is made of its operations.
    #[must_use]
    pub fn as_candle(&self) -> &Device {
        &self.0
    }
}

impl From<Device> for TensorDevice {
    fn from(device: Device) -> Self {
        Self(device)
    }
}
