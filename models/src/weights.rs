//! The tensors of a safetensors file, read by name and shape.

use std::path::PathBuf;
use std::sync::Arc;

use candle_core::safetensors::{BufferedSafetensors, Load as _};
use candle_core::{DType, Device, Error, Tensor};
use safetensors::Dtype;

use sconce_kernels::KernelError;

use crate::{LoadError, TensorDevice};

/// A safetensors file in memory. The file is read, not mapped: a mapping would need `unsafe`, and the process would crash
/// if the file were cut short while it is mapped.
#[derive(Clone)]
pub struct Weights {
    path: Arc<PathBuf>,
    tensors: Arc<BufferedSafetensors>,
    device: Device,
}

impl Weights {
    pub(crate) fn new(path: PathBuf, bytes: Vec<u8>) -> Result<Self, LoadError> {
        match BufferedSafetensors::new(bytes) {
            Ok(tensors) => Ok(Self { path: Arc::new(path), tensors: Arc::new(tensors), device: Device::Cpu }),
            Err(source) => Err(LoadError::weights(path, source)),
        }
    }

    /// The same file, whose tensors are put on another device.
    pub(crate) fn on(&self, device: &TensorDevice) -> Self {
        Self { device: device.as_candle().clone(), ..self.clone() }
    }

    /// True if the file has a tensor of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.get(name).is_ok()
    }

    /// The elements of one tensor in row-major order, converted to f32 from any float type.
    ///
    /// # Errors
    /// [`LoadError::Weights`] if the tensor is missing, has another shape, or does not hold floats.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let values = self.on_device(name, shape, &Device::Cpu);
        values.and_then(|tensor| tensor.flatten_all()?.to_vec1()).map_err(|source| self.error(source))
    }

    /// The number of weights in the file.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let tensors = self.tensors.tensors();
        // Old checkpoints hold position numbers as integers, which are not weights.
        let floats = tensors.iter().filter(|(_, view)| is_float(view.dtype()));
        floats.map(|(_, view)| view.shape().iter().product::<usize>()).sum()
    }

    /// One tensor on the device, in f32.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        self.on_device(name, shape, &self.device).map_err(|source| self.error(source))
    }

    /// The error for a failure of candle with tensors of this file.
    pub(crate) fn error(&self, source: Error) -> LoadError {
        LoadError::of_weights(self.path.to_path_buf(), source)
    }

    /// The error for a failure of a kernel with tensors of this file.
    pub(crate) fn kernel_error(&self, error: KernelError) -> LoadError {
        LoadError::of_kernels(self.path.to_path_buf(), error)
    }

    fn on_device(&self, name: &str, shape: &[usize], device: &Device) -> candle_core::Result<Tensor> {
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
        view.load(&Device::Cpu)?.to_dtype(DType::F32)?.to_device(device)
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({})", self.path.display())
    }
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}
