//! A device of candle's behind a type of this crate.

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

    /// The device as candle's type, for families made of candle's operations.
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
