//! The implementation for all instruction sets.

use super::Pooling;
use crate::rows::Rows;
use crate::simd::{Kernel, Simd, Times, map};

/// Pools one sequence.
pub(super) struct Pool<'a> {
    pub(super) tokens: Rows<'a, f32>,
    pub(super) pooling: Pooling,
    pub(super) out: &'a mut [f32],
}

impl Kernel for Pool<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { tokens, pooling, out } = self;
        let count = tokens.rows();
        out.copy_from_slice(tokens.row(if pooling == Pooling::Last { count - 1 } else { 0 }));
        let rows = match pooling {
            Pooling::Cls | Pooling::Last => 0..0,
            Pooling::Mean | Pooling::Max | Pooling::WeightedMean | Pooling::MeanSqrtLength => 1..count,
        };
        for row in rows {
            let of_row = tokens.row(row);
            match pooling {
                Pooling::Max => combine(simd, out, of_row, Greater),
                Pooling::WeightedMean => combine(simd, out, of_row, AddTimes((row + 1) as f32)),
                _ => combine(simd, out, of_row, Add),
            }
        }
        match pooling {
            Pooling::Mean => map(simd, out, Times((count as f32).recip())),
            Pooling::WeightedMean => map(simd, out, Times(2.0 / (count as f32 * (count + 1) as f32))),
            Pooling::MeanSqrtLength => map(simd, out, Times((count as f32).sqrt().recip())),
            Pooling::Cls | Pooling::Max | Pooling::Last => {}
        }
    }
}

/// A function of what there is and of a new row's element.
trait Combine: Copy {
    fn apply<S: Simd>(self, simd: S, so_far: S::F32, row: S::F32) -> S::F32;
}

#[derive(Clone, Copy)]
struct Add;

impl Combine for Add {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, so_far: S::F32, row: S::F32) -> S::F32 {
        simd.add(so_far, row)
    }
}

#[derive(Clone, Copy)]
struct AddTimes(f32);

impl Combine for AddTimes {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, so_far: S::F32, row: S::F32) -> S::F32 {
        simd.mul_add(row, simd.splat(self.0), so_far)
    }
}

#[derive(Clone, Copy)]
struct Greater;

impl Combine for Greater {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, so_far: S::F32, row: S::F32) -> S::F32 {
        // The maximum of a processor may leave out NaN; 0·NaN and 0·∞ are NaN, which the caller refuses.
        let zero = simd.splat(0.0);
        simd.mul_add(so_far, zero, simd.mul_add(row, zero, simd.max(so_far, row)))
    }
}

#[inline(always)]
fn combine<S: Simd, C: Combine>(simd: S, out: &mut [f32], row: &[f32], function: C) {
    let (mut outs, mut rows) = (out.chunks_exact_mut(S::LANES), row.chunks_exact(S::LANES));
    for (out, row) in (&mut outs).zip(&mut rows) {
        simd.store(function.apply(simd, simd.load(out), simd.load(row)), out);
    }
    let (out, row) = (outs.into_remainder(), rows.remainder());
    simd.store_partial(function.apply(simd, simd.load_partial(out), simd.load_partial(row)), out);
}

/// Divides a vector by its length.
pub(super) struct Normalize<'a>(pub(super) &'a mut [f32]);

impl Kernel for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut squares = simd.splat(0.0);
        let mut vectors = self.0.chunks_exact(S::LANES);
        for vector in &mut vectors {
            let x = simd.load(vector);
            squares = simd.mul_add(x, x, squares);
        }
        let x = simd.load_partial(vectors.remainder());
        let length = simd.sum(simd.mul_add(x, x, squares)).sqrt();
        if length > 0.0 {
            map(simd, self.0, Times(length.recip()));
        }
    }
}
