//! The tensors of a model's weights, read by name and shape from one file or several.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::safetensors::{BufferedSafetensors, Load as _};
use candle_core::{DType, Device, Error, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorView};

use sconce_kernels::KernelError;

use crate::checkpoint::CONVERT;
use crate::pickle::{Pickle, PickledTensor};
use crate::{LoadError, TensorDevice};

/// Weights in memory. The files are read, not mapped: a mapping would need `unsafe`, and the process would crash if a
/// file were cut short while it is mapped.
#[derive(Clone)]
pub struct Weights {
    /// The file that errors name.
    path: Arc<PathBuf>,
    files: Arc<[WeightFile]>,
    device: Device,
}

/// A file of weights.
pub(crate) enum WeightFile {
    Safetensors(BufferedSafetensors),
    Pickle(Pickle),
}

/// A tensor of a file.
enum StoredTensor<'a> {
    Safetensors(TensorView<'a>),
    Pickle(&'a Pickle, &'a PickledTensor),
}

impl WeightFile {
    /// Checks the header of a file, whose name says its format.
    ///
    /// # Errors
    /// [`LoadError::Weights`] if the file is cut short or is not of that format.
    pub(crate) fn new(path: PathBuf, bytes: Vec<u8>) -> Result<Self, LoadError> {
        let is_safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
        if is_safetensors {
            BufferedSafetensors::new(bytes).map(Self::Safetensors).map_err(|source| LoadError::weights(path, &source))
        } else {
            let refuse = |message| LoadError::weights(path, &Error::Msg(format!("{message}; {CONVERT}")));
            Pickle::new(bytes).map(Self::Pickle).map_err(refuse)
        }
    }

    fn find(&self, name: &str) -> Option<StoredTensor<'_>> {
        match self {
            Self::Safetensors(file) => file.get(name).ok().map(StoredTensor::Safetensors),
            Self::Pickle(file) => file.tensors().get(name).map(|tensor| StoredTensor::Pickle(file, tensor)),
        }
    }

    /// Elements of all tensors of floats.
    fn parameters(&self) -> usize {
        // Old checkpoints hold position numbers as integers, which are not weights.
        let size = |shape: &[usize], is_float: bool| if is_float { shape.iter().product() } else { 0 };
        match self {
            Self::Safetensors(file) => {
                file.tensors().iter().map(|(_, view)| size(view.shape(), is_float(view.dtype()))).sum()
            }
            Self::Pickle(file) => {
                file.tensors().values().map(|tensor| size(&tensor.shape, tensor.dtype.is_float())).sum()
            }
        }
    }
}

impl StoredTensor<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Self::Safetensors(view) => view.shape(),
            Self::Pickle(_, tensor) => &tensor.shape,
        }
    }

    /// The name of the element type if it is not a float.
    fn other_than_float(&self) -> Option<String> {
        match self {
            Self::Safetensors(view) => (!is_float(view.dtype())).then(|| format!("{:?}", view.dtype())),
            Self::Pickle(_, tensor) => (!tensor.dtype.is_float()).then(|| format!("{:?}", tensor.dtype)),
        }
    }

    fn load(&self) -> candle_core::Result<Tensor> {
        match self {
            Self::Safetensors(view) => view.load(&Device::Cpu),
            Self::Pickle(file, tensor) => file.load(tensor),
        }
    }
}

impl Weights {
    /// The weights of several files; `path` is the one that errors name.
    pub(crate) fn of_files(path: PathBuf, files: Vec<WeightFile>) -> Self {
        Self { path: Arc::new(path), files: files.into(), device: Device::Cpu }
    }

    /// The weights of one safetensors file.
    #[cfg(test)]
    pub(crate) fn new(path: PathBuf, bytes: Vec<u8>) -> Result<Self, LoadError> {
        match BufferedSafetensors::new(bytes) {
            Ok(file) => Ok(Self::of_files(path, vec![WeightFile::Safetensors(file)])),
            Err(source) => Err(LoadError::weights(path, &source)),
        }
    }

    /// The same weights, whose tensors are put on another device.
    pub(crate) fn on(&self, device: &TensorDevice) -> Self {
        Self { device: device.as_candle().clone(), ..self.clone() }
    }

    /// True if the weights have a tensor of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The elements of one tensor in row-major order, converted to f32 from any float type.
    ///
    /// # Errors
    /// [`LoadError::Weights`] if the tensor is missing, has another shape, or does not hold floats.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let values = self.on_device(name, shape, &Device::Cpu);
        values.and_then(|tensor| tensor.flatten_all()?.to_vec1()).map_err(|source| self.error(source))
    }

    /// As [`values`](Self::values), one row of a table of `shape`.
    pub(crate) fn row(&self, name: &str, shape: [usize; 2], row: usize) -> Result<Vec<f32>, LoadError> {
        let values = || {
            let table = self.checked(name, &shape)?.load()?;
            table.narrow(0, row, 1)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
        };
        values().map_err(|source| self.error(source))
    }

    /// The number of weights.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.files.iter().map(WeightFile::parameters).sum()
    }

    /// One tensor on the device, in f32.
    pub(crate) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        self.on_device(name, shape, &self.device).map_err(|source| self.error(source))
    }

    /// The error for a failure of candle with tensors of these weights.
    #[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
    pub(crate) fn error(&self, source: Error) -> LoadError {
        LoadError::of_weights(self.path.to_path_buf(), &source)
    }

    /// The error for a failure of a kernel with tensors of these weights.
    pub(crate) fn kernel_error(&self, error: KernelError) -> LoadError {
        LoadError::of_kernels(self.path.to_path_buf(), error)
    }

    /// A tensor by its name, or by the name that checkpoints from TensorFlow have for the parts of a norm.
    fn find(&self, name: &str) -> Option<StoredTensor<'_>> {
        let by_name = |name: &str| self.files.iter().find_map(|file| file.find(name));
        by_name(name).or_else(|| {
            let old =
                |new, old| Some(format!("{}LayerNorm.{old}", name.strip_suffix(new)?.strip_suffix("LayerNorm.")?));
            by_name(&old("weight", "gamma").or_else(|| old("bias", "beta"))?)
        })
    }

    fn on_device(&self, name: &str, shape: &[usize], device: &Device) -> candle_core::Result<Tensor> {
        self.checked(name, shape)?.load()?.to_dtype(DType::F32)?.to_device(device)
    }

    /// A tensor of floats of this shape.
    fn checked(&self, name: &str, shape: &[usize]) -> candle_core::Result<StoredTensor<'_>> {
        let Some(found) = self.find(name) else {
            return Err(Error::Msg(format!("tensor '{name}' is missing")));
        };
        if found.shape() != shape {
            let message =
                format!("tensor '{name}' has shape {:?}, but the configuration needs {shape:?}", found.shape());
            return Err(Error::Msg(message));
        }
        if let Some(dtype) = found.other_than_float() {
            return Err(Error::Msg(format!("tensor '{name}' holds {dtype}, but weights are floats")));
        }
        Ok(found)
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({})", self.path.display())
    }
}

/// The names of the tensors in a file, of which only the part that names them is read; empty if it cannot be.
pub(crate) fn names(path: &Path) -> Vec<String> {
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        return header(path).map(|header| header.tensors().into_keys().collect()).unwrap_or_default();
    }
    let file = std::fs::read(path).ok().and_then(|bytes| Pickle::new(bytes).ok());
    file.map(|file| file.tensors().keys().cloned().collect()).unwrap_or_default()
}

/// The beginning of a safetensors file, which describes its tensors.
fn header(path: &Path) -> Option<Metadata> {
    /// Most bytes of the description, as in safetensors itself.
    const MAX_BYTES: u64 = 100_000_000;
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    let mut json = Vec::new();
    file.take(length.min(MAX_BYTES)).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}
