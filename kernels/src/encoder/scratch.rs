//! Memory that forward passes use again.

use std::sync::Mutex;

use super::plan::Part;
use crate::aligned::Aligned;
use crate::rows::{Rows, RowsMut};
use crate::{attention, quantize};

/// A matrix that is made larger when it must be.
#[derive(Default)]
pub(super) struct Matrix {
    values: Aligned<f32>,
    columns: usize,
}

impl Matrix {
    /// Room for `rows` of `columns`. One cache line more keeps rows off the same cache sets.
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

/// What one part of a computation needs for itself.
#[derive(Default)]
pub(super) struct PartScratch {
    /// The vectors of the tokens between layers.
    pub(super) x: Matrix,
    pub(super) query_key_value: Matrix,
    pub(super) attended: Matrix,
    /// What a projection gives before its norm.
    pub(super) projected: Matrix,
    /// The vectors in the middle of a layer.
    pub(super) middle: Matrix,
    pub(super) inner: Matrix,
    pub(super) quantized: quantize::Quantized,
    pub(super) head: attention::Scratch,
    /// Weights that were unpacked.
    pub(super) weights: Aligned<f32>,
}

/// What all threads write parts of when they share each product.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) query_key_value: Matrix,
    pub(super) attended: Matrix,
    pub(super) projected: Matrix,
    pub(super) inner: Matrix,
}

/// Memory for the forward passes of one model, which grows to what its largest batch needs.
#[derive(Default)]
pub struct Scratch {
    pub(super) parts: Vec<Part>,
    /// As many as computations run at once; each is taken for a part and put back after it.
    pub(super) free: Mutex<Vec<PartScratch>>,
    pub(super) by_part: Vec<Mutex<PartScratch>>,
    pub(super) shared: Shared,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}
