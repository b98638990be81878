//! gelu on vectors.
//!
//! Both forms are `max(x, 0) - t(|x|)`, where `t(a) = a·Φ(-a)` is at most 0.17 and falls to nothing. So an error in `t`
//! stays small against the result, and neither tail cancels:
//!
//! - erf: `Φ(-a) = exp(-a²/2) · r(a)`, `r(a) = erfcx(a/√2)/2` as a quotient of two polynomials (degrees 3 and 4, fitted
//!   by reweighted least squares on [0, 13]; relative error 1.6e-7);
//! - tanh: `Φ(-a) ≈ e/(1 + e)`, `e = exp(-2·√(2/π)·(a + 0.044715·a³))`, which is the same as `(1 - tanh)/2`.

use crate::simd::math::{exp, polynomial};
use crate::simd::{Simd, Unary};

/// Bound on `|x|`: beyond it `t` is less than 1e-36, which changes no f32 result.
const MAX_MAGNITUDE: f32 = 13.0;

/// `x/2 · (1 + erf(x/√2))`
#[derive(Clone, Copy)]
pub(crate) struct Erf;

impl Unary for Erf {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        let a = magnitude(simd, x);
        let numerator = polynomial(simd, a, [0.499_999_9, 0.351_949_2, 0.113_766_454, 0.015_679_013]);
        let denominator = polynomial(simd, a, [1.0, 1.501_773_8, 0.925_855_76, 0.284_879_95, 0.039_309_554]);
        let gaussian = exp(simd, simd.mul(simd.mul(a, simd.splat(-0.5)), a));
        let tail = simd.mul(simd.mul(a, gaussian), simd.div(numerator, denominator));
        simd.sub(positive_part(simd, x), tail)
    }
}

/// `x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`
#[derive(Clone, Copy)]
pub(crate) struct Tanh;

impl Unary for Tanh {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        /// 2·√(2/π)
        const SCALE: f32 = 1.595_769;
        let a = magnitude(simd, x);
        let cubic = simd.mul(simd.mul(a, simd.splat(-0.044_715 * SCALE)), simd.mul(a, a));
        let e = exp(simd, simd.mul_add(a, simd.splat(-SCALE), cubic));
        let tail = simd.div(simd.mul(a, e), simd.add(simd.splat(1.0), e));
        simd.sub(positive_part(simd, x), tail)
    }
}

/// |x|, bounded; NaN stays NaN.
#[inline(always)]
fn magnitude<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    simd.min(simd.splat(MAX_MAGNITUDE), simd.abs(x))
}

/// `max(x, 0)`; NaN gives 0, and stays NaN in the sum through [`magnitude`].
#[inline(always)]
fn positive_part<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    simd.max(x, simd.splat(0.0))
}
