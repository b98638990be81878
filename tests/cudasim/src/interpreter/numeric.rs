//! Floating-point formats and exact rounding.
//!
//! A result is computed exactly, or in f64 rounded to odd (Boldo and Melquiond, "When double rounding is odd"), and
//! then rounded once to its format: more bits than the format's plus two make the second rounding harmless.

use crate::ptx::types::{Rounding, Type};

/// The fields of a binary floating-point format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    fraction_bits: u32,
    exponent_bits: u32,
}

impl Format {
    fn of(ty: Type) -> Self {
        let (fraction_bits, exponent_bits) = match ty {
            Type::F16 | Type::F16x2 => (10, 5),
            Type::Bf16 | Type::Bf16x2 => (7, 8),
            Type::Tf32 => (10, 8),
            Type::F64 => (52, 11),
            Type::E4m3x2 => (3, 4),
            Type::E5m2x2 => (2, 5),
            _ => (23, 8),
        };
        Self { fraction_bits, exponent_bits }
    }

    fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    fn infinity(self) -> u64 {
        ((1 << self.exponent_bits) - 1) << self.fraction_bits
    }

    fn sign(self) -> u64 {
        1 << (self.fraction_bits + self.exponent_bits)
    }
}

/// The value of the low bits of `bits` as a float of type `ty`.
#[inline]
pub fn widen(bits: u64, ty: Type) -> f64 {
    match ty {
        Type::F64 => f64::from_bits(bits),
        Type::F16 | Type::F16x2 => f64::from(f16_to_f32(bits as u16)),
        Type::Bf16 | Type::Bf16x2 => f64::from(bf16_to_f32(bits as u16)),
        _ => f64::from(f32::from_bits(bits as u32)),
    }
}

/// The value of an IEEE half.
#[inline]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    if magnitude >= 0x7c00 {
        return f32::from_bits(sign | 0x7f80_0000 | (magnitude & 0x3ff) << 13);
    }
    // The half's exponent field read as an f32's is 112 too small; the product corrects it, also for subnormals.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((112 + 127) << 23);
    f32::from_bits(scaled.to_bits() | sign)
}

/// The value of a brain float.
#[inline]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `value` rounded to the format of `ty`, as bits.
#[inline]
pub fn narrow(value: f64, ty: Type, rounding: Rounding) -> u64 {
    if ty == Type::F64 {
        return value.to_bits();
    }
    if ty == Type::F32 && rounding == Rounding::Nearest {
        return u64::from((value as f32).to_bits());
    }
    let format = Format::of(ty);
    let bits = value.to_bits();
    let negative = bits >> 63 == 1;
    let code = if value.is_nan() {
        format.infinity() | ((1 << format.fraction_bits) - 1)
    } else if value.is_infinite() {
        format.infinity() | if negative { format.sign() } else { 0 }
    } else {
        let field = (bits >> 52 & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let significand = if field == 0 { fraction } else { fraction | 1 << 52 };
        round_scaled(negative, significand, field.max(1) - 1075, format, rounding)
    };
    if ty == Type::Tf32 { code << 13 } else { code }
}

/// An integer rounded to the format of `ty`, as bits.
pub fn narrow_integer(value: i128, ty: Type, rounding: Rounding) -> u64 {
    round_scaled(value < 0, value.unsigned_abs() as u64, 0, Format::of(ty), rounding)
}

/// ±`significand` · 2^`exponent` rounded to `format`.
fn round_scaled(negative: bool, significand: u64, exponent: i32, format: Format, rounding: Rounding) -> u64 {
    let sign = if negative { format.sign() } else { 0 };
    if significand == 0 {
        return sign;
    }
    let leading = 63 - significand.leading_zeros() as i32;
    let fraction_bits = format.fraction_bits as i32;
    let smallest = 1 - format.bias();
    let power = leading + exponent;
    let dropped = leading - fraction_bits + (smallest - power).max(0);
    let kept = if dropped <= 0 {
        significand << -dropped
    } else {
        let dropped = dropped.min(63) as u32;
        let kept = significand >> dropped;
        let rest = significand & ((1 << dropped) - 1);
        let half = 1 << (dropped - 1);
        let up = match rounding {
            Rounding::Nearest => rest > half || rest == half && kept & 1 == 1,
            Rounding::NearestAway => rest >= half,
            Rounding::Zero => false,
            Rounding::Down => negative && rest != 0,
            Rounding::Up => !negative && rest != 0,
        };
        kept + u64::from(up)
    };
    // A carry out of the fraction moves into the exponent field by itself.
    let code = if power >= smallest {
        (((power + format.bias()) as u64) << format.fraction_bits) + kept - (1 << format.fraction_bits)
    } else {
        kept
    };
    if code < format.infinity() {
        return sign | code;
    }
    let to_largest = match rounding {
        Rounding::Nearest | Rounding::NearestAway => false,
        Rounding::Zero => true,
        Rounding::Down => !negative,
        Rounding::Up => negative,
    };
    sign | (format.infinity() - u64::from(to_largest))
}

/// `value` as an 8-bit float; a value too large becomes the largest finite one (`.satfinite`).
pub fn narrow_to_byte(value: f64, ty: Type) -> u8 {
    if value.is_nan() {
        return 0x7f;
    }
    let (largest_code, largest) = if ty == Type::E4m3x2 { (0x7e, 448.0) } else { (0x7b, 57344.0) };
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    if value.abs() >= largest {
        return sign | largest_code;
    }
    // Codes beyond the format's infinity are finite in e4m3, so it is rounded as if its exponent had one more value.
    let format = Format::of(ty);
    let bits = value.abs().to_bits();
    let field = (bits >> 52 & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let significand = if field == 0 { fraction } else { fraction | 1 << 52 };
    let scaled = if value.abs() >= 256.0 && ty == Type::E4m3x2 {
        // Rounds one power of two lower, then raises the exponent by one.
        round_scaled(false, significand, field.max(1) - 1076, format, Rounding::Nearest) + (1 << format.fraction_bits)
    } else {
        round_scaled(false, significand, field.max(1) - 1075, format, Rounding::Nearest)
    };
    sign | (scaled as u8).min(largest_code)
}

/// The value of an 8-bit float.
pub fn widen_byte(code: u8, ty: Type) -> f64 {
    let format = Format::of(ty);
    let magnitude = u32::from(code & 0x7f);
    let field = (magnitude >> format.fraction_bits) as i32;
    let fraction = f64::from(magnitude & ((1 << format.fraction_bits) - 1));
    let value = if ty == Type::E4m3x2 && magnitude == 0x7f {
        f64::NAN
    } else if ty == Type::E5m2x2 && field == 31 {
        if fraction == 0.0 { f64::INFINITY } else { f64::NAN }
    } else if field == 0 {
        fraction * 2f64.powi(1 - format.bias() - format.fraction_bits as i32)
    } else {
        (1.0 + fraction / f64::from(1u32 << format.fraction_bits)) * 2f64.powi(field - format.bias())
    };
    if code & 0x80 == 0 { value } else { -value }
}

/// The difference between the exact sum and the rounded one (Knuth's two-sum).
fn sum_error(a: f64, b: f64, sum: f64) -> f64 {
    let b_part = sum - a;
    (a - (sum - b_part)) + (b - b_part)
}

/// One step from `value` in the direction of `error`'s sign.
fn step(value: f64, error: f64) -> f64 {
    if error > 0.0 { value.next_up() } else { value.next_down() }
}

/// a + b rounded to odd.
pub fn add_to_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let error = sum_error(a, b, sum);
    if sum.is_finite() && error != 0.0 && sum.to_bits() & 1 == 0 { step(sum, error) } else { sum }
}

/// `nearest` moved as `rounding` demands, given the sign of (exact − nearest).
pub fn direct(nearest: f64, error: f64, rounding: Rounding) -> f64 {
    if !nearest.is_finite() || error == 0.0 {
        return nearest;
    }
    let moves = match rounding {
        Rounding::Nearest | Rounding::NearestAway => false,
        Rounding::Zero => (error > 0.0) != (nearest > 0.0),
        Rounding::Down => error < 0.0,
        Rounding::Up => error > 0.0,
    };
    if moves { step(nearest, error) } else { nearest }
}

/// a + b in f64 with any rounding.
pub fn add_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    let sum = a + b;
    direct(sum, sum_error(a, b, sum), rounding)
}

/// a · b in f64 with any rounding.
pub fn mul_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    let product = a * b;
    if rounding == Rounding::Nearest { product } else { direct(product, a.mul_add(b, -product), rounding) }
}

/// a / b in f64 with any rounding.
pub fn div_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    let quotient = a / b;
    let error = (-quotient).mul_add(b, a);
    direct(quotient, if b < 0.0 { -error } else { error }, rounding)
}

/// The square root in f64 with any rounding.
pub fn sqrt_f64(a: f64, rounding: Rounding) -> f64 {
    let root = a.sqrt();
    direct(root, (-root).mul_add(root, a), rounding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn every_half_and_brain_float_survives_widening_and_narrowing() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let wide = f16_to_f32(bits);
            assert!(wide.to_bits() == half.to_f32().to_bits() || half.is_nan(), "{bits:#x}");
            if !half.is_nan() {
                assert_eq!(narrow(f64::from(wide), Type::F16, Rounding::Nearest), u64::from(bits));
            }
            let brain = bf16::from_bits(bits);
            if !brain.is_nan() {
                let wide = f64::from(bf16_to_f32(bits));
                assert_eq!(narrow(wide, Type::Bf16, Rounding::Zero), u64::from(bits));
            }
        }
    }

    #[test]
    fn narrowing_to_half_agrees_with_the_half_crate_on_ties_overflow_and_subnormals() {
        for bits in (0..u32::MAX).step_by(65_521) {
            let value = f32::from_bits(bits);
            if !value.is_nan() {
                let wide = f64::from(value);
                let expected = u64::from(f16::from_f32(value).to_bits());
                assert_eq!(narrow(wide, Type::F16, Rounding::Nearest), expected, "{value:e}");
                let expected = u64::from(bf16::from_f32(value).to_bits());
                assert_eq!(narrow(wide, Type::Bf16, Rounding::Nearest), expected, "{value:e}");
            }
        }
    }

    #[test]
    fn directed_roundings_bracket_the_value() {
        for value in [1.0 + 1e-9, -1.0 - 1e-9, 1e-42, 3e38, 65_520.0, 0.1] {
            for ty in [Type::F32, Type::F16, Type::Bf16] {
                let down = widen(narrow(value, ty, Rounding::Down), ty);
                let up = widen(narrow(value, ty, Rounding::Up), ty);
                let zero = widen(narrow(value, ty, Rounding::Zero), ty);
                assert!(down <= value && value <= up, "{value} {ty:?}: {down} {up}");
                assert_eq!(zero, if value > 0.0 { down } else { up });
            }
        }
    }

    #[test]
    fn large_integers_are_rounded_once() {
        // Through f64 this would become 2^24 first and then round down.
        let value = (1i128 << 62) + (1 << 38) + 1;
        assert_eq!(narrow_integer(value, Type::F32, Rounding::Nearest), u64::from((value as f32).to_bits()));
        assert_eq!(narrow_integer(-7, Type::F64, Rounding::Nearest), (-7f64).to_bits());
    }

    #[test]
    fn every_8_bit_float_survives_a_round_trip() {
        for ty in [Type::E4m3x2, Type::E5m2x2] {
            for code in 0..=u8::MAX {
                let value = widen_byte(code, ty);
                if value.is_finite() {
                    assert_eq!(narrow_to_byte(value, ty), code, "{ty:?} {value}");
                }
            }
        }
        assert_eq!(narrow_to_byte(1e9, Type::E4m3x2), 0x7e);
        assert_eq!(narrow_to_byte(17.0, Type::E4m3x2), narrow_to_byte(16.0, Type::E4m3x2));
    }

    #[test]
    fn a_sum_rounded_to_odd_remembers_the_lost_bits() {
        let half_step = 1.0 + f64::from(f32::EPSILON) / 2.0;
        assert_eq!(narrow(add_to_odd(half_step, 1e-30), Type::F32, Rounding::Nearest) as u32, 0x3f80_0001);
        assert_eq!(narrow(add_to_odd(half_step, 0.0), Type::F32, Rounding::Nearest) as u32, 0x3f80_0000);
    }
}
