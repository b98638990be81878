//! The devices of a runtime: what they can do, opened and started as models need them. A device thread for each batch that runs at
//! a time on the CPU, and one for each GPU.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::num::NonZeroUsize;
use std::sync::Arc;

use sconce_batch::Device as DeviceThread;
use sconce_models::{Device, DeviceName, Isa, Placement, Registry, cuda_devices};

use crate::BuildError;
use crate::memory::DeviceMemory;
use crate::placement::{Capability, CpuFigures};

/// A device beside the CPU that models may be put on: one that [`RuntimeBuilder::accelerator`](crate::RuntimeBuilder::accelerator)
/// is given, for GPUs are found by themselves.
#[derive(Debug, Clone)]
pub struct Accelerator {
    /// What it can do, and its name.
    pub capability: Capability,
    /// As candle knows it.
    pub device: Device,
    /// The families that run on it, where they are not the runtime's.
    pub families: Option<Registry>,
}

/// The devices of a runtime.
pub(crate) struct Devices {
    max_cpu_threads: Option<NonZeroUsize>,
    cpu: Capability,
    cpu_lanes: Vec<DeviceThread>,
    /// CPU models so far: they take turns on the threads.
    cpu_models: usize,
    accelerators: BTreeMap<DeviceName, Accelerator>,
    lanes: BTreeMap<DeviceName, DeviceThread>,
    max_memory: BTreeMap<DeviceName, u64>,
    memory: BTreeMap<DeviceName, Arc<DeviceMemory>>,
}

/// Where a model's batches run on a device.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LaneKey {
    Cpu(usize),
    Other(DeviceName),
}

impl LaneKey {
    /// Its number among the threads that run batches of the same device at the same time: a GPU has one.
    pub(crate) fn thread_of_device(self) -> usize {
        match self {
            Self::Cpu(at) => at,
            Self::Other(_) => 0,
        }
    }
}

/// A device that a model may be put on, or one that is there and cannot be used.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) capability: Capability,
    pub(crate) device: Result<Device, String>,
}

impl Devices {
    /// `max_cpu_threads`: batches that run at a time on the CPU; unset, one of each model. `threads` compute each of them.
    pub(crate) fn new(
        max_cpu_threads: Option<NonZeroUsize>,
        threads: NonZeroUsize,
        accelerators: Vec<Accelerator>,
        max_memory: BTreeMap<DeviceName, u64>,
    ) -> Self {
        let cpu = Capability::of_cpu(CpuFigures { threads: threads.get(), isa: Isa::best() });
        Self {
            max_cpu_threads,
            cpu: with_memory(cpu, &max_memory),
            cpu_lanes: Vec::new(),
            cpu_models: 0,
            accelerators: accelerators
                .into_iter()
                .map(|it| {
                    (it.capability.device, Accelerator { capability: with_memory(it.capability, &max_memory), ..it })
                })
                .collect(),
            lanes: BTreeMap::new(),
            max_memory,
            memory: BTreeMap::new(),
        }
    }

    /// The devices that come into question: the CPU, and what is asked for, or all there is.
    pub(crate) fn candidates(&mut self, placement: Placement) -> Result<Vec<Open>, BuildError> {
        let mut open = vec![Open { capability: self.cpu.clone(), device: Ok(Device::Cpu) }];
        match placement {
            Placement::On(DeviceName::Cpu) => {}
            Placement::On(name) => {
                self.open(name)?;
                let Accelerator { capability, device, .. } = &self.accelerators[&name];
                open.push(Open { capability: capability.clone(), device: Ok(device.clone()) });
            }
            Placement::Auto => {
                // One that cannot be used is told with the reason, and none at all is no error.
                for gpu in cuda_devices().unwrap_or_default() {
                    let name = DeviceName::Cuda { ordinal: gpu.ordinal };
                    if let Err(error) = self.open(name) {
                        let capability = with_memory(Capability::of_gpu(&gpu), &self.max_memory);
                        open.push(Open { capability, device: Err(error.to_string()) });
                    }
                }
                let usable = self.accelerators.values();
                open.extend(usable.map(|it| Open { capability: it.capability.clone(), device: Ok(it.device.clone()) }));
            }
        }
        Ok(open)
    }

    /// The families of a device, where they are not the runtime's.
    pub(crate) fn families(&self, name: DeviceName) -> Option<&Registry> {
        self.accelerators.get(&name)?.families.as_ref()
    }

    /// A thread of the device for one more model.
    pub(crate) fn lane(&mut self, name: DeviceName) -> Result<LaneKey, BuildError> {
        if name != DeviceName::Cpu {
            // It runs one batch at a time: its models take turns.
            if let Entry::Vacant(entry) = self.lanes.entry(name) {
                entry.insert(spawn(&name.to_string().replace(':', "-"))?);
            }
            return Ok(LaneKey::Other(name));
        }
        let at = self.max_cpu_threads.map_or(self.cpu_models, |max| self.cpu_models % max);
        self.cpu_models += 1;
        if at == self.cpu_lanes.len() {
            self.cpu_lanes.push(spawn(&format!("cpu-{at}"))?);
        }
        Ok(LaneKey::Cpu(at))
    }

    pub(crate) fn thread(&self, key: LaneKey) -> &DeviceThread {
        match key {
            LaneKey::Cpu(at) => &self.cpu_lanes[at],
            LaneKey::Other(name) => &self.lanes[&name],
        }
    }

    /// The memory that models share on a device, if it has a bound.
    pub(crate) fn memory(&mut self, capability: &Capability) -> Option<Arc<DeviceMemory>> {
        let max_bytes = capability.memory?;
        let memory = self.memory.entry(capability.device);
        Some(Arc::clone(memory.or_insert_with(|| Arc::new(DeviceMemory::new(max_bytes)))))
    }

    fn open(&mut self, name: DeviceName) -> Result<(), BuildError> {
        if self.accelerators.contains_key(&name) {
            return Ok(());
        }
        let device = name.open().map_err(|source| BuildError::OpenDevice { device: name, source })?;
        let gpus = cuda_devices().map_err(|source| BuildError::OpenDevice { device: name, source })?;
        let gpu = gpus.into_iter().find(|gpu| DeviceName::Cuda { ordinal: gpu.ordinal } == name);
        let capability = Capability::of_gpu(&gpu.expect("a device that is open is listed"));
        let capability = with_memory(capability, &self.max_memory);
        self.accelerators.insert(name, Accelerator { capability, device, families: None });
        Ok(())
    }
}

/// A bound that somebody set goes before what the device tells.
fn with_memory(capability: Capability, set: &BTreeMap<DeviceName, u64>) -> Capability {
    let memory = set.get(&capability.device).copied().or(capability.memory);
    Capability { memory, ..capability }
}

fn spawn(name: &str) -> Result<DeviceThread, BuildError> {
    DeviceThread::spawn(name).map_err(|source| BuildError::Device { source })
}
