//! Regions of the system's shared memory, in which clients on this machine put inputs and find outputs.
//!
//! A region is read and written through the file of its object, and not mapped: a client that cuts a mapped object short
//! would end the process, and one that changes it would change inputs that are already checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sconce::models::excerpt;

use crate::error::RequestError;
use crate::limits::MAX_MESSAGE_BYTES;
use crate::parameters::{ParameterMap, ParameterValue, count};
use crate::request_bytes::Charge;

/// Regions at most. Each holds a file open.
pub const MAX_SHARED_MEMORY_REGIONS: usize = 256;

const REGION: &str = "shared_memory_region";
const OFFSET: &str = "shared_memory_offset";
const BYTES: &str = "shared_memory_byte_size";

/// The registered regions. Clones share them. By default clients may register none.
#[derive(Debug, Clone, Default)]
pub struct SharedMemory(Option<Arc<Mutex<SharedRegions>>>);

/// Regions by name.
type SharedRegions = BTreeMap<String, Arc<SharedRegion>>;

/// A region of a shared memory object.
#[derive(Debug)]
pub struct SharedRegion {
    /// The name that requests use.
    pub name: String,
    /// The key of the object.
    pub key: String,
    /// Bytes of the object before the region.
    pub offset: u64,
    /// Bytes of the region.
    pub bytes: u64,
    object: File,
}

/// The place of a tensor in a region.
#[derive(Debug, Clone)]
pub struct SharedTensor {
    region: Arc<SharedRegion>,
    tensor: String,
    offset: u64,
    bytes: usize,
}

/// The reason why a region cannot be registered, or a tensor not be read from or written to one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says it")]
pub enum SharedMemoryError {
    #[error("shared memory is not served: {reason}; send contents")]
    NotServed { reason: &'static str },
    #[error("no shared memory region is named '{}'; register it first", excerpt(name))]
    UnknownRegion { name: String },
    #[error("a shared memory region named '{}' is registered already; unregister it first", excerpt(name))]
    RegionExists { name: String },
    #[error("there are {max} shared memory regions, and no more are allowed; unregister some")]
    TooManyRegions { max: usize },
    #[error("the key '{}' of a shared memory region must be a name, with a '/' before it or none", excerpt(key))]
    WrongKey { key: String },
    #[error("cannot open the shared memory object '{}': {source}", excerpt(key))]
    CannotOpen { key: String, source: io::Error },
    #[error(
        "the shared memory region '{}' has {bytes} bytes after the first {offset}, but its object '{}' has {object} bytes",
        excerpt(name),
        excerpt(key)
    )]
    BeyondObject { name: String, key: String, offset: u64, bytes: u64, object: u64 },
    #[error(
        "tensor '{}' takes {bytes} bytes after the first {offset} of the shared memory region '{}', which has {region}",
        excerpt(tensor),
        excerpt(name)
    )]
    BeyondRegion { tensor: String, name: String, offset: u64, bytes: u64, region: u64 },
    #[error("tensor '{}' has parameter '{parameter}', but not '{missing}'", excerpt(tensor))]
    Incomplete { tensor: String, parameter: String, missing: &'static str },
    #[error("output '{}' has {needed} bytes, but its place in shared memory has {bytes}", excerpt(tensor))]
    OutputTooLarge { tensor: String, needed: usize, bytes: usize },
    #[error("cannot reach tensor '{}' in the shared memory region '{}': {source}", excerpt(tensor), excerpt(name))]
    Unreachable { tensor: String, name: String, source: io::Error },
}

impl SharedMemory {
    /// Lets clients register regions. Whoever can reach the server can then read and change all shared memory that the
    /// process may: only for servers that none but clients of this machine reach.
    #[must_use]
    pub fn allowed() -> Self {
        Self(Some(Arc::default()))
    }

    /// True if clients may register regions.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.0.is_some()
    }

    /// Registers a region of the object with a key, as `shm_open` takes it.
    ///
    /// # Errors
    /// [`SharedMemoryError`] if there is no such object, it is smaller, or the name is taken.
    pub fn register(&self, name: &str, key: &str, offset: u64, bytes: u64) -> Result<(), SharedMemoryError> {
        let mut regions = self.lock()?;
        if regions.contains_key(name) {
            return Err(SharedMemoryError::RegionExists { name: name.to_owned() });
        }
        if regions.len() >= MAX_SHARED_MEMORY_REGIONS {
            return Err(SharedMemoryError::TooManyRegions { max: MAX_SHARED_MEMORY_REGIONS });
        }
        let cannot_open = |source| SharedMemoryError::CannotOpen { key: key.to_owned(), source };
        let object = open(file_name(key)?).map_err(cannot_open)?;
        let length = object.metadata().map_err(cannot_open)?.len();
        if offset.checked_add(bytes).is_none_or(|end| end > length) {
            let (name, key) = (name.to_owned(), key.to_owned());
            return Err(SharedMemoryError::BeyondObject { name, key, offset, bytes, object: length });
        }
        let region = SharedRegion { name: name.to_owned(), key: key.to_owned(), offset, bytes, object };
        regions.insert(name.to_owned(), Arc::new(region));
        Ok(())
    }

    /// Forgets the region of this name, or all if it is empty; requests that use it are still answered. A name that is not
    /// known is no error.
    ///
    /// # Errors
    /// [`SharedMemoryError`] if clients may not register regions, and this is not for all.
    pub fn unregister(&self, name: &str) -> Result<(), SharedMemoryError> {
        match name {
            // Clients forget all regions before they begin, even where there are none.
            "" => self.0.iter().for_each(|regions| locked(regions).clear()),
            name => drop(self.lock()?.remove(name)),
        }
        Ok(())
    }

    /// The region of this name, or all if it is empty.
    ///
    /// # Errors
    /// [`SharedMemoryError::UnknownRegion`] if there is none of this name.
    pub fn regions(&self, name: &str) -> Result<Vec<Arc<SharedRegion>>, SharedMemoryError> {
        if name.is_empty() {
            return Ok(self
                .0
                .iter()
                .flat_map(|regions| locked(regions).values().cloned().collect::<Vec<_>>())
                .collect());
        }
        Ok(vec![self.region(name)?])
    }

    /// The place that the parameters of a tensor give it; `None` if its contents are in the message.
    ///
    /// # Errors
    /// [`RequestError`] if a parameter has a wrong value, or there is no such place.
    pub fn place(&self, tensor: &str, parameters: &impl ParameterMap) -> Result<Option<SharedTensor>, RequestError> {
        let Some(first) = parameters.names().filter(|name| name.starts_with("shared_memory_")).min() else {
            return Ok(None);
        };
        let incomplete =
            |missing| SharedMemoryError::Incomplete { tensor: tensor.to_owned(), parameter: first.to_owned(), missing };
        let region = match parameters.get(REGION) {
            Some(ParameterValue::Text(name)) => self.region(name)?,
            Some(other) => {
                return Err(RequestError::WrongParameter { name: REGION, got: other.to_string(), expected: "a text" });
            }
            None => return Err(incomplete(REGION).into()),
        };
        let offset = count(OFFSET, parameters)?.unwrap_or(0);
        let bytes = count(BYTES, parameters)?.ok_or_else(|| incomplete(BYTES))?;
        let tensor = tensor.to_owned();
        if offset.checked_add(bytes).is_none_or(|end| end > region.bytes) {
            let (name, region) = (region.name.clone(), region.bytes);
            return Err(SharedMemoryError::BeyondRegion { tensor, name, offset, bytes, region }.into());
        }
        let too_large = RequestError::TooLarge { bytes, max: MAX_MESSAGE_BYTES };
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_MESSAGE_BYTES).ok_or(too_large)?;
        Ok(Some(SharedTensor { region, tensor, offset, bytes }))
    }

    fn region(&self, name: &str) -> Result<Arc<SharedRegion>, SharedMemoryError> {
        let unknown = || SharedMemoryError::UnknownRegion { name: name.to_owned() };
        self.lock()?.get(name).cloned().ok_or_else(unknown)
    }

    fn lock(&self) -> Result<MutexGuard<'_, BTreeMap<String, Arc<SharedRegion>>>, SharedMemoryError> {
        let reason = "it is for servers that only clients of the same machine reach (`sconce serve --shared-memory`)";
        self.0.as_deref().map(locked).ok_or(SharedMemoryError::NotServed { reason })
    }
}

fn locked<T>(regions: &Mutex<T>) -> MutexGuard<'_, T> {
    regions.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedTensor {
    /// Copies the tensor's elements out of shared memory. The memory for them and for the items that are made of them counts
    /// among that of the request.
    ///
    /// # Errors
    /// [`RequestError`] if there is no room for them, or the object was cut short.
    pub fn read(&self, charge: Option<&Charge>) -> Result<Bytes, RequestError> {
        if let Some(charge) = charge {
            charge.grow(self.bytes.saturating_mul(2))?;
        }
        let mut elements = vec![0; self.bytes];
        read_at(&self.region.object, &mut elements, self.region.offset + self.offset)
            .map_err(|source| self.unreachable(source))?;
        Ok(elements.into())
    }

    /// Copies elements to the tensor's place.
    ///
    /// # Errors
    /// [`SharedMemoryError`] if they are too many, or the object was cut short.
    pub fn write(&self, elements: &[u8]) -> Result<(), SharedMemoryError> {
        let needed = elements.len();
        if needed > self.bytes {
            let (tensor, bytes) = (self.tensor.clone(), self.bytes);
            return Err(SharedMemoryError::OutputTooLarge { tensor, needed, bytes });
        }
        let at = self.region.offset + self.offset;
        // Writing beyond its end would make the object larger.
        let length = self.region.object.metadata().map_err(|source| self.unreachable(source))?.len();
        if at + needed as u64 > length {
            return Err(self.unreachable(io::ErrorKind::UnexpectedEof.into()));
        }
        write_at(&self.region.object, elements, at).map_err(|source| self.unreachable(source))
    }

    fn unreachable(&self, source: io::Error) -> SharedMemoryError {
        let (tensor, name) = (self.tensor.clone(), self.region.name.clone());
        SharedMemoryError::Unreachable { tensor, name, source }
    }
}

/// The name of the file of an object, which is directly in the directory of shared memory.
fn file_name(key: &str) -> Result<&str, SharedMemoryError> {
    let name = key.strip_prefix('/').unwrap_or(key);
    let is_name = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != ".." && name.len() <= 255;
    if is_name { Ok(name) } else { Err(SharedMemoryError::WrongKey { key: key.to_owned() }) }
}

/// Opens the file of a shared memory object, and nothing else: no link, which could lead elsewhere, and no pipe, which
/// would wait for its other end.
#[cfg(target_os = "linux")]
fn open(name: &str) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;

    use rustix::fs::OFlags;

    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let path = std::path::Path::new("/dev/shm").join(name);
    let object = File::options().read(true).write(true).custom_flags(flags).open(path)?;
    if object.metadata()?.is_file() { Ok(object) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

#[cfg(not(target_os = "linux"))]
fn open(_: &str) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(unix)]
fn read_at(object: &File, elements: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(object, elements, at)
}

#[cfg(unix)]
fn write_at(object: &File, elements: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(object, elements, at)
}

#[cfg(not(unix))]
fn read_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
fn write_at(_: &File, _: &[u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
