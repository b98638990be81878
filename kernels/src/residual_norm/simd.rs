//! The implementation for all instruction sets.

use super::{LayerNorm, NormFormula, RmsNorm};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, Simd};

/// Writes `norm(x + residual)`.
pub(super) struct ResidualNorm<'a> {
    pub(super) norm: NormFormula<'a>,
    pub(super) x: Rows<'a, f32>,
    pub(super) residual: Option<Rows<'a, f32>>,
    pub(super) y: RowsMut<'a, f32>,
}

impl Kernel for ResidualNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { norm, x, residual, mut y } = self;
        for row in 0..y.rows() {
            let y = y.row(row);
            let sum = match residual {
                Some(residual) => add(simd, x.row(row), residual.row(row), y),
                None => copy(simd, x.row(row), y),
            };
            apply(simd, norm, sum, y);
        }
    }
}

/// Applies a formula to a row whose elements add up to `sum`.
#[inline(always)]
pub(crate) fn apply<S: Simd>(simd: S, norm: NormFormula<'_>, sum: f32, y: &mut [f32]) {
    match norm {
        NormFormula::Identity => {}
        NormFormula::Layer(norm) => normalize(simd, norm, sum, y),
        NormFormula::Rms(norm) => divide_by_rms(simd, norm, y),
    }
}

/// `y = x`; returns the sum over the row.
#[inline(always)]
fn copy<S: Simd>(simd: S, x: &[f32], y: &mut [f32]) -> f32 {
    y.copy_from_slice(x);
    sum(simd, y)
}

/// The sum over a row.
#[inline(always)]
pub(crate) fn sum<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (mut total, mut vectors) = (simd.splat(0.0), x.chunks_exact(S::LANES));
    for vector in &mut vectors {
        total = simd.add(total, simd.load(vector));
    }
    simd.sum(simd.add(total, simd.load_partial(vectors.remainder())))
}

/// `y = x + residual`; returns the sum over the row.
#[inline(always)]
fn add<S: Simd>(simd: S, x: &[f32], residual: &[f32], y: &mut [f32]) -> f32 {
    assert!(x.len() == y.len() && residual.len() == y.len());
    let mut total = simd.splat(0.0);
    let whole = y.len() / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        let sum = simd.add(simd.load(&x[at..]), simd.load(&residual[at..]));
        simd.store(sum, &mut y[at..]);
        total = simd.add(total, sum);
    }
    let sum = simd.add(simd.load_partial(&x[whole..]), simd.load_partial(&residual[whole..]));
    simd.store_partial(sum, &mut y[whole..]);
    simd.sum(simd.add(total, sum))
}

/// Normalises a row whose elements add up to `sum`.
#[inline(always)]
fn normalize<S: Simd>(simd: S, norm: &LayerNorm, sum: f32, y: &mut [f32]) {
    let count = y.len();
    assert!(norm.weight.len() == count && norm.bias.len() == count);
    let mean = simd.splat(sum / count as f32);
    let whole = count / S::LANES * S::LANES;
    let mut squares = simd.splat(0.0);
    for at in (0..whole).step_by(S::LANES) {
        let centred = simd.sub(simd.load(&y[at..]), mean);
        squares = simd.mul_add(centred, centred, squares);
    }
    let mut squares = simd.sum(squares);
    squares += y[whole..].iter().map(|y| (y - sum / count as f32).powi(2)).sum::<f32>();
    let factor = simd.splat((squares / count as f32 + norm.eps).sqrt().recip());
    for at in (0..whole).step_by(S::LANES) {
        let scaled = simd.mul(simd.sub(simd.load(&y[at..]), mean), factor);
        let normal = simd.mul_add(scaled, simd.load(&norm.weight[at..]), simd.load(&norm.bias[at..]));
        simd.store(normal, &mut y[at..]);
    }
    let rest = &mut y[whole..];
    let scaled = simd.mul(simd.sub(simd.load_partial(rest), mean), factor);
    let weight = simd.load_partial(&norm.weight[whole..]);
    simd.store_partial(simd.mul_add(scaled, weight, simd.load_partial(&norm.bias[whole..])), rest);
}

/// Divides a row by the root of the mean of its squares, times the weight.
#[inline(always)]
fn divide_by_rms<S: Simd>(simd: S, norm: &RmsNorm, y: &mut [f32]) {
    let (count, weight) = (y.len(), &norm.weight);
    assert!(weight.len() == count);
    let whole = count / S::LANES * S::LANES;
    let mut squares = simd.splat(0.0);
    for at in (0..whole).step_by(S::LANES) {
        let value = simd.load(&y[at..]);
        squares = simd.mul_add(value, value, squares);
    }
    let rest = simd.load_partial(&y[whole..]);
    let squares = simd.sum(simd.mul_add(rest, rest, squares));
    let factor = simd.splat((squares / count as f32 + norm.eps).sqrt().recip());
    for at in (0..whole).step_by(S::LANES) {
        let scaled = simd.mul(simd.load(&y[at..]), factor);
        simd.store(simd.mul(scaled, simd.load(&weight[at..])), &mut y[at..]);
    }
    let scaled = simd.mul(rest, factor);
    simd.store_partial(simd.mul(scaled, simd.load_partial(&weight[whole..])), &mut y[whole..]);
}
