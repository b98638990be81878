//! Kinds of device. A [`Backend`] lists and opens the devices of one kind; a [`Device`] states its capability and builds
//! the encoders that run on it. Families and the runtime use only these traits, so a new kind of device is one file.

mod capability;
mod cpu;
mod cuda;
mod listing;
mod tensors;

use std::fmt;
use std::sync::Arc;

use sconce_kernels::Team;
use sconce_kernels::device::DeviceError;
use sconce_kernels::encoder::EncoderSpec;

pub use capability::Capability;
pub use cpu::CpuBackend;
pub use cuda::CudaBackend;
pub use listing::{DeviceListing, ListedDevice};
pub use tensors::TensorDevice;

use crate::encoder::TensorEncoder;
use crate::{DeviceName, EncoderEngine, EncoderWeights, LoadError, ModelSettings, Precision};

/// A kind of device.
pub trait Backend: fmt::Debug + Send + Sync {
    /// The kind, as in the names of its devices: `cpu`, `cuda`.
    fn kind(&self) -> &'static str;

    /// The devices of this kind, whether they can be used or not.
    ///
    /// # Errors
    /// [`DeviceError`] says why there is no device.
    fn list(&self) -> Result<Vec<Capability>, DeviceError>;

    /// The devices of this kind, described. By default made of [`list`](Self::list).
    fn listing(&self) -> DeviceListing {
        match self.list() {
            Ok(devices) => {
                DeviceListing { devices: devices.into_iter().map(Into::into).collect(), ..Default::default() }
            }
            Err(none) => DeviceListing::none(&format!("no device of the kind {}", self.kind()), &none),
        }
    }

    /// Opens the device of this number, from 0. Opened again, it is the same device.
    ///
    /// # Errors
    /// [`DeviceError`] says why there is no such device, or why it cannot be used.
    fn open(&self, ordinal: usize) -> Result<Arc<dyn Device>, DeviceError>;
}

/// An open device.
pub trait Device: fmt::Debug + Send + Sync {
    /// The device's name, and an estimate of its speed and memory.
    fn capability(&self) -> Capability;

    /// The class of the device: devices of one class give the same bits for the same input. With other instructions sums
    /// are rounded differently.
    fn class(&self) -> String;

    /// The building blocks of networks that are not encoders.
    ///
    /// # Errors
    /// [`DeviceError`] if such networks do not run on this device.
    fn compute(&self) -> Result<Compute, DeviceError>;

    /// The precisions in which the device runs an encoder, f32 first. By default f32 alone, as candle's operations.
    fn encoder_precisions(&self, spec: &EncoderSpec) -> Vec<Precision> {
        _ = spec;
        vec![Precision::F32]
    }

    /// Builds an encoder in one of its [`encoder_precisions`](Self::encoder_precisions). By default it is made of
    /// candle's operations.
    ///
    /// # Errors
    /// [`LoadError`] if weights do not fit the spec, or the device has no room for them or is lost.
    fn encoder(&self, order: &EncoderOrder<'_>) -> Result<Box<dyn EncoderEngine>, LoadError> {
        let team = Arc::new(Team::alone());
        Ok(Box::new(TensorEncoder::load(&order.weights, &self.compute()?.tensors(), &team)?))
    }
}

/// An encoder for a device to build.
#[derive(Clone, Copy)]
pub struct EncoderOrder<'a> {
    /// The spec and its weights.
    pub weights: EncoderWeights<'a>,
    /// The precision of the encoder.
    pub precision: Precision,
    /// The model's settings; some, such as `cuda_graphs`, are for one kind of device.
    pub settings: &'a ModelSettings,
}

/// The building blocks of networks on a device.
#[derive(Debug, Clone)]
pub enum Compute {
    /// The kernels of `sconce-kernels` for the CPU, and the threads to run them on.
    Kernels(Arc<Team>),
    /// Candle's operations on a device.
    Tensors(TensorDevice),
}

impl Compute {
    /// The device for candle's operations; that of [`Kernels`](Self::Kernels) is the CPU.
    #[must_use]
    pub fn tensors(self) -> TensorDevice {
        match self {
            Self::Kernels(_) => TensorDevice::cpu(),
            Self::Tensors(device) => device,
        }
    }
}

/// The CPU as a device, computing on the threads of `team`.
#[must_use]
pub fn cpu(team: Arc<Team>) -> Arc<dyn Device> {
    CpuBackend::new(team).device()
}

/// The backends of a program, one for each kind of device.
#[derive(Debug, Clone)]
pub struct Backends(Vec<Arc<dyn Backend>>);

impl Default for Backends {
    /// The CPU with a thread per core, and CUDA.
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Backends {
    /// The CPU, computing on the threads of `team`, and CUDA.
    #[must_use]
    pub fn new(team: Arc<Team>) -> Self {
        Self(vec![Arc::new(CpuBackend::new(team)), Arc::new(CudaBackend)])
    }

    /// Adds a backend. It replaces one of the same kind.
    pub fn add(&mut self, backend: Arc<dyn Backend>) {
        match self.0.iter_mut().find(|other| other.kind() == backend.kind()) {
            Some(other) => *other = backend,
            None => self.0.push(backend),
        }
    }

    /// All backends, the CPU's first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Backend>> {
        self.0.iter()
    }

    /// Opens a device by its name.
    ///
    /// # Errors
    /// [`DeviceError`] says why there is no such device, or why it cannot be used.
    pub fn open(&self, name: DeviceName) -> Result<Arc<dyn Device>, DeviceError> {
        match self.0.iter().find(|backend| backend.kind() == name.kind()) {
            Some(backend) => backend.open(name.ordinal()),
            None => Err(DeviceError::UnknownKind { device: name.to_string() }),
        }
    }
}
