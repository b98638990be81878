//! `--device-memory`: how much of a device models may take.

use std::num::NonZeroU64;
use std::str::FromStr;

use sconce::{DeviceName, RuntimeBuilder, UnknownDevice};

/// `cuda:0=8192`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceMemoryArg {
    device: DeviceName,
    max_bytes: NonZeroU64,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceMemoryError {
    #[error("'{0}' is not DEVICE=MIB; give for instance cuda:0=8192")]
    Form(String),
    #[error(transparent)]
    Device(#[from] UnknownDevice),
    #[error("'{0}' is not a number of MiB from 1 on")]
    Mebibytes(String),
}

impl DeviceMemoryArg {
    pub(crate) fn apply(self, builder: RuntimeBuilder) -> RuntimeBuilder {
        builder.device_memory(self.device, self.max_bytes)
    }
}

impl FromStr for DeviceMemoryArg {
    type Err = DeviceMemoryError;

    fn from_str(arg: &str) -> Result<Self, DeviceMemoryError> {
        let (device, mebibytes) = arg.split_once('=').ok_or_else(|| DeviceMemoryError::Form(arg.to_owned()))?;
        let bytes = mebibytes.parse().ok().and_then(|mebibytes: u64| mebibytes.checked_mul(1 << 20));
        let max_bytes = bytes.and_then(NonZeroU64::new);
        Ok(Self {
            device: device.parse()?,
            max_bytes: max_bytes.ok_or_else(|| DeviceMemoryError::Mebibytes(mebibytes.to_owned()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_names_its_device() {
        let arg: DeviceMemoryArg = "cuda:1=3".parse().unwrap();
        assert_eq!((arg.device, arg.max_bytes.get()), (DeviceName::Cuda { ordinal: 1 }, 3 << 20));
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong() {
        let table = [
            ("8192", "'8192' is not DEVICE=MIB"),
            ("gpu=1", "device 'gpu' is not known"),
            ("cpu=0", "'0' is not a number of MiB from 1 on"),
            ("cpu=x", "'x' is not a number"),
            ("cpu=99999999999999999", "'99999999999999999' is not a number"),
        ];
        for (arg, message) in table {
            let error = arg.parse::<DeviceMemoryArg>().unwrap_err().to_string();
            assert!(error.starts_with(message), "{arg}: {error}");
        }
    }
}
