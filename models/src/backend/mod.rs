//! Kinds of device. A [`Backend`] lists and opens the devices of one kind; a [`Device`] says what it can do and builds what runs
//! on it. Families and the runtime see these traits alone, so a new kind of device is one file.

mod capability;
mod cpu;
mod cuda;
mod tensors;

use std::fmt;
use std::sync::Arc;

use sconce_kernels::Team;
use sconce_kernels::device::DeviceError;
use sconce_kernels::encoder::EncoderSpec;

pub use capability::Capability;
pub use cpu::CpuBackend;
pub use cuda::CudaBackend;
pub use tensors::TensorDevice;

use crate::encoder::TensorEncoder;
use crate::{DeviceName, EncoderEngine, EncoderWeights, LoadError, ModelSettings, Precision};

/// A kind of device.
pub trait Backend: fmt::Debug + Send + Sync {
    /// The kind in the names of its devices: `cpu`, `cuda`.
    fn kind(&self) -> &'static str;

    /// The devices of this kind, usable or not.
    ///
    /// # Errors
    /// [`DeviceError`] says why there is none.
    fn list(&self) -> Result<Vec<Capability>, DeviceError>;

    /// Opens one of them. Opened again, it is the same device.
    ///
    /// # Errors
    /// [`DeviceError`] says why there is no such device, or why it cannot be used.
    fn open(&self, ordinal: usize) -> Result<Arc<dyn Device>, DeviceError>;
}

/// An open device.
pub trait Device: fmt::Debug + Send + Sync {
    /// An estimate of what it can do, and its name.
    fn capability(&self) -> Capability;

    /// Devices of one class give the same bits for the same input; with other instructions sums are rounded otherwise.
    fn class(&self) -> String;

    /// What networks that are no encoders are made of here.
    ///
    /// # Errors
    /// [`DeviceError`] if they do not run on this device.
    fn compute(&self) -> Result<Compute, DeviceError>;

    /// The precisions in which it runs an encoder, f32 first. Unless a device says otherwise: f32, by candle's operations.
    fn encoder_precisions(&self, spec: &EncoderSpec) -> Vec<Precision> {
        _ = spec;
        vec![Precision::F32]
    }

    /// Builds an encoder in one of these precisions.
    ///
    /// # Errors
    /// [`LoadError`] names weights that do not fit the spec; or the device has no room, or is lost.
    fn encoder(&self, order: &EncoderOrder<'_>) -> Result<Box<dyn EncoderEngine>, LoadError> {
        Ok(Box::new(TensorEncoder::load(&order.weights, &self.compute()?.tensors())?))
    }
}

/// An encoder that a device is to build.
#[derive(Clone, Copy)]
pub struct EncoderOrder<'a> {
    /// The spec and where its weights are.
    pub weights: EncoderWeights<'a>,
    /// The precision that it is computed in.
    pub precision: Precision,
    /// The model's settings, some of which are for one kind of device.
    pub settings: &'a ModelSettings,
}

/// What networks are made of on a device.
#[derive(Debug, Clone)]
pub enum Compute {
    /// The kernels of `sconce-kernels`, spread over these threads.
    Kernels(Arc<Team>),
    /// Candle's operations.
    Tensors(TensorDevice),
}

impl Compute {
    /// The device of candle's operations, which the CPU has as well.
    #[must_use]
    pub fn tensors(self) -> TensorDevice {
        match self {
            Self::Kernels(_) => TensorDevice::cpu(),
            Self::Tensors(device) => device,
        }
    }
}

/// The CPU, computing on these threads.
#[must_use]
pub fn cpu(team: Arc<Team>) -> Arc<dyn Device> {
    CpuBackend::new(team).device()
}

/// The backends of a program: one for each kind of device.
#[derive(Debug, Clone)]
pub struct Backends(Vec<Arc<dyn Backend>>);

impl Default for Backends {
    /// The CPU with a thread per core, and CUDA.
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Backends {
    /// The CPU, computing on these threads, and CUDA.
    #[must_use]
    pub fn new(team: Arc<Team>) -> Self {
        Self(vec![Arc::new(CpuBackend::new(team)), Arc::new(CudaBackend)])
    }

    /// Adds a backend, in place of the one of its kind if there is one.
    pub fn add(&mut self, backend: Arc<dyn Backend>) {
        match self.0.iter_mut().find(|other| other.kind() == backend.kind()) {
            Some(other) => *other = backend,
            None => self.0.push(backend),
        }
    }

    /// The backends, the CPU's first.
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
