//! The CUDA devices of this machine: list them, open one, and tell from an error whether a device is lost.
//!
//! Nothing here panics if the feature `cuda`, the driver, a device or cuBLAS is missing. Without the feature, every
//! function that needs a device returns [`DeviceError::NotBuilt`].
//!
//! ```
//! use sconce_kernels::device;
//!
//! match device::cuda_devices() {
//!     Ok(devices) => devices.iter().for_each(|device| println!("cuda:{} {}", device.ordinal, device.name)),
//!     Err(none) => println!("{none}"),
//! }
//! ```

#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "cuda")]
use cuda as backend;

#[cfg(not(feature = "cuda"))]
mod without;
#[cfg(not(feature = "cuda"))]
use without as backend;

use std::fmt;

use candle_core::{Device, DeviceLocation, Error};

/// The lowest compute capability of a device.
pub const MIN_COMPUTE_CAPABILITY: Version = Version { major: 7, minor: 5 };

/// The lowest compute capability of a device that runs candle's kernels.
pub const MIN_COMPUTE_CAPABILITY_OF_CANDLE: Version = Version { major: 8, minor: 0 };

/// The lowest version of CUDA that the driver must support to read the kernels (PTX 8.4).
pub const MIN_DRIVER: Version = Version { major: 12, minor: 4 };

/// A version of CUDA, or of a device's architecture (its compute capability).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The number before the point.
    pub major: u32,
    /// The number after the point.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The properties of a CUDA device, as its driver reports them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// The device's number, from 0.
    pub ordinal: usize,
    /// The product name.
    pub name: String,
    /// The version of the architecture.
    pub compute_capability: Version,
    /// Memory in bytes.
    pub total_memory: usize,
    /// Free memory in bytes; `None` if no context can be created on the device.
    pub free_memory: Option<usize>,
    /// Number of multiprocessors; 0 if the driver does not report it.
    pub multiprocessors: u32,
    /// Clock of the multiprocessors in kHz; 0 if the driver does not report it.
    pub clock_khz: u32,
    /// Clock of the memory in kHz; 0 if the driver does not report it.
    pub memory_clock_khz: u32,
    /// Width of the memory bus in bits; 0 if the driver does not report it.
    pub memory_bus_bits: u32,
}

/// The reason why there is no device, or none that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The program was built without the cargo feature `cuda`.
    #[error("this build has no CUDA: build it with `--features cuda`")]
    NotBuilt,
    /// There is no device of this name.
    #[error("there is no device {device}; `sconce devices` lists those there are")]
    UnknownKind {
        /// The name that was asked for.
        device: String,
    },
    /// There is no driver.
    #[error("there is no CUDA driver ({reason}); install NVIDIA's driver, and give containers `--gpus all`")]
    NoDriver {
        /// The dynamic loader's message.
        reason: String,
    },
    /// There is a driver, but no device.
    #[error("the CUDA driver finds no device; see `nvidia-smi` and CUDA_VISIBLE_DEVICES")]
    NoDevice,
    /// There are devices, but none of this number.
    #[error("there is no device cuda:{ordinal}; there are {count}, numbered from cuda:0")]
    UnknownOrdinal {
        /// The number that was asked for.
        ordinal: usize,
        /// The number of devices.
        count: usize,
    },
    /// The device is too old for all kernels, or for candle's kernels, which run models that this crate has no kernels
    /// for.
    #[error("cuda:{ordinal} ({name}) has compute capability {found}; {min} or higher is needed")]
    OldDevice {
        /// The device's number.
        ordinal: usize,
        /// The product name.
        name: String,
        /// The device's compute capability.
        found: Version,
        /// The lowest compute capability of the kernels.
        min: Version,
    },
    /// The driver is too old to read the kernels.
    #[error("the driver supports CUDA {found}; {min} or higher is needed: update NVIDIA's driver")]
    OldDriver {
        /// The version of CUDA that the driver supports.
        found: Version,
        /// The lowest version that the kernels need.
        min: Version,
    },
    /// A library of the CUDA toolkit is not installed.
    #[error(
        "{name} cannot be opened ({reason}); install it (it comes with the CUDA toolkit), or name its directory in LD_LIBRARY_PATH"
    )]
    NoLibrary {
        /// The library's file name.
        name: String,
        /// The dynamic loader's message.
        reason: String,
    },
    /// A call of the driver failed.
    #[error("{call} failed: {message}")]
    Driver {
        /// The call.
        call: &'static str,
        /// The driver's message.
        message: String,
    },
}

impl CudaDevice {
    /// Checks that this crate's kernels run on the device, and that a driver of this version can read them.
    ///
    /// # Errors
    /// [`DeviceError::OldDevice`], [`DeviceError::OldDriver`].
    pub fn check(&self, driver: Version) -> Result<(), DeviceError> {
        self.at_least(MIN_COMPUTE_CAPABILITY)?;
        if driver < MIN_DRIVER {
            return Err(DeviceError::OldDriver { found: driver, min: MIN_DRIVER });
        }
        Ok(())
    }

    /// Checks that candle's kernels run on the device.
    ///
    /// # Errors
    /// [`DeviceError::OldDevice`].
    pub fn check_for_candle(&self) -> Result<(), DeviceError> {
        self.at_least(MIN_COMPUTE_CAPABILITY_OF_CANDLE)
    }

    fn at_least(&self, min: Version) -> Result<(), DeviceError> {
        let Self { ordinal, ref name, compute_capability: found, .. } = *self;
        if found < min { Err(DeviceError::OldDevice { ordinal, name: name.clone(), found, min }) } else { Ok(()) }
    }
}

/// The state of a device after an error of a computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFailure {
    /// The device had no memory for the computation; it still works.
    OutOfMemory,
    /// The device, or this process' access to it, is lost: all later calls fail, too.
    Lost,
}

/// The devices that the driver finds, of any compute capability.
///
/// # Errors
/// [`DeviceError`] says why there is no device.
pub fn cuda_devices() -> Result<Vec<CudaDevice>, DeviceError> {
    backend::devices()
}

/// The device of this number, from 0.
///
/// # Errors
/// [`DeviceError`] says why there is no such device.
pub fn cuda_device(ordinal: usize) -> Result<CudaDevice, DeviceError> {
    backend::device(ordinal)
}

/// The CUDA version that the driver supports.
///
/// # Errors
/// [`DeviceError`] says why there is no driver.
pub fn cuda_driver() -> Result<Version, DeviceError> {
    backend::driver()
}

/// Opens a device for candle. All its tensors share one stream, whichever threads use them, and no events are recorded.
/// Freed memory is kept for the next batch.
///
/// A device is opened once and stays open until the process ends: opened again, it is the same device with the same
/// stream. It is never closed, because candle's handles of cuBLAS and cuRAND panic when a lost device refuses to close
/// them.
///
/// # Errors
/// [`DeviceError`] says why the device cannot be used.
pub fn open_cuda(ordinal: usize) -> Result<Device, DeviceError> {
    backend::device(ordinal)?.check(backend::driver()?)?;
    backend::open(ordinal)
}

/// Checks that candle's operations run on a device. They do not run on GPUs older than their kernels.
///
/// # Errors
/// [`DeviceError::OldDevice`], or the reason why the device no longer responds.
pub fn check_for_candle(device: &Device) -> Result<(), DeviceError> {
    match device.location() {
        DeviceLocation::Cuda { gpu_id } => backend::device(gpu_id)?.check_for_candle(),
        DeviceLocation::Cpu | DeviceLocation::Metal { .. } => Ok(()),
    }
}

/// The state of the device after an error of candle; `None` if the error is not the device's.
#[must_use]
pub fn failure(error: &Error) -> Option<DeviceFailure> {
    backend::failure(error)
}

#[cfg(test)]
mod tests;
