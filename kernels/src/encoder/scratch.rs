//! Buffers that forward passes reuse.

use std::ops::{Index, IndexMut};
use std::sync::Mutex;

use super::parts::EncoderParts;
use super::plan::Part;
use super::steps::{EncoderStep, MATRICES, StepMatrix, Steps};
use crate::aligned::Aligned;
use crate::attention::positions::PositionTables;
use crate::rows::{Rows, RowsMut};
use crate::{attention, quantize};

/// A matrix that grows when needed.
#[derive(Default)]
pub(super) struct Matrix {
    values: Aligned<f32>,
    columns: usize,
}

impl Matrix {
    /// Makes room for `rows` of `columns`. Each row has one more cache line, which keeps rows off the same cache sets.
    pub(super) fn resize(&mut self, rows: usize, columns: usize) {
        self.columns = columns;
        self.values.grow(rows * self.stride());
    }

    fn stride(&self) -> usize {
        self.columns.next_multiple_of(16) + 16
    }

    /// The first columns of the first rows.
    pub(super) fn rows(&self, rows: usize, columns: usize) -> Rows<'_, f32> {
        Rows::new(&self.values, rows, self.columns, self.stride()).part(0..rows, 0..columns)
    }

    pub(super) fn rows_mut(&mut self, rows: usize, columns: usize) -> RowsMut<'_, f32> {
        let stride = self.stride();
        let Self { values, columns: all, .. } = self;
        assert!(columns <= *all, "the matrix is as wide as its widest step");
        RowsMut::new(values, rows, columns, stride)
    }
}

/// The matrices of a computation. Those that it does not use stay empty.
#[derive(Default)]
pub(super) struct StepMatrices([Matrix; MATRICES]);

impl Index<StepMatrix> for StepMatrices {
    type Output = Matrix;

    fn index(&self, matrix: StepMatrix) -> &Matrix {
        &self.0[matrix as usize]
    }
}

impl IndexMut<StepMatrix> for StepMatrices {
    fn index_mut(&mut self, matrix: StepMatrix) -> &mut Matrix {
        &mut self.0[matrix as usize]
    }
}

impl StepMatrices {
    /// Makes room for what the steps write into the matrices that `rows` gives a number of rows for.
    pub(super) fn reserve(&mut self, parts: &EncoderParts, steps: &Steps, rows: impl Fn(StepMatrix) -> Option<usize>) {
        let mut widths = [0; MATRICES];
        for step in &steps.list {
            let width = &mut widths[step.to() as usize];
            *width = parts.columns_of(*step).max(*width);
        }
        for step in &steps.list {
            if let Some(rows) = rows(step.to()) {
                self[step.to()].resize(rows, widths[step.to() as usize]);
            }
        }
    }
}

impl EncoderParts {
    /// Columns that a step writes.
    pub(super) fn columns_of(&self, step: EncoderStep) -> usize {
        match step {
            EncoderStep::Embed { .. } => self.embeddings.columns(),
            EncoderStep::Norm { .. } => self.hidden,
            EncoderStep::Product { linear, .. } => self.linears[linear].outputs(),
            EncoderStep::Attend { heads } => self.heads[heads].columns(),
        }
    }
}

/// The buffers of one thread.
#[derive(Default)]
pub(super) struct PartScratch {
    pub(super) matrices: StepMatrices,
    pub(super) work: WorkScratch,
}

/// The buffers within a step.
#[derive(Default)]
pub(super) struct WorkScratch {
    pub(super) quantized: quantize::Quantized,
    pub(super) head: attention::Scratch,
    /// Unpacked weights.
    pub(super) weights: Aligned<f32>,
}

/// Buffers for the forward passes of one model. They grow to the size of its largest batch.
#[derive(Default)]
pub struct Scratch {
    pub(super) parts: Vec<Part>,
    /// Buffers for parts, one per running thread; each is taken for a part and put back after it.
    pub(super) free: Mutex<Vec<PartScratch>>,
    pub(super) by_part: Vec<Mutex<PartScratch>>,
    /// Matrices that all threads write parts of, for [`Plan::Columns`](super::plan::Plan::Columns).
    pub(super) shared: StepMatrices,
    pub(super) positions: PositionTables,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}
