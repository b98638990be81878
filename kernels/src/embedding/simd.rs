//! The implementation for all instruction sets.

use super::{Embeddings, Table, TableValues};
use crate::residual_norm::NormFormula;
use crate::residual_norm::simd::apply;
use crate::rows::RowsMut;
use crate::simd::{Kernel, Simd};

/// Computes the embeddings of one sequence.
pub(super) struct Embed<'a> {
    pub(super) embeddings: &'a Embeddings,
    pub(super) ids: &'a [u32],
    pub(super) segments: &'a [u32],
    pub(super) out: RowsMut<'a, f32>,
}

impl Kernel for Embed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { embeddings, ids, segments, mut out } = self;
        let norm = NormFormula::of(embeddings.norm.as_ref());
        for (position, (id, segment)) in ids.iter().zip(segments).enumerate() {
            let row = out.row(position);
            row.fill(0.0);
            let mut sum = add_row(simd, &embeddings.words, *id as usize, row);
            if let Some(segments) = &embeddings.segments {
                sum = add_row(simd, segments, *segment as usize, row);
            }
            if let Some(positions) = &embeddings.positions {
                sum = add_row(simd, positions, position, row);
            }
            apply(simd, norm, sum, row);
        }
    }
}

/// Adds a row of the table; returns the sum over the result.
#[inline(always)]
fn add_row<S: Simd>(simd: S, table: &Table, row: usize, to: &mut [f32]) -> f32 {
    let columns = row * table.columns..(row + 1) * table.columns;
    let whole = table.columns / S::LANES * S::LANES;
    let mut sum = simd.splat(0.0);
    match &table.values {
        TableValues::F32(values) => {
            let values = &values[columns];
            for at in (0..whole).step_by(S::LANES) {
                let total = simd.add(simd.load(&to[at..]), simd.load(&values[at..]));
                simd.store(total, &mut to[at..]);
                sum = simd.add(sum, total);
            }
            to[whole..].iter_mut().zip(&values[whole..]).for_each(|(to, value)| *to += *value);
        }
        TableValues::Int8 { values, scales } => {
            let (values, scale) = (&values[columns], scales[row]);
            for at in (0..whole).step_by(S::LANES) {
                let total = simd.mul_add(simd.load_i8(&values[at..]), simd.splat(scale), simd.load(&to[at..]));
                simd.store(total, &mut to[at..]);
                sum = simd.add(sum, total);
            }
            to[whole..].iter_mut().zip(&values[whole..]).for_each(|(to, value)| *to += f32::from(*value) * scale);
        }
    }
    simd.sum(sum) + to[whole..].iter().sum::<f32>()
}
