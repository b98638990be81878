//! Buffers that forward passes reuse.

use std::sync::Mutex;

use super::plan::Part;
use crate::aligned::Aligned;
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

    pub(super) fn rows(&self, rows: usize) -> Rows<'_, f32> {
        Rows::new(&self.values, rows, self.columns, self.stride())
    }

    pub(super) fn rows_mut(&mut self, rows: usize) -> RowsMut<'_, f32> {
        let stride = self.stride();
        RowsMut::new(&mut self.values, rows, self.columns, stride)
    }
}

/// The buffers of one part of a computation.
#[derive(Default)]
pub(super) struct PartScratch {
    /// The tokens' vectors between layers.
    pub(super) x: Matrix,
    pub(super) query_key_value: Matrix,
    pub(super) attended: Matrix,
    /// The output of a projection, before its norm.
    pub(super) projected: Matrix,
    /// The tokens' vectors in the middle of a layer.
    pub(super) middle: Matrix,
    pub(super) inner: Matrix,
    pub(super) quantized: quantize::Quantized,
    pub(super) head: attention::Scratch,
    /// Unpacked weights.
    pub(super) weights: Aligned<f32>,
}

/// Matrices that all threads write parts of, for [`Plan::Columns`](super::plan::Plan::Columns).
#[derive(Default)]
pub(super) struct Shared {
    pub(super) query_key_value: Matrix,
    pub(super) attended: Matrix,
    pub(super) projected: Matrix,
    pub(super) inner: Matrix,
}

/// Buffers for the forward passes of one model. They grow to the size of its largest batch.
#[derive(Default)]
pub struct Scratch {
    pub(super) parts: Vec<Part>,
    /// Buffers for parts, one per running thread; each is taken for a part and put back after it.
    pub(super) free: Mutex<Vec<PartScratch>>,
    pub(super) by_part: Vec<Mutex<PartScratch>>,
    pub(super) shared: Shared,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}
