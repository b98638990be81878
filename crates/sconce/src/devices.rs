//! The devices of a runtime, opened and given threads as models need them. The CPU has one device thread for each batch
//! that runs at a time; each GPU has one.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sconce_batch::DeviceThread;
use sconce_models::{Backend, Backends, Capability, Device, DeviceName, Placement};

use crate::BuildError;
use crate::memory::DeviceMemory;

/// The devices of a runtime, their threads and their memory.
pub(crate) struct Devices {
    backends: Backends,
    max_cpu_threads: Option<NonZeroUsize>,
    cpu_device_threads: Vec<CpuDeviceThread>,
    open: BTreeMap<DeviceName, Arc<dyn Device>>,
    device_threads: BTreeMap<DeviceName, DeviceThread>,
    max_memory: BTreeMap<DeviceName, u64>,
    memory: BTreeMap<DeviceName, Arc<DeviceMemory>>,
    pub(crate) running: RunningBatches,
}

/// The number of batches that a runtime runs right now, on any device.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningBatches(Arc<AtomicUsize>);

/// A running batch, which counts as such until this is dropped.
pub(crate) struct RunningBatch<'a>(&'a AtomicUsize);

impl RunningBatches {
    pub(crate) fn begin(&self) -> RunningBatch<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        RunningBatch(&self.0)
    }

    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for RunningBatch<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A device thread of the CPU, and the models that take turns on it.
struct CpuDeviceThread {
    thread: DeviceThread,
    /// Each model on the thread holds a clone.
    models: Arc<()>,
}

/// Names the device thread that runs a model's batches on one device. As long as it is kept, the model counts among those
/// of the thread.
#[derive(Debug)]
pub(crate) enum ThreadKey {
    Cpu { at: usize, _model: Arc<()> },
    Other(DeviceName),
}

impl ThreadKey {
    /// The thread's number among those of its device, which run batches at the same time; always 0 on a GPU, which has
    /// one.
    pub(crate) fn thread_of_device(&self) -> usize {
        match *self {
            Self::Cpu { at, .. } => at,
            Self::Other(_) => 0,
        }
    }
}

/// A device that a model may be placed on, or one that exists but cannot be used.
#[derive(Clone)]
pub(crate) struct DeviceCandidate {
    pub(crate) capability: Capability,
    /// The device, or why it cannot be used.
    pub(crate) device: Result<Arc<dyn Device>, String>,
}

impl Devices {
    /// `max_cpu_threads` is the number of batches that run at a time on the CPU; `None`: one of each model.
    pub(crate) fn new(
        backends: Backends,
        max_cpu_threads: Option<NonZeroUsize>,
        max_memory: BTreeMap<DeviceName, u64>,
    ) -> Self {
        Self {
            backends,
            max_cpu_threads,
            cpu_device_threads: Vec::new(),
            open: BTreeMap::new(),
            device_threads: BTreeMap::new(),
            max_memory,
            memory: BTreeMap::new(),
            running: RunningBatches::default(),
        }
    }

    /// The candidates of a placement: the named device and the CPU, or every device for [`Placement::Auto`].
    pub(crate) fn candidates(&mut self, placement: Placement) -> Result<Vec<DeviceCandidate>, BuildError> {
        let named = match placement {
            Placement::On(name) if name != DeviceName::CPU => vec![DeviceName::CPU, name],
            Placement::On(_) => vec![DeviceName::CPU],
            Placement::Auto => return Ok(self.all()),
        };
        named.into_iter().map(|name| self.candidate(name)).collect()
    }

    /// Every device of every backend, with the reason if it cannot be used. A backend that cannot list its devices
    /// counts as having none.
    fn all(&mut self) -> Vec<DeviceCandidate> {
        let listed: Vec<Capability> = self.backends.iter().flat_map(|backend| listed(&**backend)).collect();
        let candidate = |capability: Capability| {
            self.candidate(capability.device).unwrap_or_else(|error| DeviceCandidate {
                capability: with_memory(capability, &self.max_memory),
                device: Err(error.to_string()),
            })
        };
        listed.into_iter().map(candidate).collect()
    }

    fn candidate(&mut self, name: DeviceName) -> Result<DeviceCandidate, BuildError> {
        let device = self.open(name)?;
        Ok(DeviceCandidate { capability: with_memory(device.capability(), &self.max_memory), device: Ok(device) })
    }

    /// Assigns one more model to a thread of the device; starts the thread if needed.
    pub(crate) fn assign(&mut self, name: DeviceName) -> Result<ThreadKey, BuildError> {
        if name != DeviceName::CPU {
            // A GPU runs one batch at a time: its models take turns on one thread.
            if let Entry::Vacant(entry) = self.device_threads.entry(name) {
                entry.insert(spawn(&name.to_string().replace(':', "-"))?);
            }
            return Ok(ThreadKey::Other(name));
        }
        let at = self.least_used_cpu_thread();
        if at == self.cpu_device_threads.len() {
            let thread = spawn(&format!("cpu-{at}"))?;
            self.cpu_device_threads.push(CpuDeviceThread { thread, models: Arc::default() });
        }
        Ok(ThreadKey::Cpu { at, _model: Arc::clone(&self.cpu_device_threads[at].models) })
    }

    /// The CPU's thread with the fewest models: a new one, unless one has none or there may be no more.
    fn least_used_cpu_thread(&self) -> usize {
        let threads = &self.cpu_device_threads;
        let models = |at: &usize| Arc::strong_count(&threads[*at].models) - 1;
        let least_used = (0..threads.len()).min_by_key(models);
        let may_be_more = self.max_cpu_threads.is_none_or(|max| threads.len() < max.get());
        least_used.filter(|at| !may_be_more || models(at) == 0).unwrap_or(threads.len())
    }

    pub(crate) fn thread(&self, key: &ThreadKey) -> &DeviceThread {
        match key {
            ThreadKey::Cpu { at, .. } => &self.cpu_device_threads[*at].thread,
            ThreadKey::Other(name) => &self.device_threads[name],
        }
    }

    /// Lets every thread end once its queues are closed and empty.
    pub(crate) fn end(&mut self) {
        self.cpu_device_threads.clear();
        self.device_threads.clear();
    }

    /// The memory that the device's models share; `None` if the device has no bound.
    pub(crate) fn memory(&mut self, capability: &Capability) -> Option<Arc<DeviceMemory>> {
        let max_bytes = capability.memory?;
        let memory = self.memory.entry(capability.device);
        Some(Arc::clone(memory.or_insert_with(|| Arc::new(DeviceMemory::new(max_bytes)))))
    }

    fn open(&mut self, name: DeviceName) -> Result<Arc<dyn Device>, BuildError> {
        if let Some(device) = self.open.get(&name) {
            return Ok(Arc::clone(device));
        }
        let device = self.backends.open(name).map_err(|source| BuildError::OpenDevice { device: name, source })?;
        self.open.insert(name, Arc::clone(&device));
        Ok(device)
    }
}

/// The devices of a backend; none if it has none, with the reason in the log.
fn listed(backend: &dyn Backend) -> Vec<Capability> {
    backend.list().unwrap_or_else(|reason| {
        tracing::debug!(kind = backend.kind(), %reason, "no devices");
        Vec::new()
    })
}

/// Replaces the memory that the device reports by the bound that the user set, if there is one.
fn with_memory(capability: Capability, set: &BTreeMap<DeviceName, u64>) -> Capability {
    let memory = set.get(&capability.device).copied().or(capability.memory);
    Capability { memory, ..capability }
}

fn spawn(name: &str) -> Result<DeviceThread, BuildError> {
    DeviceThread::spawn(name).map_err(|source| BuildError::Device { source })
}
