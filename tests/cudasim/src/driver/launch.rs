//! Kernel launches and occupancy.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::context::max_shared;
use crate::device::error::Status;
use crate::device::host::{self, HostPointer, Out, put};
use crate::device::modules::Function;
use crate::device::simulator::Simulator;
use crate::device::work::Work;
use crate::interpreter::{Launch, SharedChecks};

/// Most threads of a block on a card.
const MAX_THREADS: u64 = 1024;

fn check_shape(simulator: &Simulator, function: &Function, launch: &Launch) -> Result<(), Status> {
    let threads: u64 = launch.block.iter().map(|extent| u64::from(*extent)).product();
    let [_, grid_y, grid_z] = launch.grid;
    if launch.grid.contains(&0) || grid_y > 65_535 || grid_z > 65_535 {
        return Err(Status::INVALID_VALUE);
    }
    if threads == 0 || threads > MAX_THREADS || launch.block[2] > 64 {
        return Err(Status::INVALID_VALUE);
    }
    if threads > u64::from(function.program.max_threads) {
        return Err(Status::OUT_OF_RESOURCES);
    }
    let shared = function.program.static_shared_bytes + launch.dynamic_shared_bytes;
    let most = max_shared(simulator.settings.compute_capability);
    if launch.dynamic_shared_bytes > function.max_dynamic_shared || shared > most {
        return Err(Status::INVALID_VALUE);
    }
    Ok(())
}

/// The block of parameters, each at its offset.
fn parameters(function: &Function, pointers: *const *mut c_void) -> Result<Vec<u8>, Status> {
    let mut block = vec![0; function.program.parameter_bytes];
    for (index, (offset, bytes)) in function.program.parameters.iter().enumerate() {
        let from = host::element(pointers, index)?;
        if from.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        block[*offset..offset + bytes].copy_from_slice(&host::read(HostPointer(from as usize), *bytes));
    }
    Ok(block)
}

fn active_blocks(simulator: &Simulator, function: u64, threads: c_int, dynamic: usize) -> Result<c_int, Status> {
    let function = simulator.functions.get(&function).ok_or(Status::INVALID_HANDLE)?;
    if threads <= 0 {
        return Err(Status::INVALID_VALUE);
    }
    let shared = (function.program.static_shared_bytes + dynamic).max(1);
    let by_shared = max_shared(simulator.settings.compute_capability) / shared;
    let by_threads = 2048 / threads as usize;
    Ok(by_shared.min(by_threads).min(16) as c_int)
}

entry_points! {
    /// Launches a kernel.
    fn cuLaunchKernel(
        simulator,
        function: u64,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: u64,
        parameter_pointers: *const *mut c_void,
        extra: *const *mut c_void,
    ) {
        let stream = simulator.stream(stream)?;
        let function = simulator.functions.get(&function).cloned().ok_or(Status::INVALID_HANDLE)?;
        if !extra.is_null() {
            return Err(Status::NOT_SUPPORTED);
        }
        if simulator.streams[&stream].device != function.device {
            return Err(Status::INVALID_HANDLE);
        }
        let launch = Launch {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            dynamic_shared_bytes: shared_bytes as usize,
            parameters: parameters(&function, parameter_pointers)?,
            checks: SharedChecks {
                races: simulator.settings.check_races,
                uninitialised: simulator.settings.check_uninitialised,
            },
            max_instructions: simulator.settings.max_instructions,
        };
        check_shape(simulator, &function, &launch)?;
        let work = Work::Kernel { device: function.device, program: function.program, launch: Arc::new(launch) };
        simulator.before_work(&work)?;
        simulator.enqueue(stream, work)
    }

    /// Blocks of a kernel that a multiprocessor would hold.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        simulator,
        blocks: Out<c_int>,
        function: u64,
        threads: c_int,
        dynamic: usize,
    ) {
        put(blocks, active_blocks(simulator, function, threads, dynamic)?)
    }

    /// Blocks of a kernel that a multiprocessor would hold.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        simulator,
        blocks: Out<c_int>,
        function: u64,
        threads: c_int,
        dynamic: usize,
        _flags: u32,
    ) {
        put(blocks, active_blocks(simulator, function, threads, dynamic)?)
    }
}
