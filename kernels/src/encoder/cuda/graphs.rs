//! The graphs of an encoder: one for each shape that has come twice.

use std::collections::HashSet;

use super::shape::Shape;
use crate::cuda::Graph;

/// A graph of a layer's few nodes costs some hundred KiB.
const MAX_GRAPHS: usize = 64;

#[derive(Default)]
pub(super) struct Graphs {
    /// Of the memory that they were recorded with.
    generation: u64,
    /// Run once, so that cuBLAS has made ready for it.
    seen: HashSet<Shape>,
    /// The one that has been there for longest first.
    recorded: Vec<(Shape, Graph)>,
}

/// What to do with a batch.
pub(super) enum Next {
    /// Queue it as it is.
    Queue,
    /// Record it, then replay that.
    Record,
    /// Replay what has been recorded.
    Replay,
}

impl Graphs {
    /// What to do with a batch of that shape in memory of that generation.
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
