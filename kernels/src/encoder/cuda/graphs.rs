//! The CUDA graphs of an encoder, one for each shape of batch that has come twice.

use std::collections::HashSet;

use super::shape::Shape;
use crate::cuda::Graph;

/// Most graphs of an encoder; each takes some hundred KiB.
const MAX_GRAPHS: usize = 64;

#[derive(Default)]
pub(super) struct Graphs {
    /// The generation of the workspace that the graphs were recorded with.
    generation: u64,
    /// The shapes that were queued once, so that cuBLAS is initialised for them.
    seen: HashSet<Shape>,
    /// The recorded graphs, the oldest first.
    recorded: Vec<(Shape, Graph)>,
}

/// The way to run a batch.
pub(super) enum Next {
    /// Queue each copy and launch.
    Queue,
    /// Record a graph, then replay it.
    Record,
    /// Replay the recorded graph.
    Replay,
}

impl Graphs {
    /// The way to run a batch of this shape. Graphs of an earlier generation of the workspace are dropped first.
    pub(super) fn next(&mut self, shape: Shape, generation: u64) -> Next {
        if self.generation != generation {
            self.recorded.clear();
            self.generation = generation;
        }
        if self.find(shape).is_some() {
            Next::Replay
        } else if self.seen.insert(shape) {
            Next::Queue
        } else {
            Next::Record
        }
    }

    pub(super) fn find(&self, shape: Shape) -> Option<&Graph> {
        self.recorded.iter().find(|(of, _)| *of == shape).map(|(_, graph)| graph)
    }

    pub(super) fn keep(&mut self, shape: Shape, graph: Graph) {
        if self.recorded.len() == MAX_GRAPHS {
            self.recorded.remove(0);
        }
        self.recorded.push((shape, graph));
    }
}
