//! The CUDA devices of this machine: what there is, opening one, and what an error of one means.
//!
//! Nothing here panics, whatever is missing: the feature `cuda`, the driver, a device, cuBLAS. Every function is there
//! without the feature, too, and then says [`DeviceError::NotBuilt`].
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

/// What a device must have, at least.
pub const MIN_COMPUTE_CAPABILITY: Version = Version { major: 7, minor: 5 };

/// What a device must have, at least, to run candle's kernels.
pub const MIN_COMPUTE_CAPABILITY_OF_CANDLE: Version = Version { major: 8, minor: 0 };

/// What the driver must support, at least, to read the kernels (PTX 8.4).
pub const MIN_DRIVER: Version = Version { major: 12, minor: 4 };

/// Of a device's architecture (its compute capability), or of CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Before the point.
    pub major: u32,
    /// After it.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a CUDA device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// Its number, from 0.
    pub ordinal: usize,
    /// What it is sold as.
    pub name: String,
    /// Its architecture.
    pub compute_capability: Version,
    /// Its memory in bytes.
    pub total_memory: usize,
    /// What of it nobody uses; `None` where the device lets nobody in.
    pub free_memory: Option<usize>,
    /// Its multiprocessors.
    pub multiprocessors: u32,
    /// Their clock, in kHz; 0 where the driver does not tell.
    pub clock_khz: u32,
    /// The clock of its memory, in kHz; 0 where the driver does not tell.
    pub memory_clock_khz: u32,
    /// The width of the bus to its memory, in bits; 0 where the driver does not tell.
    pub memory_bus_bits: u32,
}

/// Why there is no device, or none that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The program was built without the cargo feature `cuda`.
    #[error("this build has no CUDA: build it with `--features cuda`")]
    NotBuilt,
    /// No device has such a name.
    #[error("there is no device {device}; `sconce devices` lists those there are")]
    UnknownKind {
        /// The name that was asked for.
        device: String,
    },
    /// There is no driver.
    #[error("there is no CUDA driver ({reason}); install NVIDIA's driver, and give containers `--gpus all`")]
    NoDriver {
        /// What the dynamic loader says.
        reason: String,
    },
    /// There is a driver, but no device.
    #[error("the CUDA driver finds no device; see `nvidia-smi` and CUDA_VISIBLE_DEVICES")]
    NoDevice,
    /// There are devices, but not this one.
    #[error("there is no device cuda:{ordinal}; there are {count}, numbered from cuda:0")]
    UnknownOrdinal {
        /// Which was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// A device that the kernels were not compiled for: all of them, or candle's, which a model is made of that has none of
    /// our own.
    #[error("cuda:{ordinal} ({name}) has compute capability {found}; {min} or higher is needed")]
    OldDevice {
        /// Which device.
        ordinal: usize,
        /// What it is sold as.
        name: String,
        /// What it has.
        found: Version,
        /// What the kernels need.
        min: Version,
    },
    /// A driver that cannot read the kernels.
    #[error("the driver supports CUDA {found}; {min} or higher is needed: update NVIDIA's driver")]
    OldDriver {
        /// What it supports.
        found: Version,
        /// What the kernels need.
        min: Version,
    },
    /// A library of the CUDA toolkit that is not installed.
    #[error(
        "{name} cannot be opened ({reason}); install it (it comes with the CUDA toolkit), or name its directory in LD_LIBRARY_PATH"
    )]
    NoLibrary {
        /// Its file name.
        name: String,
        /// What the dynamic loader says.
        reason: String,
    },
    /// The driver refuses.
    #[error("{call} failed: {message}")]
    Driver {
        /// What was asked of it.
        call: &'static str,
        /// What it says.
        message: String,
    },
}

impl CudaDevice {
    /// Whether kernels run on this device, and a driver of that version reads them.
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

    /// Whether candle's kernels run on it, too.
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

/// What an error of a computation says about its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFailure {
    /// There was no memory for this; the device works on.
    OutOfMemory,
    /// The device, or this process' hold on it, is gone: every later call fails, too.
    Lost,
}

/// The devices that the driver finds, of whatever compute capability.
///
/// # Errors
/// [`DeviceError`] says why there is none.
pub fn cuda_devices() -> Result<Vec<CudaDevice>, DeviceError> {
    backend::devices()
}

/// One of them.
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

/// A device for candle, with one stream for all its tensors, whatever threads use them; no events are recorded. Memory that
/// is given back is kept for the next batch.
///
/// It is opened once and stays open until the process ends: asked for again, it is the same device with the same stream.
/// Closing it would not be safe to do, either: candle's handles of cuBLAS and cuRAND panic when a device that was lost
/// refuses to close them.
///
/// # Errors
/// [`DeviceError`] says why it cannot be used.
pub fn open_cuda(ordinal: usize) -> Result<Device, DeviceError> {
    backend::device(ordinal)?.check(backend::driver()?)?;
    backend::open(ordinal)
}

/// Whether candle's operations run on a device: not on an old GPU, for which their kernels were not compiled.
///
/// # Errors
/// [`DeviceError::OldDevice`], or why the device no longer answers.
pub fn check_for_candle(device: &Device) -> Result<(), DeviceError> {
    match device.location() {
        DeviceLocation::Cuda { gpu_id } => backend::device(gpu_id)?.check_for_candle(),
        DeviceLocation::Cpu | DeviceLocation::Metal { .. } => Ok(()),
    }
}

/// What an error of candle says about the device; `None`: nothing, it works on.
#[must_use]
pub fn failure(error: &Error) -> Option<DeviceFailure> {
    backend::failure(error)
}

#[cfg(test)]
mod tests;
