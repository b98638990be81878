//! Where a network runs: the names of devices, and opening one.

use std::fmt;
use std::str::FromStr;

use candle_core::{Device, DeviceLocation};
use sconce_kernels::Isa;
use sconce_kernels::device::{CudaDevice, DeviceError, cuda_device, open_cuda};

/// A device by name. The default is the CPU.
///
/// Other spellings are read too, each of which means one device alone: `CPU`, `cpu:0`, `cuda1`.
///
/// ```
/// use sconce_models::DeviceName;
///
/// assert_eq!("cuda:1".parse(), Ok(DeviceName::Cuda { ordinal: 1 }));
/// assert_eq!(DeviceName::Cuda { ordinal: 1 }.to_string(), "cuda:1");
/// assert!("gpu".parse::<DeviceName>().is_err(), "there may be several");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DeviceName {
    /// `cpu`: the kernels of Sconce.
    #[default]
    Cpu,
    /// `cuda:N`: a GPU of NVIDIA's.
    Cuda {
        /// Its number, as `nvidia-smi` counts within `CUDA_VISIBLE_DEVICES`.
        ordinal: usize,
    },
    /// `metal:N`: a GPU of Apple's, which whoever loads a model has opened; none is opened by this name.
    Metal {
        /// Its number.
        ordinal: usize,
    },
}

/// A name that no device can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "device '{name}' is not known; give cpu, or cuda:N with the number of a GPU (`cuda:0` is the first){}",
    question(name)
)]
pub struct UnknownDevice {
    /// What was given.
    pub name: String,
}

/// `; did you mean cuda:0?`, or nothing.
pub(crate) fn question(name: &str) -> String {
    let plain = name.to_ascii_lowercase();
    let number = ["cuda", "gpu", "nvidia", "rocm", "hip"].into_iter().find_map(|kind| plain.strip_prefix(kind));
    let number = number.map(|rest| rest.strip_prefix(':').unwrap_or(rest));
    match number.map(|number| if number.is_empty() { Some(0) } else { ordinal(number) }) {
        Some(Some(ordinal)) => format!("; did you mean cuda:{ordinal}?"),
        _ => String::new(),
    }
}

/// The number of a device: digits alone, for `+1` is a number to Rust.
fn ordinal(digits: &str) -> Option<usize> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

impl DeviceName {
    /// The name of a device that is open.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        match device.location() {
            DeviceLocation::Cpu => Self::Cpu,
            DeviceLocation::Cuda { gpu_id } => Self::Cuda { ordinal: gpu_id },
            DeviceLocation::Metal { gpu_id } => Self::Metal { ordinal: gpu_id },
        }
    }

    /// Opens the device; a GPU that is open already is not opened again.
    ///
    /// # Errors
    /// [`DeviceError`] says why there is no such device, or why it cannot be used.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda { ordinal } => open_cuda(ordinal),
            Self::Metal { .. } => Err(DeviceError::NotBuilt),
        }
    }

    /// Devices of one class give the same bits for the same input; with other instructions sums are rounded otherwise.
    #[must_use]
    pub fn class(self) -> String {
        match self {
            Self::Cpu => format!("cpu {}", Isa::best().name()),
            Self::Cuda { ordinal } => match cuda_device(ordinal) {
                Ok(CudaDevice { name, compute_capability, .. }) => format!("cuda {compute_capability} {name}"),
                Err(_) => self.to_string(),
            },
            Self::Metal { .. } => self.to_string(),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda { ordinal } => write!(f, "cuda:{ordinal}"),
            Self::Metal { ordinal } => write!(f, "metal:{ordinal}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        let plain = name.to_ascii_lowercase();
        let cuda = plain.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match (plain.as_str(), cuda.and_then(ordinal)) {
            ("cpu" | "cpu:0", _) => Ok(Self::Cpu),
            (_, Some(ordinal)) => Ok(Self::Cuda { ordinal }),
            _ => Err(UnknownDevice { name: name.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_refused_with_those_there_are() {
        for name in ["cpu", "cuda:0", "cuda:17"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        let table = [
            ("", ""),
            ("gpu", "; did you mean cuda:0?"),
            ("GPU:1", "; did you mean cuda:1?"),
            ("cuda", "; did you mean cuda:0?"),
            ("cuda:", "; did you mean cuda:0?"),
            ("cuda:-1", ""),
            ("cuda:+1", ""),
            ("cuda:x", ""),
            ("cuda:99999999999999999999", ""),
            ("metal:0", ""),
        ];
        for (name, question) in table {
            let refused = name.parse::<DeviceName>().unwrap_err().to_string();
            assert!(refused.starts_with(&format!("device '{name}' is not known; give cpu, or cuda:N")), "{refused}");
            assert!(refused.ends_with(&format!("is the first){question}")), "{refused}");
        }
    }

    #[test]
    fn another_spelling_that_can_mean_one_device_alone_is_that_device() {
        for name in ["CPU", "Cpu", "cpu:0"] {
            assert_eq!(name.parse(), Ok(DeviceName::Cpu), "{name}");
        }
        for name in ["cuda1", "CUDA:1", "Cuda1"] {
            assert_eq!(name.parse(), Ok(DeviceName::Cuda { ordinal: 1 }), "{name}");
        }
    }

    #[test]
    fn a_device_that_is_open_has_the_name_it_was_opened_by() {
        assert_eq!(DeviceName::of(&DeviceName::default().open().unwrap()), DeviceName::Cpu);
        if let Ok(device) = (DeviceName::Cuda { ordinal: 0 }).open() {
            assert_eq!(DeviceName::of(&device), DeviceName::Cuda { ordinal: 0 });
        }
    }

    #[test]
    fn the_class_of_a_cpu_names_its_instructions() {
        assert_eq!(DeviceName::Cpu.class(), format!("cpu {}", Isa::best().name()));
    }
}
