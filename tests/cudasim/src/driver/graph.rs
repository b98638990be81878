//! Stream capture and graphs.

use std::ffi::c_int;

use crate::device::error::Status;
use crate::device::host::{Out, put};

entry_points! {
    /// Begins to capture a stream: its work is recorded instead of run.
    fn cuStreamBeginCapture_v2(simulator, stream: u64, _mode: u32) {
        let stream = simulator.stream(stream)?;
        simulator.begin_capture(stream)
    }

    /// Ends a capture.
    fn cuStreamEndCapture(simulator, stream: u64, graph: Out<u64>) {
        let stream = simulator.stream(stream)?;
        let captured = simulator.end_capture(stream)?;
        let handle = simulator.new_handle();
        simulator.graphs.insert(handle, captured);
        put(graph, handle)
    }

    /// Capture status of a stream: 0 not capturing, 1 capturing.
    fn cuStreamIsCapturing(simulator, stream: u64, status: Out<c_int>) {
        let stream = simulator.stream(stream)?;
        put(status, c_int::from(simulator.streams[&stream].capture.is_some()))
    }

    /// Makes a graph ready to run.
    fn cuGraphInstantiateWithFlags(simulator, exec: Out<u64>, graph: u64, flags: u64) {
        let graph = simulator.graphs.get(&graph).cloned().ok_or(Status::INVALID_HANDLE)?;
        put(exec, simulator.instantiate(&graph, flags))
    }

    /// Prepares a graph on a device: nothing to do.
    fn cuGraphUpload(simulator, exec: u64, stream: u64) {
        simulator.stream(stream)?;
        if simulator.graph_execs.contains_key(&exec) { Ok(()) } else { Err(Status::INVALID_HANDLE) }
    }

    /// Runs a graph on a stream.
    fn cuGraphLaunch(simulator, exec: u64, stream: u64) {
        let stream = simulator.stream(stream)?;
        simulator.launch_graph(exec, stream)
    }

    /// Destroys a graph.
    fn cuGraphDestroy(simulator, graph: u64) {
        simulator.graphs.remove(&graph).map(|_| ()).ok_or(Status::INVALID_HANDLE)
    }

    /// Destroys an executable graph.
    fn cuGraphExecDestroy(simulator, exec: u64) {
        simulator.graph_execs.remove(&exec).map(|_| ()).ok_or(Status::INVALID_HANDLE)
    }
}
