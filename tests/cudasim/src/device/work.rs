//! One piece of work on a stream, and how it runs.

use std::ffi::c_void;
use std::sync::Arc;

use super::error::Status;
use super::host::{self, HostPointer};
use super::simulator::Simulator;
use crate::blas::Gemm;
use crate::interpreter::{self, FaultKind, Launch};
use crate::ptx::Program;
use crate::random::Draw;

/// A piece of work. A graph holds it and runs it many times.
#[derive(Clone, Debug)]
pub enum Work {
    Kernel { device: usize, program: Arc<Program>, launch: Arc<Launch> },
    ToDevice { device: usize, to: u64, source: HostSource },
    ToHost { device: usize, from: u64, to: HostPointer, bytes: usize },
    OnDevice { to: (usize, u64), from: (usize, u64), bytes: usize },
    Fill { device: usize, to: u64, pattern: Vec<u8>, count: usize },
    Map { device: usize, start: u64, bytes: usize },
    Unmap { device: usize, start: u64 },
    Call { function: extern "C" fn(*mut c_void), argument: HostPointer },
    Gemm { device: usize, gemm: Arc<Gemm> },
    Draw { device: usize, draw: Arc<Draw> },
    Record { event: u64 },
}

/// Source of a copy to a device.
#[derive(Clone, Debug)]
pub enum HostSource {
    /// Pageable memory, which the driver has read when the call returns.
    Staged(Arc<Vec<u8>>),
    /// Pinned memory, or any memory in a graph, which is read when the copy runs.
    Later(HostPointer, usize),
}

impl Work {
    /// A short name for the trace.
    pub fn describe(&self) -> String {
        match self {
            Self::Kernel { program, launch, .. } => {
                format!("{} grid {:?} block {:?}", program.name, launch.grid, launch.block)
            }
            Self::Gemm { gemm, .. } => format!("gemm {} x {} x {}", gemm.m, gemm.n, gemm.k),
            Self::ToDevice { .. } => "copy to device".to_owned(),
            Self::ToHost { bytes, .. } => format!("copy of {bytes} bytes to host"),
            Self::OnDevice { bytes, .. } => format!("copy of {bytes} bytes on device"),
            Self::Fill { .. } => "fill".to_owned(),
            Self::Map { .. } => "allocation".to_owned(),
            Self::Unmap { .. } => "free".to_owned(),
            Self::Call { .. } => "host function".to_owned(),
            Self::Draw { .. } => "random numbers".to_owned(),
            Self::Record { .. } => "event".to_owned(),
        }
    }
}

/// Bytes to write to host memory once the host waits for them.
type ForHost = (HostPointer, Vec<u8>);

impl Simulator {
    /// Runs one piece of work; returns its bytes for the host, which land when the host waits for them.
    pub fn perform(&mut self, work: &Work) -> Option<ForHost> {
        if self.sticky.is_some() {
            // Nothing runs after a fault.
            return None;
        }
        match self.attempt(work) {
            Ok(landing) => landing,
            Err((kind, message)) => {
                self.fail((&kind).into(), message);
                None
            }
        }
    }

    fn attempt(&mut self, work: &Work) -> Result<Option<ForHost>, (FaultKind, String)> {
        let named = |kind: FaultKind| {
            let message = format!("{kind} in a {}", work.describe());
            (kind, message)
        };
        match work {
            Work::Kernel { device, program, launch } => {
                let memory = &mut self.devices[*device].memory;
                let executed = interpreter::run(program, launch, memory)
                    .map_err(|fault| (fault.kind.clone(), fault.to_string()))?;
                self.counts.instructions += executed;
                if self.settings.trace {
                    eprintln!("[cudasim]   {}: {executed} warp instructions", work.describe());
                }
            }
            Work::ToDevice { device, to, source } => {
                let memory = &mut self.devices[*device].memory;
                match source {
                    HostSource::Staged(data) => memory.write(*to, data),
                    HostSource::Later(from, bytes) => memory.write(*to, &host::read(*from, *bytes)),
                }
                .map_err(named)?;
            }
            Work::ToHost { device, from, to, bytes } => {
                let data = self.devices[*device].memory.read(*from, *bytes).map_err(named)?.to_vec();
                return Ok(Some((*to, data)));
            }
            Work::OnDevice { to, from, bytes } if to.0 == from.0 => {
                self.devices[to.0].memory.copy(to.1, from.1, *bytes).map_err(named)?;
            }
            Work::OnDevice { to, from, bytes } => {
                let data = self.devices[from.0].memory.read(from.1, *bytes).map_err(named)?.to_vec();
                self.devices[to.0].memory.write(to.1, &data).map_err(named)?;
            }
            Work::Fill { device, to, pattern, count } => {
                let fill = |bytes: &mut [u8]| {
                    bytes.chunks_exact_mut(pattern.len()).for_each(|chunk| chunk.copy_from_slice(pattern));
                };
                self.devices[*device].memory.write_with(*to, pattern.len() * count, fill).map_err(named)?;
            }
            Work::Map { device, start, bytes } => self.devices[*device].memory.map(*start, *bytes),
            Work::Unmap { device, start } => {
                self.devices[*device].memory.unmap(*start);
            }
            Work::Call { function, argument } => host::call(*function, *argument),
            Work::Gemm { device, gemm } => gemm.run(&mut self.devices[*device].memory).map_err(named)?,
            Work::Draw { device, draw } => draw.run(&mut self.devices[*device].memory).map_err(named)?,
            Work::Record { event } => {
                if let Some(event) = self.events.get_mut(event) {
                    event.reached = Some(std::time::Instant::now());
                }
            }
        }
        Ok(None)
    }

    /// Makes every later call fail.
    pub fn fail(&mut self, status: Status, message: String) {
        eprintln!("[cudasim] {message}");
        self.last_fault = Some(message);
        self.sticky.get_or_insert(status);
    }

    /// Counts a piece of work when it is enqueued, or when a graph that holds it is launched.
    pub fn count(&mut self, work: &Work) {
        let counts = &mut self.counts;
        match work {
            Work::Kernel { .. } => counts.launches += 1,
            Work::Gemm { gemm, .. } => {
                counts.gemms += 1;
                counts.gemm_multiplications += (gemm.m * gemm.n * gemm.k * gemm.batch) as u64;
            }
            Work::ToDevice { source, .. } => {
                counts.copies_to_device += 1;
                counts.bytes_to_device += match source {
                    HostSource::Staged(data) => data.len(),
                    HostSource::Later(_, bytes) => *bytes,
                } as u64;
            }
            Work::ToHost { bytes, .. } => {
                counts.copies_to_host += 1;
                counts.bytes_to_host += *bytes as u64;
            }
            Work::OnDevice { bytes, .. } => {
                counts.copies_on_device += 1;
                counts.bytes_on_device += *bytes as u64;
            }
            Work::Map { .. } | Work::Unmap { .. } | Work::Fill { .. } => {}
            Work::Call { .. } | Work::Draw { .. } | Work::Record { .. } => {}
        }
    }
}
