//! `--device-memory`: the memory that models may take on a device.

use std::str::FromStr;

use sconce::{DeviceName, RuntimeBuilder, UnknownDevice};

use crate::memory_size::{MemorySize, MemorySizeError};

/// A bound such as `cuda:0=8192` (MiB) or `cuda:0=8GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceMemoryArg {
    device: DeviceName,
    max: MemorySize,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceMemoryError {
    #[error("'{0}' is not DEVICE=SIZE; give for instance cuda:0=8192 (MiB), or cuda:0=8GiB")]
    Form(String),
    #[error(transparent)]
    Device(#[from] UnknownDevice),
    #[error(transparent)]
    Size(#[from] MemorySizeError),
}

impl DeviceMemoryArg {
    pub(crate) fn apply(self, builder: RuntimeBuilder) -> RuntimeBuilder {
        builder.device_memory(self.device, self.max.bytes())
    }
}

impl FromStr for DeviceMemoryArg {
    type Err = DeviceMemoryError;

    fn from_str(arg: &str) -> Result<Self, DeviceMemoryError> {
        let (device, max) = arg.split_once('=').ok_or_else(|| DeviceMemoryError::Form(arg.to_owned()))?;
        Ok(Self { device: device.parse()?, max: max.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_names_its_device() {
        let arg: DeviceMemoryArg = "cuda:1=3".parse().unwrap();
        assert_eq!((arg.device, arg.max.bytes().get()), (DeviceName::cuda(1), 3 << 20));
        let arg: DeviceMemoryArg = "cpu=8GiB".parse().unwrap();
        assert_eq!((arg.device, arg.max.bytes().get()), (DeviceName::CPU, 8 << 30));
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong() {
        let table = [
            ("8192", "'8192' is not DEVICE=SIZE"),
            ("gpu=1", "device 'gpu' is not known"),
            ("cpu=0", "'0' leaves no memory at all"),
            ("cpu=x", "'x' is not an amount of memory"),
            ("cpu=99999999999999999", "'99999999999999999' is more than can be counted"),
        ];
        for (arg, message) in table {
            let error = arg.parse::<DeviceMemoryArg>().unwrap_err().to_string();
            assert!(error.starts_with(message), "{arg}: {error}");
        }
    }
}
