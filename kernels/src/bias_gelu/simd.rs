//! The fast implementation: straight-line arithmetic without branches or tables, which the compiler turns into vector
//! code; once for any processor and once for AVX2 with FMA, chosen at run time.
//!
//! Both forms of gelu are `max(x, 0) - t(|x|)`, where `t(a) = a·Φ(-a)` is at most 0.17 and falls to nothing. So an
//! error in `t` stays small against the result, and neither tail cancels:
//!
//! - erf: `Φ(-a) = exp(-a²/2) · r(a)`, `r(a) = erfcx(a/√2)/2` as a quotient of two polynomials (degrees 3 and 4, fitted
//!   by reweighted least squares on [0, 13]; relative error 1.6e-7);
//! - tanh: `Φ(-a) ≈ e/(1 + e)`, `e = exp(-2·√(2/π)·(a + 0.044715·a³))`, which is the same as `(1 - tanh)/2`.

#![expect(clippy::inline_always, reason = "code that is not inlined is compiled without AVX2 and FMA")]

use super::GeluForm;

/// Beyond this, `t` is less than 1e-36: nothing beside any f32 result.
const MAX_MAGNITUDE: f32 = 13.0;
/// `exp` of less would not be a normal f32.
const MIN_EXPONENT: f32 = -87.0;

/// Whole rows, by the best implementation for this processor. The caller has checked the lengths.
pub(super) fn bias_gelu(values: &mut [f32], bias: &[f32], form: GeluForm) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the line above has found both features on this processor.
        unsafe { avx2_fma(values, bias, form) };
        return;
    }
    portable(values, bias, form);
}

/// For any processor: multiplies and adds round separately.
pub(super) fn portable(values: &mut [f32], bias: &[f32], form: GeluForm) {
    rows::<false>(values, bias, form);
}

/// Eight lanes, fused multiply-add.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(super) fn avx2_fma(values: &mut [f32], bias: &[f32], form: GeluForm) {
    rows::<true>(values, bias, form);
}

// All functions below are inlined into the two above, so that they are compiled once for each set of features.

#[inline(always)]
fn rows<const FMA: bool>(values: &mut [f32], bias: &[f32], form: GeluForm) {
    for row in values.chunks_exact_mut(bias.len()) {
        match form {
            GeluForm::Erf => row.iter_mut().zip(bias).for_each(|(x, b)| *x = gelu_erf::<FMA>(*x + b)),
            GeluForm::Tanh => row.iter_mut().zip(bias).for_each(|(x, b)| *x = gelu_tanh::<FMA>(*x + b)),
        }
    }
}

#[inline(always)]
fn gelu_erf<const FMA: bool>(x: f32) -> f32 {
    let a = magnitude(x);
    let numerator = polynomial::<FMA, 4>(a, [0.499_999_9, 0.351_949_2, 0.113_766_454, 0.015_679_013]);
    let denominator = polynomial::<FMA, 5>(a, [1.0, 1.501_773_8, 0.925_855_76, 0.284_879_95, 0.039_309_554]);
    let gaussian = exp::<FMA>(-0.5 * a * a);
    positive_part(x) - a * gaussian * (numerator / denominator)
}

#[inline(always)]
fn gelu_tanh<const FMA: bool>(x: f32) -> f32 {
    /// 2·√(2/π)
    const SCALE: f32 = 1.595_769;
    let a = magnitude(x);
    let cubic = mul_add::<FMA>(0.044_715 * SCALE * a, a * a, SCALE * a);
    let e = exp::<FMA>(-cubic);
    positive_part(x) - a * e / (1.0 + e)
}

/// |x|, bounded; NaN stays NaN (`f32::min` would drop it).
#[inline(always)]
fn magnitude(x: f32) -> f32 {
    if x.abs() > MAX_MAGNITUDE { MAX_MAGNITUDE } else { x.abs() }
}

/// `max(x, 0)`; NaN gives 0, and stays NaN in the sum through [`magnitude`].
#[inline(always)]
fn positive_part(x: f32) -> f32 {
    if x > 0.0 { x } else { 0.0 }
}

/// `exp(y)` for `y ≤ 0` to a relative error of 2e-7: `y = n·ln 2 + r`, the Taylor polynomial for `r`, and `2ⁿ` written
/// into the exponent bits. Less than [`MIN_EXPONENT`] counts as that.
#[inline(always)]
fn exp<const FMA: bool>(y: f32) -> f32 {
    /// Adding 1.5·2²³ rounds to a whole number and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first with few enough bits for an exact product with `n`.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let y = if y < MIN_EXPONENT { MIN_EXPONENT } else { y };
    let rounded = mul_add::<FMA>(y, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = mul_add::<FMA>(n, -LN_2_LOW, mul_add::<FMA>(n, -LN_2_HIGH, y));
    let taylor = polynomial::<FMA, 7>(r, [1.0, 1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0]);
    let power_of_two = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    taylor * power_of_two
}

/// Horner's rule; the constant term comes first.
#[inline(always)]
fn polynomial<const FMA: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let highest = coefficients[N - 1];
    coefficients[..N - 1].iter().rev().fold(highest, |sum, coefficient| mul_add::<FMA>(sum, x, *coefficient))
}

/// `a·b + c`. `f32::mul_add` is a slow library call where the processor has no instruction for it.
#[inline(always)]
fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}
