//! Stream capture, and graphs that run the captured work.

use super::error::Status;
use super::schedule::StreamId;
use super::simulator::Simulator;
use super::work::Work;

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    /// The stream that began it and must end it.
    origin: StreamId,
    /// Streams that joined by waiting for an event of the capture, with work that nothing has waited for since.
    unjoined: Vec<StreamId>,
    work: Vec<Work>,
    /// Set once a call has been made that a capture does not allow.
    invalid: bool,
}

/// Captured work, in an order that the dependencies allow.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Captured work.
    pub work: Vec<Work>,
}

/// A graph made ready to run.
#[derive(Debug)]
pub struct GraphExec {
    graph: Graph,
    /// True if memory that a run left allocated is freed when the graph runs again.
    auto_free: bool,
}

/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH`
const AUTO_FREE_ON_LAUNCH: u64 = 1;

impl Simulator {
    /// Begins to capture a stream.
    pub fn begin_capture(&mut self, stream: StreamId) -> Result<(), Status> {
        let target = self.streams.get_mut(&stream).ok_or(Status::INVALID_HANDLE)?;
        if stream == target.device as StreamId {
            // The legacy default stream cannot be captured.
            return Err(Status::CAPTURE_UNSUPPORTED);
        }
        if target.capture.is_some() {
            return Err(Status::INVALID_VALUE);
        }
        let id = self.new_handle();
        self.streams.get_mut(&stream).expect("looked up above").capture = Some(id);
        let capture = Capture { origin: stream, unjoined: Vec::new(), work: Vec::new(), invalid: false };
        self.captures.insert(id, capture);
        Ok(())
    }

    /// Ends a capture and returns its graph.
    pub fn end_capture(&mut self, stream: StreamId) -> Result<Graph, Status> {
        let target = self.streams.get(&stream).ok_or(Status::INVALID_HANDLE)?;
        let id = target.capture.ok_or(Status::INVALID_VALUE)?;
        if self.captures[&id].origin != stream {
            return Err(Status::CAPTURE_UNJOINED);
        }
        let capture = self.captures.remove(&id).expect("streams refer to captures that exist");
        for stream in self.streams.values_mut().filter(|stream| stream.capture == Some(id)) {
            stream.capture = None;
        }
        if capture.invalid {
            return Err(Status::CAPTURE_INVALIDATED);
        }
        if !capture.unjoined.is_empty() {
            return Err(Status::CAPTURE_UNJOINED);
        }
        Ok(Graph { work: capture.work })
    }

    /// Adds work to a capture.
    pub fn capture_work(&mut self, capture: u64, work: Work) -> Result<(), Status> {
        let capture = self.captures.get_mut(&capture).expect("streams refer to captures that exist");
        if capture.invalid {
            return Err(Status::CAPTURE_INVALIDATED);
        }
        capture.work.push(work);
        Ok(())
    }

    /// Invalidates all captures under way: a call was made that none allows.
    pub fn forbid_during_capture(&mut self) -> Result<(), Status> {
        if self.captures.is_empty() {
            return Ok(());
        }
        for capture in self.captures.values_mut() {
            capture.invalid = true;
        }
        Err(Status::CAPTURE_UNSUPPORTED)
    }

    /// Records an event on a stream; returns true if the stream is captured.
    pub fn capture_event(&mut self, stream: StreamId, event: u64) -> Result<bool, Status> {
        let capture = self.streams.get(&stream).ok_or(Status::INVALID_HANDLE)?.capture;
        self.events.get_mut(&event).ok_or(Status::INVALID_HANDLE)?.capture = capture;
        if let Some(capture) = capture.and_then(|id| self.captures.get_mut(&id)) {
            // A stream that waits for the event also waits for this stream's work.
            capture.unjoined.retain(|other| *other != stream);
        }
        Ok(capture.is_some())
    }

    /// Makes a stream that waits for an event of a capture join it; `false` where the event belongs to no capture.
    pub fn join_capture(&mut self, stream: StreamId, event: u64) -> Result<bool, Status> {
        let of_event = self.events.get(&event).ok_or(Status::INVALID_HANDLE)?.capture;
        let target = self.streams.get_mut(&stream).ok_or(Status::INVALID_HANDLE)?;
        match (of_event.filter(|id| self.captures.contains_key(id)), target.capture) {
            (None, None) => Ok(false),
            (None, Some(id)) => {
                self.captures.get_mut(&id).expect("streams refer to captures that exist").invalid = true;
                Err(Status::CAPTURE_ISOLATION)
            }
            (Some(event), Some(stream)) if event == stream => Ok(true),
            (Some(_), Some(_)) => Err(Status::CAPTURE_ISOLATION),
            (Some(id), None) => {
                target.capture = Some(id);
                let capture = self.captures.get_mut(&id).expect("checked just above");
                capture.unjoined.push(stream);
                Ok(true)
            }
        }
    }

    /// Makes a graph ready to run.
    pub fn instantiate(&mut self, graph: &Graph, flags: u64) -> u64 {
        let exec = GraphExec { graph: graph.clone(), auto_free: flags & AUTO_FREE_ON_LAUNCH != 0 };
        let handle = self.new_handle();
        self.graph_execs.insert(handle, exec);
        handle
    }

    /// Puts all of a graph's work on a stream.
    pub fn launch_graph(&mut self, exec: u64, stream: StreamId) -> Result<(), Status> {
        let exec = self.graph_execs.get(&exec).ok_or(Status::INVALID_HANDLE)?;
        let (work, auto_free) = (exec.graph.work.clone(), exec.auto_free);
        let clock = self.clock_of(stream)?;
        self.counts.graph_launches += 1;
        for piece in &work {
            if let Work::Map { device, start, bytes } = piece {
                self.prepare_graph_memory(&clock, (*device, *start, *bytes), auto_free)?;
            }
        }
        for piece in work {
            self.before_work(&piece)?;
            match &piece {
                Work::Map { device, bytes, .. } => self.account_allocation(*device, *bytes),
                Work::Unmap { device, start } => {
                    let bytes = self.graph_allocations.get(start).copied().unwrap_or(0);
                    self.account_free(*device, bytes);
                }
                _ => {}
            }
            self.enqueue(stream, piece)?;
        }
        Ok(())
    }

    /// Makes sure that a graph's memory, which has one address for all runs, is free before the next run.
    fn prepare_graph_memory(
        &mut self,
        clock: &super::schedule::Clock,
        (device, start, bytes): (usize, u64, usize),
        auto_free: bool,
    ) -> Result<(), Status> {
        self.run_until(clock);
        if self.devices[device].memory.size_of(start).is_none() {
            return Ok(());
        }
        if !auto_free {
            return Err(Status::INVALID_VALUE);
        }
        self.devices[device].memory.unmap(start);
        let memory = &mut self.devices[device].memory;
        memory.used = memory.used.saturating_sub(bytes);
        Ok(())
    }
}
