//! The tensors of a `pytorch_model.bin`: a zip archive with a pickle of names, shapes and places, and the numbers as they
//! are. Candle reads the pickle; it builds a tree of what the pickle names and runs nothing.

mod measure;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::Range;

use candle_core::pickle::{Object, Stack};
use candle_core::{DType, Device, Tensor};
use zip::{CompressionMethod, ZipArchive};

use crate::error::plain_message;
use crate::excerpt;

/// Most bytes of the pickle itself, which holds names and shapes alone.
const MAX_PICKLE_BYTES: u64 = 64 << 20;

/// A `pytorch_model.bin` in memory.
pub(crate) struct Pickle {
    bytes: Vec<u8>,
    tensors: BTreeMap<String, PickledTensor>,
}

/// A tensor in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PickledTensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
    strides: Vec<usize>,
    /// Elements of the storage before the first one.
    offset: usize,
    /// Bytes of the file that hold the storage, which tensors may share.
    storage: Range<usize>,
}

impl Pickle {
    /// Reads the names and places of the tensors.
    ///
    /// # Errors
    /// A message if the file is not a zip archive of PyTorch, or its pickle holds more than a table of tensors.
    pub(crate) fn new(bytes: Vec<u8>) -> Result<Self, String> {
        let mut archive = ZipArchive::new(Cursor::new(&bytes[..])).map_err(|error| match bytes.first() {
            Some(0x80) => "it was written by PyTorch before 1.6, in a form that is not read".to_owned(),
            _ => format!("it is not an archive of PyTorch: {error}"),
        })?;
        let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        let pickle = names.iter().find(|name| name.ends_with("data.pkl")).ok_or("the archive has no data.pkl")?;
        let root = pickle.strip_suffix(".pkl").unwrap_or_default();
        let mut written = Vec::new();
        let entry = archive.by_name(pickle).map_err(|error| error.to_string())?;
        entry.take(MAX_PICKLE_BYTES).read_to_end(&mut written).map_err(|error| error.to_string())?;
        if let Some(order) = names.iter().find(|name| name.ends_with("/byteorder")) {
            let mut word = String::new();
            let entry = archive.by_name(order).map_err(|error| error.to_string())?;
            entry.take(16).read_to_string(&mut word).map_err(|error| error.to_string())?;
            if word != "little" {
                return Err(format!("its numbers are in the byte order '{word}'; only 'little' is read"));
            }
        }
        measure::check(&written).map_err(|error| format!("its pickle is not read: {error}"))?;
        let mut stack = Stack::empty();
        let parsed = stack.read_loop(&mut Cursor::new(written)).and_then(|()| stack.finalize());
        let parsed = parsed.map_err(|error| format!("its pickle is not read: {}", excerpt(&plain_message(&error))));
        let Object::Dict(entries) = parsed? else {
            return Err("its pickle holds more than a table of tensors".to_owned());
        };
        let length = bytes.len() as u64;
        let mut place = |key: &str| storage(&mut archive, &format!("{root}/{key}"), length);
        let mut tensors = BTreeMap::new();
        for (name, value) in entries {
            if let (Object::Unicode(name), Some(described)) = (name, described(&value)) {
                let tensor = described.tensor(&mut place).map_err(|message| format!("tensor '{name}': {message}"))?;
                tensors.insert(name, tensor);
            }
        }
        Ok(Self { bytes, tensors })
    }

    pub(crate) fn tensors(&self) -> &BTreeMap<String, PickledTensor> {
        &self.tensors
    }

    /// A tensor on the CPU, in its own element type.
    pub(crate) fn load(&self, tensor: &PickledTensor) -> candle_core::Result<Tensor> {
        let PickledTensor { shape, dtype, strides, offset, storage } = tensor;
        let size = dtype.size_in_bytes();
        let (storage, first) = (&self.bytes[storage.clone()], offset * size);
        if *strides == contiguous(shape) {
            let bytes = &storage[first..first + shape.iter().product::<usize>() * size];
            return Tensor::from_raw_buffer(bytes, *dtype, shape, &Device::Cpu);
        }
        // A view of another tensor, such as its transpose.
        let mut bytes = Vec::with_capacity(shape.iter().product::<usize>() * size);
        let mut index = vec![0; shape.len()];
        for _ in 0..shape.iter().product() {
            let at = first + size * index.iter().zip(strides).map(|(index, stride)| index * stride).sum::<usize>();
            bytes.extend_from_slice(&storage[at..at + size]);
            for dimension in (0..shape.len()).rev() {
                index[dimension] += 1;
                if index[dimension] < shape[dimension] {
                    break;
                }
                index[dimension] = 0;
            }
        }
        Tensor::from_raw_buffer(&bytes, *dtype, shape, &Device::Cpu)
    }
}

/// The bytes of the file that an entry of the archive holds. PyTorch does not compress them.
fn storage(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, length: u64) -> Result<Range<usize>, String> {
    let entry = archive.by_name(name).map_err(|error| format!("{name}: {error}"))?;
    if entry.compression() != CompressionMethod::Stored {
        return Err(format!("{name} is compressed, which PyTorch does not do"));
    }
    let start = entry.data_start().ok_or_else(|| format!("{name} has no place in the archive"))?;
    let size = entry.size();
    let end = start.checked_add(size).filter(|end| *end <= length);
    let as_place = |at: u64| usize::try_from(at).ok();
    match (as_place(start), end.and_then(as_place)) {
        (Some(start), Some(end)) => Ok(start..end),
        _ => Err(format!("{name} reaches beyond the end of the file")),
    }
}

/// The arguments of `torch._utils._rebuild_tensor_v2`.
struct Described<'a> {
    storage: &'a [Object],
    offset: &'a Object,
    shape: &'a Object,
    strides: &'a Object,
}

/// The description of a tensor, or of a parameter around one; `None` for any other object, such as metadata.
fn described(object: &Object) -> Option<Described<'_>> {
    let Object::Reduce { callable, args } = object else { return None };
    let (Object::Class { module_name, class_name }, Object::Tuple(args)) = (&**callable, &**args) else { return None };
    match (module_name.as_str(), class_name.as_str(), &args[..]) {
        ("torch._utils", "_rebuild_parameter", [tensor, ..]) => described(tensor),
        ("torch._utils", "_rebuild_tensor_v2", [Object::PersistentLoad(id), offset, shape, strides, ..]) => match &**id
        {
            Object::Tuple(storage) => Some(Described { storage, offset, shape, strides }),
            _ => None,
        },
        _ => None,
    }
}

impl Described<'_> {
    /// The tensor, once `place` has found its storage.
    fn tensor(&self, place: &mut impl FnMut(&str) -> Result<Range<usize>, String>) -> Result<PickledTensor, String> {
        let [_, Object::Class { class_name, .. }, Object::Unicode(key), ..] = self.storage else {
            return Err("its storage is not described".to_owned());
        };
        let dtype = match class_name.as_str() {
            "FloatStorage" => DType::F32,
            "DoubleStorage" => DType::F64,
            "HalfStorage" => DType::F16,
            "BFloat16Storage" => DType::BF16,
            "ByteStorage" | "BoolStorage" | "CharStorage" => DType::U8,
            "ShortStorage" => DType::I16,
            "IntStorage" => DType::I32,
            "LongStorage" => DType::I64,
            other => return Err(format!("its elements are {other}, which are not read")),
        };
        let (shape, strides) = (numbers(self.shape)?, numbers(self.strides)?);
        let (offset, storage) = (number(self.offset)?, place(key)?);
        let tensor = PickledTensor { shape, dtype, strides, offset, storage };
        if tensor.fits() { Ok(tensor) } else { Err("it reaches beyond its storage".to_owned()) }
    }
}

impl PickledTensor {
    /// True if the storage has all elements.
    fn fits(&self) -> bool {
        let Self { shape, dtype, strides, offset, storage } = self;
        if shape.len() != strides.len() {
            return false;
        }
        if shape.contains(&0) {
            return true;
        }
        let mut steps = shape.iter().zip(strides).map(|(length, stride)| (length - 1).checked_mul(*stride));
        let last = steps.try_fold(*offset, |sum, step| sum.checked_add(step?));
        let end = last.and_then(|last| last.checked_add(1)?.checked_mul(dtype.size_in_bytes()));
        end.is_some_and(|end| end <= storage.len())
    }
}

/// The strides of a tensor whose elements lie in row-major order.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension] * shape[dimension];
    }
    strides
}

fn numbers(object: &Object) -> Result<Vec<usize>, String> {
    match object {
        Object::Tuple(items) | Object::List(items) => items.iter().map(number).collect(),
        _ => Err("its shape is not a tuple".to_owned()),
    }
}

fn number(object: &Object) -> Result<usize, String> {
    let number = match object {
        Object::Int(number) => usize::try_from(*number).ok(),
        Object::Long(number) => usize::try_from(*number).ok(),
        _ => None,
    };
    number.ok_or_else(|| "its shape holds something else than sizes".to_owned())
}
