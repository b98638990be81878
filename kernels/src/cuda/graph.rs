//! CUDA graphs: launches that are recorded once and queued again by one call.

use std::sync::Arc;

use cudarc::driver::{CudaContext, result, sys};

use super::Gpu;
use super::error::Named as _;
use crate::KernelError;

/// Launches and copies recorded between [`Gpu::begin_recording`] and [`Gpu::end_recording`], with the pointers, sizes and
/// numbers that they were queued with.
pub(crate) struct Graph {
    context: Arc<CudaContext>,
    executable: sys::CUgraphExec,
}

// SAFETY: a handle that may be used from any thread on which the context is current, one at a time.
unsafe impl Send for Graph {}

impl Gpu {
    /// Starts recording: launches and copies are recorded instead of queued until [`Gpu::end_recording`].
    pub(crate) fn begin_recording(&self) -> Result<(), KernelError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream belongs to `self`.
        unsafe { result::stream::begin_capture(self.stream(), mode).named("cuStreamBeginCapture") }
    }

    /// Ends the recording and returns it. Must be called even after queueing has failed: the stream records until then.
    pub(crate) fn end_recording(&self) -> Result<Graph, KernelError> {
        // SAFETY: the stream belongs to `self`; the graph is destroyed once, after it has been made executable.
        unsafe {
            let graph = result::stream::end_capture(self.stream()).named("cuStreamEndCapture")?;
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            let executable = executable.named("cuGraphInstantiate")?;
            Ok(Graph { context: Arc::clone(self.context()), executable })
        }
    }

    /// Queues everything that was recorded.
    ///
    /// # Safety
    /// The memory used by the recorded launches is still allocated, and as large.
    pub(crate) unsafe fn replay(&self, graph: &Graph) -> Result<(), KernelError> {
        // SAFETY: recorded on this context; the caller vouches for the memory.
        unsafe { result::graph::launch(graph.executable, self.stream()).named("cuGraphLaunch") }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // A lost device has nothing left to free.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: created here and destroyed once. The driver waits for its launches.
            let _ = unsafe { result::graph::exec_destroy(self.executable) };
        }
    }
}
