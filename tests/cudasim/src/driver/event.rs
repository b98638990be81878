//! Events.

use crate::device::error::Status;
use crate::device::host::{Out, put};
use crate::device::schedule::{Clock, Event};
use crate::device::simulator::Simulator;
use crate::device::work::Work;

/// The clock of an event that was recorded outside of a capture.
fn clock(simulator: &Simulator, event: u64) -> Result<Option<Clock>, Status> {
    let event = simulator.events.get(&event).ok_or(Status::INVALID_HANDLE)?;
    if event.capture.is_some_and(|capture| simulator.captures.contains_key(&capture)) {
        return Err(Status::CAPTURED_EVENT);
    }
    Ok(event.clock.clone())
}

fn elapsed(simulator: &mut Simulator, start: u64, end: u64) -> Result<f32, Status> {
    let mut times = [None; 2];
    for (event, time) in [start, end].into_iter().zip(&mut times) {
        if clock(simulator, event)?.is_none() {
            return Err(Status::INVALID_HANDLE);
        }
        *time = simulator.events[&event].reached;
    }
    match times {
        [Some(start), Some(end)] => Ok(end.saturating_duration_since(start).as_secs_f32() * 1e3),
        _ => Err(Status::NOT_READY),
    }
}

entry_points! {
    /// Creates an event.
    fn cuEventCreate(simulator, event: Out<u64>, _flags: u32) {
        let handle = simulator.new_handle();
        simulator.events.insert(handle, Event::default());
        simulator.counts.events += 1;
        put(event, handle)
    }

    /// Destroys an event.
    fn cuEventDestroy_v2(simulator, event: u64) {
        simulator.events.remove(&event).map(|_| ()).ok_or(Status::INVALID_HANDLE)
    }

    /// Records an event at the end of a stream.
    fn cuEventRecord(simulator, event: u64, stream: u64) {
        let stream = simulator.stream(stream)?;
        if simulator.capture_event(stream, event)? {
            return Ok(());
        }
        if let Some(event) = simulator.events.get_mut(&event) {
            event.reached = None;
        }
        simulator.enqueue(stream, Work::Record { event })?;
        let clock = simulator.clock_of(stream)?;
        let event = simulator.events.get_mut(&event).ok_or(Status::INVALID_HANDLE)?;
        event.clock = Some(clock);
        Ok(())
    }

    /// Waits until a stream has reached an event.
    fn cuEventSynchronize(simulator, event: u64) {
        match clock(simulator, event)? {
            None => Ok(()),
            Some(clock) => simulator.wait(&clock),
        }
    }

    /// Returns success if a stream has reached an event.
    fn cuEventQuery(simulator, event: u64) {
        match clock(simulator, event)? {
            None => Ok(()),
            Some(clock) => simulator.query(&clock),
        }
    }

    /// Milliseconds between two events in the simulator, which do not predict a card's.
    fn cuEventElapsedTime(simulator, milliseconds: Out<f32>, start: u64, end: u64) {
        put(milliseconds, elapsed(simulator, start, end)?)
    }

    /// Milliseconds between two events in the simulator, which do not predict a card's.
    fn cuEventElapsedTime_v2(simulator, milliseconds: Out<f32>, start: u64, end: u64) {
        put(milliseconds, elapsed(simulator, start, end)?)
    }
}
