//! Allocations, memory pools, pinned host memory.

use std::ffi::{c_int, c_void};

use crate::device::error::Status;
use crate::device::host::{self, HostPointer, Out, put, set_value};
use crate::device::simulator::Simulator;
use crate::device::work::Work;

/// Handles of pools: one default pool for each device.
const POOLS: usize = 0x7000;

fn pool_device(simulator: &Simulator, pool: usize) -> Result<usize, Status> {
    pool.checked_sub(POOLS).filter(|device| *device < simulator.devices.len()).ok_or(Status::INVALID_VALUE)
}

fn default_pool(simulator: &Simulator, number: c_int) -> Result<usize, Status> {
    match usize::try_from(number) {
        Ok(device) if device < simulator.devices.len() => Ok(POOLS + device),
        _ => Err(Status::INVALID_DEVICE),
    }
}

fn allocate_on_stream(simulator: &mut Simulator, bytes: usize, stream: u64) -> Result<u64, Status> {
    if bytes == 0 {
        return Err(Status::INVALID_VALUE);
    }
    let stream = simulator.stream(stream)?;
    let device = simulator.streams[&stream].device;
    if simulator.streams[&stream].capture.is_some() {
        // The graph allocates at this address each time it runs.
        let start = simulator.devices[device].memory.reserve(bytes);
        simulator.graph_allocations.insert(start, bytes);
        simulator.enqueue(stream, Work::Map { device, start, bytes })?;
        return Ok(start);
    }
    let start = simulator.allocate(device, bytes)?;
    simulator.devices[device].memory.map(start, bytes);
    Ok(start)
}

entry_points! {
    /// Free and total memory of the current device.
    fn cuMemGetInfo_v2(simulator, free: Out<usize>, total: Out<usize>) {
        let device = simulator.current_device()?;
        put(free, simulator.free_memory(device))?;
        put(total, simulator.memory_limit())
    }

    /// Allocates memory.
    fn cuMemAlloc_v2(simulator, address: Out<u64>, bytes: usize) {
        let device = simulator.current_device()?;
        simulator.forbid_during_capture()?;
        if bytes == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let start = simulator.allocate(device, bytes)?;
        simulator.devices[device].memory.map(start, bytes);
        put(address, start)
    }

    /// Frees memory; waits for all work of the device.
    fn cuMemFree_v2(simulator, address: u64) {
        if address == 0 {
            return Ok(());
        }
        let device = simulator.current_device()?;
        simulator.forbid_during_capture()?;
        let clock = simulator.clock_of_device(device);
        simulator.wait(&clock)?;
        let bytes = simulator.devices[device].memory.unmap(address).ok_or(Status::INVALID_VALUE)?;
        simulator.account_free(device, bytes);
        Ok(())
    }

    /// Allocates memory in the order of a stream.
    fn cuMemAllocAsync(simulator, address: Out<u64>, bytes: usize, stream: u64) {
        put(address, allocate_on_stream(simulator, bytes, stream)?)
    }

    /// Allocates memory from a pool in the order of a stream.
    fn cuMemAllocFromPoolAsync(simulator, address: Out<u64>, bytes: usize, pool: usize, stream: u64) {
        pool_device(simulator, pool)?;
        put(address, allocate_on_stream(simulator, bytes, stream)?)
    }

    /// Frees memory in the order of a stream: work put on the stream before may still use it.
    fn cuMemFreeAsync(simulator, address: u64, stream: u64) {
        if address == 0 {
            return Ok(());
        }
        let stream = simulator.stream(stream)?;
        let device = simulator.streams[&stream].device;
        if simulator.streams[&stream].capture.is_none() {
            let bytes = simulator.devices[device].memory.size_of(address).ok_or(Status::INVALID_VALUE)?;
            simulator.account_free(device, bytes);
        }
        simulator.enqueue(stream, Work::Unmap { device, start: address })
    }

    /// A device's default pool.
    fn cuDeviceGetDefaultMemPool(simulator, pool: Out<usize>, number: c_int) {
        put(pool, default_pool(simulator, number)?)
    }

    /// A device's current pool: the default one.
    fn cuDeviceGetMemPool(simulator, pool: Out<usize>, number: c_int) {
        put(pool, default_pool(simulator, number)?)
    }

    /// Sets a device's current pool, which can only be the default one.
    fn cuDeviceSetMemPool(simulator, number: c_int, pool: usize) {
        if default_pool(simulator, number)? == pool { Ok(()) } else { Err(Status::NOT_SUPPORTED) }
    }

    /// Sets an attribute of a pool: reuse switches are 32 bits wide, thresholds and marks 64.
    fn cuMemPoolSetAttribute(simulator, pool: usize, attribute: u32, value: *const c_void) {
        let device = pool_device(simulator, pool)?;
        let value = match attribute {
            1..=3 => u64::from(host::value::<u32>(value)?),
            4 | 6 | 8 => host::value::<u64>(value)?,
            _ => return Err(Status::INVALID_VALUE),
        };
        simulator.devices[device].pool_attributes.insert(attribute, value);
        if attribute == 8 {
            let memory = &mut simulator.devices[device].memory;
            memory.peak = memory.used;
        }
        Ok(())
    }

    /// An attribute of a pool.
    fn cuMemPoolGetAttribute(simulator, pool: usize, attribute: u32, value: *mut c_void) {
        let device = &simulator.devices[pool_device(simulator, pool)?];
        let stored = device.pool_attributes.get(&attribute).copied();
        match attribute {
            1..=3 => set_value(value, stored.unwrap_or(1) as u32),
            4 => set_value(value, stored.unwrap_or(0)),
            // The simulator keeps no spare memory, so the reserved memory is the used memory.
            5 | 7 => set_value(value, device.memory.used as u64),
            6 | 8 => set_value(value, device.memory.peak as u64),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    /// Frees a pool's spare memory: there is none.
    fn cuMemPoolTrimTo(simulator, pool: usize, _keep: usize) { pool_device(simulator, pool).map(|_| ()) }

    /// Allocates pinned host memory.
    fn cuMemHostAlloc(simulator, address: Out<usize>, bytes: usize, _flags: u32) {
        let memory = host::allocate(bytes).ok_or(Status::OUT_OF_MEMORY)?;
        simulator.pinned.insert(memory.0, bytes);
        put(address, memory.0)
    }

    /// Allocates pinned host memory.
    fn cuMemAllocHost_v2(simulator, address: Out<usize>, bytes: usize) {
        let memory = host::allocate(bytes).ok_or(Status::OUT_OF_MEMORY)?;
        simulator.pinned.insert(memory.0, bytes);
        put(address, memory.0)
    }

    /// Frees pinned host memory; waits for the work that may use it.
    fn cuMemFreeHost(simulator, address: usize) {
        let bytes = *simulator.pinned.get(&address).ok_or(Status::INVALID_VALUE)?;
        for device in 0..simulator.devices.len() {
            let clock = simulator.clock_of_device(device);
            simulator.wait(&clock)?;
        }
        simulator.pinned.remove(&address);
        host::release(HostPointer(address), bytes);
        Ok(())
    }

    /// Pins host memory.
    fn cuMemHostRegister_v2(simulator, address: usize, bytes: usize, _flags: u32) {
        if bytes == 0 {
            return Err(Status::INVALID_VALUE);
        }
        simulator.pinned.insert(address, bytes);
        Ok(())
    }

    /// Unpins host memory.
    fn cuMemHostUnregister(simulator, address: usize) {
        simulator.pinned.remove(&address).map(|_| ()).ok_or(Status::INVALID_VALUE)
    }
}
