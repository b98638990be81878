//! The one simulated machine of a process.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sconce_cudasim_control::Counts;

use super::error::Status;
use super::graph::{Capture, Graph, GraphExec};
use super::memory::Memory;
use super::modules::{Function, LoadedModule};
use super::schedule::{Coin, Event, Landing, Stream, StreamId};
use super::settings::Settings;
use super::work::Work;

/// One device.
#[derive(Debug)]
pub struct Device {
    /// Its memory.
    pub memory: Memory,
    /// Values stored by `cuMemPoolSetAttribute`, by attribute.
    pub pool_attributes: HashMap<u32, u64>,
}

/// The machine.
#[derive(Debug)]
pub struct Simulator {
    pub settings: Settings,
    pub counts: Counts,
    pub devices: Vec<Device>,
    pub streams: BTreeMap<StreamId, Stream>,
    pub events: HashMap<u64, Event>,
    pub modules: HashMap<u64, LoadedModule>,
    pub functions: HashMap<u64, Function>,
    pub captures: HashMap<u64, Capture>,
    pub graphs: HashMap<u64, Graph>,
    pub graph_execs: HashMap<u64, GraphExec>,
    /// Sizes of allocations that graphs make, by address.
    pub graph_allocations: HashMap<u64, usize>,
    /// Pinned host memory: start and length.
    pub pinned: BTreeMap<usize, usize>,
    /// cuBLAS handles, each with its stream and math mode.
    pub blas_handles: HashMap<u64, (StreamId, u32)>,
    /// cuRAND generators.
    pub generators: HashMap<u64, crate::random::Generator>,
    pub landings: Vec<Landing>,
    pub coin: Coin,
    pub next_number: u64,
    pub queued: usize,
    /// The error that all calls return after a fault.
    pub sticky: Option<Status>,
    pub last_fault: Option<String>,
    pub failures: Failures,
    next_handle: u64,
}

/// Failures to inject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Allocations until one fails.
    pub allocation_in: Option<u64>,
    /// Launches until the device is lost.
    pub loss_in: Option<u64>,
    /// A limit below the device's memory.
    pub memory_limit: Option<usize>,
}

static SIMULATOR: Mutex<Option<Simulator>> = Mutex::new(None);

thread_local! {
    /// The current context: a device's number plus one.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    /// This thread's number, for its default streams.
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// Per-thread default streams have numbers from here on, all other handles higher ones.
const THREAD_STREAMS: u64 = 1 << 20;
const HANDLES: u64 = 1 << 32;
/// Default streams of one thread, one for each device.
const DEVICES_PER_THREAD: u64 = 16;

impl Simulator {
    fn new(settings: Settings) -> Self {
        let device = |number| Device {
            memory: Memory::new(number, settings.check_uninitialised),
            pool_attributes: HashMap::new(),
        };
        let legacy = |device| (device as StreamId, Stream::new(device, false));
        Self {
            counts: Counts::default(),
            devices: (0..settings.devices).map(device).collect(),
            streams: (0..settings.devices).map(legacy).collect(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            captures: HashMap::new(),
            graphs: HashMap::new(),
            graph_execs: HashMap::new(),
            graph_allocations: HashMap::new(),
            pinned: BTreeMap::new(),
            blas_handles: HashMap::new(),
            generators: HashMap::new(),
            landings: Vec::new(),
            coin: Coin::new(settings.delay_seed),
            next_number: 0,
            queued: 0,
            sticky: None,
            last_fault: None,
            failures: Failures {
                allocation_in: settings.fail_allocation,
                loss_in: settings.lose_device_after,
                memory_limit: None,
            },
            next_handle: HANDLES,
            settings,
        }
    }

    /// A number for a new object.
    pub fn new_handle(&mut self) -> u64 {
        self.next_handle += 16;
        self.next_handle
    }

    /// The device of this thread's context.
    pub fn current_device(&self) -> Result<usize, Status> {
        match CURRENT.get().checked_sub(1) {
            Some(device) if device < self.devices.len() => Ok(device),
            _ => Err(Status::INVALID_CONTEXT),
        }
    }

    /// The stream that a handle stands for, also for the legacy and per-thread default streams.
    pub fn stream(&mut self, handle: u64) -> Result<StreamId, Status> {
        match handle {
            0 | 1 => Ok(self.current_device()? as StreamId),
            2 => {
                let device = self.current_device()?;
                let id = THREAD_STREAMS + thread_number() * DEVICES_PER_THREAD + device as u64;
                self.streams.entry(id).or_insert_with(|| Stream::new(device, true));
                Ok(id)
            }
            _ if self.streams.contains_key(&handle) => Ok(handle),
            _ => Err(Status::INVALID_HANDLE),
        }
    }

    /// Reserves memory, or fails where a failure is due.
    pub fn allocate(&mut self, device: usize, bytes: usize) -> Result<u64, Status> {
        if let Some(left) = &mut self.failures.allocation_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.failures.allocation_in = None;
                return Err(Status::OUT_OF_MEMORY);
            }
        }
        if bytes > self.free_memory(device) {
            return Err(Status::OUT_OF_MEMORY);
        }
        let start = self.devices[device].memory.reserve(bytes);
        self.account_allocation(device, bytes);
        Ok(start)
    }

    /// Counts an allocation; allocations of graphs are counted at each launch.
    pub fn account_allocation(&mut self, device: usize, bytes: usize) {
        let memory = &mut self.devices[device].memory;
        memory.used += bytes;
        memory.peak = memory.peak.max(memory.used);
        self.counts.allocations += 1;
        let used: usize = self.devices.iter().map(|device| device.memory.used).sum();
        self.counts.peak_memory = self.counts.peak_memory.max(used as u64);
    }

    /// Counts a free of `bytes`.
    pub fn account_free(&mut self, device: usize, bytes: usize) {
        let memory = &mut self.devices[device].memory;
        memory.used = memory.used.saturating_sub(bytes);
        self.counts.frees += 1;
    }

    /// Limit of a device's memory in bytes.
    pub fn memory_limit(&self) -> usize {
        self.failures.memory_limit.map_or(self.settings.memory, |limit| limit.min(self.settings.memory))
    }

    /// Memory of a device that is not in use, in bytes.
    pub fn free_memory(&self, device: usize) -> usize {
        self.memory_limit().saturating_sub(self.devices[device].memory.used)
    }

    /// Counts down to the loss of the device; called before work is put on a stream.
    pub fn before_work(&mut self, work: &Work) -> Result<(), Status> {
        if !matches!(work, Work::Kernel { .. } | Work::Gemm { .. }) {
            return Ok(());
        }
        if let Some(left) = &mut self.failures.loss_in {
            if *left == 0 {
                self.failures.loss_in = None;
                self.drop_queued();
                self.fail(Status::DEVICE_UNAVAILABLE, "the device is lost, as was asked for".to_owned());
                return Err(Status::DEVICE_UNAVAILABLE);
            }
            *left -= 1;
        }
        Ok(())
    }

    /// Repairs the machine: cancels failures, forgets faults and queued work.
    pub fn restore(&mut self) {
        self.drop_queued();
        self.sticky = None;
        self.last_fault = None;
        self.failures = Failures::default();
    }
}

/// This thread's number.
fn thread_number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    if THREAD.get() == 0 {
        THREAD.set(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    }
    THREAD.get()
}

/// The context of this thread: zero for none.
pub fn current_context() -> usize {
    CURRENT.get()
}

/// Sets this thread's context.
pub fn set_current_context(context: usize) {
    CURRENT.set(context);
}

/// The machine, built at the first call.
pub fn lock() -> MutexGuard<'static, Option<Simulator>> {
    let mut guard = SIMULATOR.lock().unwrap_or_else(PoisonError::into_inner);
    guard.get_or_insert_with(|| Simulator::new(Settings::from_env()));
    guard
}

/// Runs one call of the driver: counts it, and fails it if the device has failed before.
pub fn call(name: &str, body: impl FnOnce(&mut Simulator) -> Result<(), Status>) -> Status {
    let mut guard = lock();
    let simulator = guard.as_mut().expect("built when it was locked");
    simulator.counts.driver_calls += 1;
    if let Some(status) = simulator.sticky {
        return status;
    }
    if simulator.devices.is_empty() {
        return Status::NO_DEVICE;
    }
    let result = catch_unwind(AssertUnwindSafe(|| body(simulator))).unwrap_or_else(|_| {
        eprintln!("[cudasim] {name}: the simulator itself failed; see the panic above");
        Err(Status::UNKNOWN)
    });
    let status = result.err().unwrap_or(Status::SUCCESS);
    if simulator.settings.trace {
        eprintln!("[cudasim] {name}: {}", status.0);
    }
    status
}

/// Builds the machine anew with other settings: for this crate's own tests.
pub fn rebuild(settings: Settings) {
    let mut guard = SIMULATOR.lock().unwrap_or_else(PoisonError::into_inner);
    *guard = Some(Simulator::new(settings));
}
