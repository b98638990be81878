//! Where models run: a device thread for each batch that runs at a time on the CPU, and one for each GPU.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::num::NonZeroUsize;

use sconce_batch::Device as DeviceThread;
use sconce_models::{Device, DeviceName};

use crate::BuildError;

/// The devices of a runtime, opened and started as models need them.
pub(crate) struct Devices {
    max_cpu_threads: Option<NonZeroUsize>,
    cpu: Vec<DeviceThread>,
    /// CPU models so far: they take turns on the threads.
    cpu_models: usize,
    others: BTreeMap<DeviceName, (Device, DeviceThread)>,
}

impl Devices {
    /// `max_cpu_threads`: batches that run at a time on the CPU; unset, one of each model.
    pub(crate) fn new(max_cpu_threads: Option<NonZeroUsize>) -> Self {
        Self { max_cpu_threads, cpu: Vec::new(), cpu_models: 0, others: BTreeMap::new() }
    }

    /// The device of that name, for one more model.
    pub(crate) fn place(&mut self, name: DeviceName) -> Result<(Device, &DeviceThread), BuildError> {
        if name == DeviceName::Cpu { self.place_on_cpu() } else { self.place_on(name) }
    }

    fn place_on_cpu(&mut self) -> Result<(Device, &DeviceThread), BuildError> {
        let at = self.max_cpu_threads.map_or(self.cpu_models, |max| self.cpu_models % max);
        self.cpu_models += 1;
        if at == self.cpu.len() {
            self.cpu.push(spawn(&format!("cpu-{at}"))?);
        }
        Ok((Device::Cpu, &self.cpu[at]))
    }

    /// A GPU runs one batch at a time: its models take turns.
    fn place_on(&mut self, name: DeviceName) -> Result<(Device, &DeviceThread), BuildError> {
        let (device, thread) = match self.others.entry(name) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let device = name.open().map_err(|source| BuildError::OpenDevice { device: name, source })?;
                entry.insert((device, spawn(&name.to_string().replace(':', "-"))?))
            }
        };
        Ok((device.clone(), thread))
    }
}

fn spawn(name: &str) -> Result<DeviceThread, BuildError> {
    DeviceThread::spawn(name).map_err(|source| BuildError::Device { source })
}
