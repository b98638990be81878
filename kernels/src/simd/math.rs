//! Elementary functions on vectors. `tests.rs` holds each to the error that it states.

use super::Simd;

/// Least exponent: `exp` of less is not a normal f32.
const MIN_EXPONENT: f32 = -87.0;
/// Largest exponent: `exp` of more is infinite within a rounding.
const MAX_EXPONENT: f32 = 88.0;

/// `exp(y)` to a relative error of 3e-7: `y = n·ln 2 + r`, the Taylor polynomial for `r`, times `2ⁿ`.
/// `y` is bounded to -87 and 88; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, y: S::F32) -> S::F32 {
    /// ln 2 in two parts, the first with few enough bits for an exact product with `n`.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let y = simd.min(simd.splat(MAX_EXPONENT), simd.max(simd.splat(MIN_EXPONENT), y));
    let n = simd.round(simd.mul(y, simd.splat(std::f32::consts::LOG2_E)));
    let whole = simd.to_f32(n);
    let r = simd.mul_add(whole, simd.splat(-LN_2_HIGH), y);
    let r = simd.mul_add(whole, simd.splat(-LN_2_LOW), r);
    let taylor = polynomial(simd, r, [1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0]);
    simd.mul(taylor, simd.power_of_two(n))
}

/// Horner's rule; the constant term comes first.
#[inline(always)]
pub(crate) fn polynomial<S: Simd, const N: usize>(simd: S, x: S::F32, coefficients: [f32; N]) -> S::F32 {
    let mut sum = simd.splat(coefficients[N - 1]);
    for term in coefficients[..N - 1].iter().rev() {
        sum = simd.mul_add(sum, x, simd.splat(*term));
    }
    sum
}
