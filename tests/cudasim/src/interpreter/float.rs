//! Floating-point arithmetic.

use super::lanes::{Lanes, Word, map, map2, map3};
use super::numeric::{add_f64, add_to_odd, bf16_to_f32, direct, div_f64, f16_to_f32, mul_f64, narrow, sqrt_f64, widen};
use crate::ptx::operation::{FloatClass, FloatMode, FloatOp, FloatUnaryOp};
use crate::ptx::types::{Rounding, Type};

/// An operation of two operands.
pub fn binary(op: FloatOp, ty: Type, mode: FloatMode, a: &Lanes, b: &Lanes) -> Lanes {
    let nearest = mode.rounding == Rounding::Nearest;
    match (op, ty) {
        (FloatOp::CopySign, _) => {
            let sign = 1u64 << (ty.bits() - 1);
            map2(a, b, |a: u64, b: u64| b & !sign | a & sign)
        }
        (FloatOp::Add, Type::F32) if nearest => f32_binary(mode, a, b, |a, b| a + b),
        (FloatOp::Sub, Type::F32) if nearest => f32_binary(mode, a, b, |a, b| a - b),
        (FloatOp::Mul, Type::F32) if nearest => f32_binary(mode, a, b, |a, b| a * b),
        (FloatOp::Div, Type::F32) if nearest => f32_binary(mode, a, b, |a, b| a / b),
        (FloatOp::Min | FloatOp::Max, Type::F32) => {
            f32_binary(mode, a, b, |a, b| pick(op, f64::from(a), f64::from(b), mode) as f32)
        }
        (_, Type::F64) => map2(a, b, |a: f64, b: f64| f64_binary(op, mode, a, b)),
        _ if ty.element() != ty => map2(a, b, |a: u64, b: u64| {
            let half = |shift: u32| u64::from(small_binary(op, ty, mode, a >> shift, b >> shift)) << shift;
            half(0) | half(16)
        }),
        (_, Type::F16 | Type::Bf16) => map2(a, b, |a: u64, b: u64| small_binary(op, ty, mode, a, b)),
        // f32 with a directed rounding: exact, or rounded to odd, in f64.
        _ => f32_binary(mode, a, b, |a, b| {
            let (a, b) = (f64::from(a), f64::from(b));
            let exact = match op {
                FloatOp::Add => add_to_odd(a, b),
                FloatOp::Sub => add_to_odd(a, -b),
                FloatOp::Mul => a * b,
                _ => div_f64(a, b, mode.rounding),
            };
            f32::from_bits(narrow(exact, Type::F32, mode.rounding) as u32)
        }),
    }
}

#[inline(always)]
fn f32_binary(mode: FloatMode, a: &Lanes, b: &Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    if mode.flush || mode.saturate {
        return map2(a, b, |a: f32, b: f32| finish(mode, f(flush(mode, a), flush(mode, b))));
    }
    map2(a, b, f)
}

/// Replaces subnormals with zero, where the mode says so.
#[inline]
fn flush(mode: FloatMode, value: f32) -> f32 {
    if mode.flush && value.is_subnormal() { 0f32.copysign(value) } else { value }
}

#[inline]
fn finish(mode: FloatMode, value: f32) -> f32 {
    let value = flush(mode, value);
    if mode.saturate {
        // A NaN becomes zero.
        if value > 0.0 { value.min(1.0) } else { 0.0 }
    } else if mode.relu && value < 0.0 {
        0.0
    } else {
        value
    }
}

/// The smaller or the larger; -0 is smaller than +0, and a NaN counts only if the mode says so.
fn pick(op: FloatOp, a: f64, b: f64, mode: FloatMode) -> f64 {
    if a.is_nan() || b.is_nan() {
        return if mode.propagate_nan || a.is_nan() && b.is_nan() {
            f64::NAN
        } else if a.is_nan() {
            b
        } else {
            a
        };
    }
    if (a.total_cmp(&b) == std::cmp::Ordering::Less) == (op == FloatOp::Min) { a } else { b }
}

fn f64_binary(op: FloatOp, mode: FloatMode, a: f64, b: f64) -> f64 {
    match op {
        FloatOp::Add => add_f64(a, b, mode.rounding),
        FloatOp::Sub => add_f64(a, -b, mode.rounding),
        FloatOp::Mul => mul_f64(a, b, mode.rounding),
        FloatOp::Div => div_f64(a, b, mode.rounding),
        FloatOp::Min | FloatOp::Max => pick(op, a, b, mode),
        FloatOp::CopySign => unreachable!("copied by bits"),
    }
}

/// The value of a 16-bit float.
#[inline]
fn small(bits: u64, ty: Type) -> f32 {
    if matches!(ty, Type::F16 | Type::F16x2) { f16_to_f32(bits as u16) } else { bf16_to_f32(bits as u16) }
}

/// f32 to a 16-bit float, to nearest.
#[inline]
fn to_small(value: f32, ty: Type) -> u16 {
    if matches!(ty, Type::F16 | Type::F16x2) {
        half::f16::from_f32(value).to_bits()
    } else {
        half::bf16::from_f32(value).to_bits()
    }
}

/// Computes in f32, which has more than twice the bits of a 16-bit float plus two: rounding twice equals rounding once.
fn small_binary(op: FloatOp, ty: Type, mode: FloatMode, a: u64, b: u64) -> u16 {
    let (a, b) = (small(a, ty), small(b, ty));
    let value = match op {
        FloatOp::Add => a + b,
        FloatOp::Sub => a - b,
        FloatOp::Mul => a * b,
        FloatOp::Div => a / b,
        _ => pick(op, f64::from(a), f64::from(b), mode) as f32,
    };
    to_small(finish(mode, value), ty)
}

/// a · b + c rounded once.
pub fn fused_multiply_add(ty: Type, mode: FloatMode, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    let nearest = mode.rounding == Rounding::Nearest;
    match ty {
        Type::F32 if nearest && !mode.flush && !mode.saturate => fma_f32(a, b, c),
        Type::F32 => map3(a, b, c, |a: f32, b: f32, c: f32| {
            let [a, b, c] = [a, b, c].map(|value| f64::from(flush(mode, value)));
            let exact = add_to_odd(a * b, c);
            finish(mode, f32::from_bits(narrow(exact, Type::F32, mode.rounding) as u32))
        }),
        Type::F64 => map3(a, b, c, f64::mul_add),
        Type::F16x2 | Type::Bf16x2 => map3(a, b, c, |a: u64, b: u64, c: u64| {
            let half = |shift: u32| u64::from(small_fma(ty, mode, a >> shift, b >> shift, c >> shift)) << shift;
            half(0) | half(16)
        }),
        _ => map3(a, b, c, |a: u64, b: u64, c: u64| small_fma(ty, mode, a, b, c)),
    }
}

fn small_fma(ty: Type, mode: FloatMode, a: u64, b: u64, c: u64) -> u16 {
    let [a, b, c] = [a, b, c].map(|bits| f64::from(small(bits, ty)));
    // The product is exact in f64.
    let value = add_to_odd(a * b, c);
    let value = if mode.saturate {
        if value > 0.0 { value.min(1.0) } else { 0.0 }
    } else if mode.relu && value < 0.0 {
        0.0
    } else {
        value
    };
    narrow(value, ty.element(), mode.rounding) as u16
}

/// Fused multiply-add by the machine's instruction: without it `mul_add` is a slow library call.
#[cfg(target_arch = "x86_64")]
fn fma_f32(a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    #[target_feature(enable = "avx2,fma")]
    fn with_fma(a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
        let mut out = [0; 32];
        for lane in 0..32 {
            out[lane] = f32::read(a[lane]).mul_add(f32::read(b[lane]), f32::read(c[lane])).write();
        }
        out
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has both features.
        return unsafe { with_fma(a, b, c) };
    }
    map3(a, b, c, f32::mul_add)
}

#[cfg(not(target_arch = "x86_64"))]
fn fma_f32(a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    map3(a, b, c, f32::mul_add)
}

/// An operation of one operand. Operations that hardware approximates are computed to the last bit or nearly so.
pub fn unary(op: FloatUnaryOp, ty: Type, mode: FloatMode, a: &Lanes) -> Lanes {
    if matches!(op, FloatUnaryOp::Negate | FloatUnaryOp::Absolute) {
        let sign = if ty.is_packed() { 0x8000_8000 } else { 1u64 << (ty.bits() - 1) };
        return if op == FloatUnaryOp::Negate { map(a, |a: u64| a ^ sign) } else { map(a, |a: u64| a & !sign) };
    }
    match ty {
        Type::F64 => map(a, |a: f64| f64_unary(op, mode.rounding, a)),
        Type::F16x2 | Type::Bf16x2 => map(a, |a: u64| {
            let half = |shift: u32| u64::from(to_small(f32_unary(op, small(a >> shift, ty)), ty)) << shift;
            half(0) | half(16)
        }),
        Type::F16 | Type::Bf16 => map(a, |a: u64| to_small(f32_unary(op, small(a, ty)), ty)),
        _ if mode.rounding != Rounding::Nearest => map(a, |a: f32| {
            let value = f64_unary(op, mode.rounding, f64::from(flush(mode, a)));
            flush(mode, f32::from_bits(narrow(value, Type::F32, mode.rounding) as u32))
        }),
        _ => map(a, |a: f32| finish(mode, f32_unary(op, flush(mode, a)))),
    }
}

fn f32_unary(op: FloatUnaryOp, a: f32) -> f32 {
    match op {
        FloatUnaryOp::SquareRoot => a.sqrt(),
        FloatUnaryOp::ReciprocalSquareRoot => (1.0 / f64::from(a).sqrt()) as f32,
        FloatUnaryOp::Reciprocal => 1.0 / a,
        FloatUnaryOp::Exp2 => a.exp2(),
        FloatUnaryOp::Log2 => a.log2(),
        FloatUnaryOp::Sine => a.sin(),
        FloatUnaryOp::Cosine => a.cos(),
        FloatUnaryOp::Tanh => a.tanh(),
        FloatUnaryOp::Negate | FloatUnaryOp::Absolute => unreachable!("done by bits"),
    }
}

fn f64_unary(op: FloatUnaryOp, rounding: Rounding, a: f64) -> f64 {
    match op {
        FloatUnaryOp::SquareRoot => sqrt_f64(a, rounding),
        FloatUnaryOp::Reciprocal => div_f64(1.0, a, rounding),
        FloatUnaryOp::ReciprocalSquareRoot => direct(1.0 / a.sqrt(), 0.0, rounding),
        FloatUnaryOp::Exp2 => a.exp2(),
        FloatUnaryOp::Log2 => a.log2(),
        FloatUnaryOp::Sine => a.sin(),
        FloatUnaryOp::Cosine => a.cos(),
        FloatUnaryOp::Tanh => a.tanh(),
        FloatUnaryOp::Negate | FloatUnaryOp::Absolute => unreachable!("done by bits"),
    }
}

/// True in each lane whose float is of a class.
pub fn test(class: FloatClass, ty: Type, a: &Lanes) -> Lanes {
    map(a, |bits: u64| {
        let value = widen(bits, ty);
        let (subnormal, normal) = match ty {
            Type::F64 => (value.is_subnormal(), value.is_normal()),
            _ => ((value as f32).is_subnormal(), (value as f32).is_normal()),
        };
        u8::from(match class {
            FloatClass::Finite => value.is_finite(),
            FloatClass::Infinite => value.is_infinite(),
            FloatClass::Number => !value.is_nan(),
            FloatClass::Nan => value.is_nan(),
            FloatClass::Normal => normal,
            FloatClass::Subnormal => subnormal,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(value: f32) -> Lanes {
        [value.write(); 32]
    }

    #[test]
    fn flushing_makes_subnormals_zero_and_saturation_swallows_nan() {
        let mode = FloatMode { flush: true, ..FloatMode::default() };
        assert_eq!(binary(FloatOp::Mul, Type::F32, mode, &bits(1e-20), &bits(1e-20))[0], 0);
        let plain = FloatMode::default();
        assert_ne!(binary(FloatOp::Mul, Type::F32, plain, &bits(1e-20), &bits(1e-20))[0], 0);
        let mode = FloatMode { saturate: true, ..FloatMode::default() };
        assert_eq!(binary(FloatOp::Add, Type::F32, mode, &bits(f32::NAN), &bits(1.0))[0], 0);
        assert_eq!(binary(FloatOp::Add, Type::F32, mode, &bits(3.0), &bits(1.0)), bits(1.0));
    }

    #[test]
    fn minima_ignore_nan_unless_asked_to_propagate_it() {
        let plain = FloatMode::default();
        assert_eq!(binary(FloatOp::Min, Type::F32, plain, &bits(f32::NAN), &bits(2.0)), bits(2.0));
        let mode = FloatMode { propagate_nan: true, ..plain };
        let result = f32::read(binary(FloatOp::Max, Type::F32, mode, &bits(f32::NAN), &bits(2.0))[0]);
        assert!(result.is_nan());
        assert_eq!(binary(FloatOp::Min, Type::F32, plain, &bits(0.0), &bits(-0.0)), bits(-0.0));
    }

    #[test]
    fn a_half_product_sum_is_rounded_once() {
        // 1.0009765625² + 2^-12: two roundings would lose the tie-breaking tail.
        let a = u64::from(half::f16::from_f32(1.000_976_6).to_bits());
        let c = u64::from(half::f16::from_f32(2f32.powi(-12)).to_bits());
        let out = fused_multiply_add(Type::F16, FloatMode::default(), &[a; 32], &[a; 32], &[c; 32])[0];
        let exact = 1.000_976_562_5f64 * 1.000_976_562_5 + 2f64.powi(-12);
        assert_eq!(out as u16, half::f16::from_f64(exact).to_bits());
    }

    #[test]
    fn packed_halves_are_computed_independently() {
        let pack = |low: f32, high: f32| {
            u64::from(half::f16::from_f32(low).to_bits()) | u64::from(half::f16::from_f32(high).to_bits()) << 16
        };
        let sum =
            binary(FloatOp::Add, Type::F16x2, FloatMode::default(), &[pack(1.0, 2.0); 32], &[pack(0.5, -4.0); 32]);
        assert_eq!(sum[31], pack(1.5, -2.0));
    }

    #[test]
    fn directed_roundings_of_f32_differ_in_the_last_bit() {
        let with = |rounding| {
            let mode = FloatMode { rounding, ..FloatMode::default() };
            f32::read(binary(FloatOp::Add, Type::F32, mode, &bits(1.0), &bits(1e-10))[0])
        };
        assert_eq!(with(Rounding::Down), 1.0);
        assert_eq!(with(Rounding::Up), 1.0f32.next_up());
        assert_eq!(with(Rounding::Zero), 1.0);
    }
}
