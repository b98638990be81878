//! The tensors of a safetensors file, asked for by name and shape.

use std::path::PathBuf;

use candle_core::safetensors::{BufferedSafetensors, Load as _};
use candle_core::{DType, Device, Error, Tensor};
use safetensors::Dtype;

use sconce_kernels::KernelError;

use crate::LoadError;

/// A safetensors file in memory. The file is read, not mapped: a mapping would need `unsafe`, and a fault while a
/// batch runs if the file changed.
pub struct Weights {
    path: PathBuf,
    tensors: BufferedSafetensors,
    device: Device,
}

impl Weights {
    pub(crate) fn new(path: PathBuf, bytes: Vec<u8>, device: &Device) -> Result<Self, LoadError> {
        match BufferedSafetensors::new(bytes) {
            Ok(tensors) => Ok(Self { path, tensors, device: device.clone() }),
            Err(source) => Err(LoadError::Weights { path, source }),
        }
    }

    /// Whether the file has a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.get(name).is_ok()
    }

    /// One tensor on the device, in f32 whatever float it is stored as.
    ///
    /// # Errors
    /// [`LoadError::Weights`] if it is missing, has another shape, or does not hold floats; [`LoadError::OutOfMemory`] and
    /// [`LoadError::DeviceLost`] if the device fails.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        self.checked(name, shape).map_err(|source| self.error(source))
    }

    /// The elements of one tensor, in f32 and in row-major order.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let values = self.tensor(name, shape)?.flatten_all().and_then(|tensor| tensor.to_vec1());
        values.map_err(|source| self.error(source))
    }

    /// How many weights the file holds.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let tensors = self.tensors.tensors();
        // Old checkpoints carry position numbers as integers; those are not weights.
        let floats = tensors.iter().filter(|(_, view)| is_float(view.dtype()));
        floats.map(|(_, view)| view.shape().iter().product::<usize>()).sum()
    }

    /// Wraps a failure while tensors of this file are put together.
    pub(crate) fn error(&self, source: Error) -> LoadError {
        LoadError::of_weights(self.path.clone(), source)
    }

    /// The same of kernels.
    pub(crate) fn kernel_error(&self, error: KernelError) -> LoadError {
        LoadError::of_kernels(self.path.clone(), error)
    }

    fn checked(&self, name: &str, shape: &[usize]) -> candle_core::Result<Tensor> {
        let Ok(view) = self.tensors.get(name) else {
            return Err(Error::Msg(format!("tensor '{name}' is missing")));
        };
        if view.shape() != shape {
            let message =
                format!("tensor '{name}' has shape {:?}, but the configuration needs {shape:?}", view.shape());
            return Err(Error::Msg(message));
        }
        if !is_float(view.dtype()) {
            return Err(Error::Msg(format!("tensor '{name}' holds {:?}, but weights are floats", view.dtype())));
        }
        view.load(&Device::Cpu)?.to_dtype(DType::F32)?.to_device(&self.device)
    }
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}
