//! Streams.

use std::ffi::{c_int, c_void};

use crate::device::error::Status;
use crate::device::host::{HostPointer, Out, put};
use crate::device::schedule::Stream;
use crate::device::simulator::Simulator;
use crate::device::work::Work;

/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: u32 = 1;

fn create(simulator: &mut Simulator, flags: u32) -> Result<u64, Status> {
    let device = simulator.current_device()?;
    let handle = simulator.new_handle();
    let blocking = flags & NON_BLOCKING == 0;
    simulator.streams.insert(handle, Stream::new(device, blocking));
    Ok(handle)
}

entry_points! {
    /// Creates a stream.
    fn cuStreamCreate(simulator, stream: Out<u64>, flags: u32) { put(stream, create(simulator, flags)?) }

    /// Creates a stream; its priority changes no result.
    fn cuStreamCreateWithPriority(simulator, stream: Out<u64>, flags: u32, _priority: c_int) {
        put(stream, create(simulator, flags)?)
    }

    /// Destroys a stream once its work is complete.
    fn cuStreamDestroy_v2(simulator, stream: u64) {
        let clock = simulator.clock_of(stream)?;
        if stream <= 2 {
            return Err(Status::INVALID_HANDLE);
        }
        simulator.run_until(&clock);
        simulator.streams.remove(&stream);
        Ok(())
    }

    /// Waits for a stream.
    fn cuStreamSynchronize(simulator, stream: u64) {
        let stream = simulator.stream(stream)?;
        if simulator.streams[&stream].capture.is_some() {
            return simulator.forbid_during_capture();
        }
        let clock = simulator.clock_of(stream)?;
        simulator.wait(&clock)
    }

    /// Returns success if a stream's work is complete.
    fn cuStreamQuery(simulator, stream: u64) {
        let stream = simulator.stream(stream)?;
        if simulator.streams[&stream].capture.is_some() {
            return simulator.forbid_during_capture();
        }
        let clock = simulator.clock_of(stream)?;
        simulator.query(&clock)
    }

    /// Makes all work put on a stream from now on wait for an event.
    fn cuStreamWaitEvent(simulator, stream: u64, event: u64, _flags: u32) {
        let stream = simulator.stream(stream)?;
        if simulator.join_capture(stream, event)? {
            return Ok(());
        }
        match simulator.events[&event].clock.clone() {
            // An event that was never recorded delays nothing.
            None => Ok(()),
            Some(clock) => simulator.wait_for(stream, &clock),
        }
    }

    /// Calls a function of the host in the order of a stream. The function must not call CUDA.
    fn cuLaunchHostFunc(simulator, stream: u64, function: extern "C" fn(*mut c_void), argument: *mut c_void) {
        let stream = simulator.stream(stream)?;
        simulator.enqueue(stream, Work::Call { function, argument: HostPointer(argument as usize) })
    }
}
