//! Dynamic quantisation of rows to bytes: one scale and one zero point per row.
//!
//! With `lo = min(x, 0)`, `hi = max(x, 0)` over a row and `m` the largest byte that the instruction set multiplies
//! (255 with VNNI, else 127): `s = (hi - lo)/m`, `z = round(-lo/s)`, `q = round(x/s) + z` within 0 to m, so that
//! `x ≈ s·(q - z)` and 0 is exact. This is the `DynamicQuantizeLinear` of ONNX, per row. Halves go to even.

#[cfg(test)]
pub(crate) mod cases;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;
mod simd;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::aligned::Aligned;
use crate::linear::int8::GROUP;
use crate::rows::{Rows, RowsMut};
use crate::simd::Isa;

/// Borrowed quantised rows.
#[derive(Clone, Copy)]
pub(crate) struct QuantizedRows<'a> {
    /// Bytes; the columns are padded with 0 to whole groups.
    pub(crate) values: Rows<'a, u8>,
    pub(crate) scales: &'a [f32],
    pub(crate) zeros: &'a [i32],
}

impl QuantizedRows<'_> {
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        let values = self.values.part(rows.clone(), 0..self.values.columns());
        Self { values, scales: &self.scales[rows.clone()], zeros: &self.zeros[rows] }
    }
}

/// Room for quantised rows.
#[derive(Default)]
pub(crate) struct Quantized {
    values: Aligned<u8>,
    scales: Aligned<f32>,
    zeros: Aligned<i32>,
    stride: usize,
}

impl Quantized {
    /// Makes room for `rows` rows of at most `columns`.
    pub(crate) fn resize(&mut self, rows: usize, columns: usize) {
        self.stride = columns.next_multiple_of(64);
        self.values.grow(rows * self.stride);
        self.scales.grow(rows);
        self.zeros.grow(rows);
    }

    /// Quantises the rows of `x` into `rows`.
    pub(crate) fn quantize(&mut self, isa: Isa, x: Rows<'_, f32>, rows: Range<usize>) {
        let values = &mut self.values[rows.start * self.stride..];
        let values = RowsMut::new(values, rows.len(), self.stride, self.stride);
        let (scales, zeros) = (&mut self.scales[rows.clone()], &mut self.zeros[rows]);
        isa.run(simd::Quantize { x, values, scales, zeros });
    }

    /// Rows that were quantised before, with this number of columns.
    pub(crate) fn rows(&self, rows: Range<usize>, columns: usize) -> QuantizedRows<'_> {
        let all = Rows::new(&self.values, rows.end, columns.next_multiple_of(GROUP), self.stride);
        let values = all.part(rows.clone(), 0..all.columns());
        QuantizedRows { values, scales: &self.scales[rows.clone()], zeros: &self.zeros[rows] }
    }
}
