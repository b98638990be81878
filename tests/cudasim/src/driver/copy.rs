//! Copies and fills.
//!
//! As with a card: from pageable memory the driver reads the bytes before the call returns, and into pageable memory
//! the call returns once they have arrived. With pinned memory both happen later, in the order of the stream, and the
//! host sees the bytes once it has waited.

use crate::device::error::Status;
use crate::device::host::{self, HostPointer};
use crate::device::simulator::Simulator;
use crate::device::work::{HostSource, Work};
use std::sync::Arc;

fn is_pinned(simulator: &Simulator, start: usize, bytes: usize) -> bool {
    simulator.pinned.range(..=start).next_back().is_some_and(|(first, length)| start + bytes <= first + length)
}

/// Checks that a range of device memory is allocated, and finds its device.
fn device_of(simulator: &mut Simulator, address: u64, bytes: usize) -> Result<usize, Status> {
    let current = simulator.current_device()?;
    let others = (0..simulator.devices.len()).filter(|device| *device != current);
    std::iter::once(current)
        .chain(others)
        .find(|device| simulator.devices[*device].memory.check(address, bytes).is_ok())
        .ok_or(Status::INVALID_VALUE)
}

/// Like [`device_of`], but memory of a graph under capture is not allocated yet.
fn target(simulator: &mut Simulator, address: u64, bytes: usize, stream: u64) -> Result<usize, Status> {
    if simulator.streams[&stream].capture.is_some() {
        return Ok(simulator.streams[&stream].device);
    }
    device_of(simulator, address, bytes)
}

fn to_device(simulator: &mut Simulator, to: u64, from: usize, bytes: usize, stream: u64) -> Result<(), Status> {
    if bytes == 0 {
        return Ok(());
    }
    let device = target(simulator, to, bytes, stream)?;
    let later = simulator.streams[&stream].capture.is_some() || is_pinned(simulator, from, bytes);
    let source = if later {
        HostSource::Later(HostPointer(from), bytes)
    } else {
        HostSource::Staged(Arc::new(host::read(HostPointer(from), bytes)))
    };
    simulator.enqueue(stream, Work::ToDevice { device, to, source })
}

fn to_host(simulator: &mut Simulator, to: usize, from: u64, bytes: usize, stream: u64) -> Result<(), Status> {
    if bytes == 0 {
        return Ok(());
    }
    let device = target(simulator, from, bytes, stream)?;
    simulator.enqueue(stream, Work::ToHost { device, from, to: HostPointer(to), bytes })
}

fn on_device(simulator: &mut Simulator, to: u64, from: u64, bytes: usize, stream: u64) -> Result<(), Status> {
    if bytes == 0 {
        return Ok(());
    }
    let to = (target(simulator, to, bytes, stream)?, to);
    let from = (target(simulator, from, bytes, stream)?, from);
    simulator.enqueue(stream, Work::OnDevice { to, from, bytes })
}

fn fill(simulator: &mut Simulator, to: u64, pattern: &[u8], count: usize, stream: u64) -> Result<(), Status> {
    if count == 0 {
        return Ok(());
    }
    let device = target(simulator, to, pattern.len() * count, stream)?;
    simulator.enqueue(stream, Work::Fill { device, to, pattern: pattern.to_vec(), count })
}

/// The legacy default stream, used by calls without a stream.
fn legacy(simulator: &mut Simulator) -> Result<u64, Status> {
    simulator.forbid_during_capture()?;
    simulator.stream(0)
}

fn wait_for_stream(simulator: &mut Simulator, stream: u64) -> Result<(), Status> {
    let clock = simulator.clock_of(stream)?;
    simulator.wait(&clock)
}

entry_points! {
    /// Copies from the host and waits.
    fn cuMemcpyHtoD_v2(simulator, to: u64, from: usize, bytes: usize) {
        let stream = legacy(simulator)?;
        to_device(simulator, to, from, bytes, stream)?;
        wait_for_stream(simulator, stream)
    }

    /// Copies from the host.
    fn cuMemcpyHtoDAsync_v2(simulator, to: u64, from: usize, bytes: usize, stream: u64) {
        let stream = simulator.stream(stream)?;
        to_device(simulator, to, from, bytes, stream)
    }

    /// Copies to the host and waits.
    fn cuMemcpyDtoH_v2(simulator, to: usize, from: u64, bytes: usize) {
        let stream = legacy(simulator)?;
        to_host(simulator, to, from, bytes, stream)?;
        wait_for_stream(simulator, stream)
    }

    /// Copies to the host.
    fn cuMemcpyDtoHAsync_v2(simulator, to: usize, from: u64, bytes: usize, stream: u64) {
        let stream = simulator.stream(stream)?;
        to_host(simulator, to, from, bytes, stream)?;
        if simulator.streams[&stream].capture.is_none() && !is_pinned(simulator, to, bytes) {
            return wait_for_stream(simulator, stream);
        }
        Ok(())
    }

    /// Copies on a device.
    fn cuMemcpyDtoD_v2(simulator, to: u64, from: u64, bytes: usize) {
        let stream = legacy(simulator)?;
        on_device(simulator, to, from, bytes, stream)
    }

    /// Copies on a device.
    fn cuMemcpyDtoDAsync_v2(simulator, to: u64, from: u64, bytes: usize, stream: u64) {
        let stream = simulator.stream(stream)?;
        on_device(simulator, to, from, bytes, stream)
    }

    /// Copies between devices.
    fn cuMemcpyPeerAsync(simulator, to: u64, _to_context: usize, from: u64, _from_context: usize, bytes: usize, stream: u64) {
        let stream = simulator.stream(stream)?;
        on_device(simulator, to, from, bytes, stream)
    }

    /// Fills with a byte.
    fn cuMemsetD8_v2(simulator, to: u64, value: u8, count: usize) {
        let stream = legacy(simulator)?;
        fill(simulator, to, &[value], count, stream)
    }

    /// Fills with a byte.
    fn cuMemsetD8Async(simulator, to: u64, value: u8, count: usize, stream: u64) {
        let stream = simulator.stream(stream)?;
        fill(simulator, to, &[value], count, stream)
    }

    /// Fills with two bytes.
    fn cuMemsetD16Async(simulator, to: u64, value: u16, count: usize, stream: u64) {
        let stream = simulator.stream(stream)?;
        fill(simulator, to, &value.to_le_bytes(), count, stream)
    }

    /// Fills with four bytes.
    fn cuMemsetD32Async(simulator, to: u64, value: u32, count: usize, stream: u64) {
        let stream = simulator.stream(stream)?;
        fill(simulator, to, &value.to_le_bytes(), count, stream)
    }
}
