//! Tables of positions in device memory, which grow with the longest sequence.

use crate::KernelError;
use crate::aligned::Aligned;
use crate::attention::cuda::BiasTable;
use crate::attention::positions::{PositionKinds, PositionTables};
use crate::cuda::{Buffer, Gpu, View};

/// The biases and rotations of an encoder, for sequences of at most `tokens`.
#[derive(Default)]
pub(super) struct DevicePositions {
    pub(super) kinds: PositionKinds,
    tokens: usize,
    /// Counts how often the tables were made anew. Graphs of an earlier generation use freed memory.
    generation: u64,
    biases: Vec<Buffer>,
    rotations: Vec<Buffer>,
}

impl DevicePositions {
    /// Makes the tables reach to sequences of `tokens`; nothing happens if they do. No launch may be in flight.
    ///
    /// # Errors
    /// If the device has no room. The tables reach nowhere then, and the next call tries again.
    pub(super) fn reach(&mut self, gpu: &Gpu, tokens: usize) -> Result<(), KernelError> {
        if tokens <= self.tokens || (self.kinds.biases.is_empty() && self.kinds.rotations.is_empty()) {
            return Ok(());
        }
        let mut tables = PositionTables::default();
        tables.reach(&self.kinds, tokens);
        // Free the old tables first: both may not fit.
        self.biases.clear();
        self.rotations.clear();
        (self.tokens, self.generation) = (0, self.generation + 1);
        let upload = |tables: &[Aligned<f32>]| -> Result<Vec<Buffer>, KernelError> {
            tables.iter().map(|table| gpu.upload(table)).collect()
        };
        self.biases = upload(tables.biases())?;
        self.rotations = upload(tables.rotations())?;
        self.tokens = tables.tokens();
        Ok(())
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn bytes(&self) -> usize {
        self.biases.iter().chain(&self.rotations).map(Buffer::bytes).sum()
    }

    pub(super) fn bias(&self, index: usize) -> BiasTable<'_> {
        let row = 2 * self.tokens - 1;
        BiasTable { values: self.biases[index].view(0, self.kinds.biases[index].heads * row), row }
    }

    pub(super) fn rotation(&self, index: usize) -> View<'_, f32> {
        self.rotations[index].view(0, self.tokens * self.kinds.rotations[index].head_size)
    }
}
