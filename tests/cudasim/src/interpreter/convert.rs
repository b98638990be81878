//! Conversions between types, and comparisons.

use std::cmp::Ordering;

use super::integer;
use super::lanes::{Lanes, map, map2};
use super::numeric::{narrow, narrow_integer, narrow_to_byte, widen, widen_byte};
use crate::ptx::operation::Conversion;
use crate::ptx::types::{Comparison, Join, Rounding, Type};

/// Converts one value to another type.
pub fn convert(conversion: Conversion, a: &Lanes) -> Lanes {
    let Conversion { to, from, .. } = conversion;
    let byte = |ty| matches!(ty, Type::E4m3x2 | Type::E5m2x2);
    if byte(from) {
        return map(a, |pair: u64| {
            let half = |shift: u32| narrow(widen_byte((pair >> shift) as u8, from), to.element(), Rounding::Nearest);
            half(0) | half(8) << 16
        });
    }
    if byte(to) {
        return map(a, |pair: u64| {
            let half = |shift: u32| u64::from(narrow_to_byte(widen(pair >> shift & 0xffff, from.element()), to));
            half(0) | half(16) << 8
        });
    }
    match (from.is_float(), to.is_float()) {
        (false, false) if !conversion.saturate => {
            let extended = integer::extend(from, a);
            integer::extend(to, &extended)
        }
        (true, false) => map(a, |bits: u64| float_to_integer(conversion, bits)),
        (false, false) => map(a, |bits: u64| clamp(integer_value(from, bits), to)),
        (false, true) => {
            map(a, |bits: u64| saturate(conversion, narrow_integer(integer_value(from, bits), to, conversion.rounding)))
        }
        (true, true) => match (from, to) {
            (Type::F16, Type::F32) if !conversion.saturate && !conversion.integral => {
                map(a, |bits: u16| super::numeric::f16_to_f32(bits))
            }
            (Type::Bf16, Type::F32) if !conversion.saturate && !conversion.integral => {
                map(a, |bits: u16| super::numeric::bf16_to_f32(bits))
            }
            _ => map(a, |bits: u64| float_to_float(conversion, bits)),
        },
    }
}

/// Converts two values into one packed register: `a` above, `b` below.
pub fn convert_pair(conversion: Conversion, a: &Lanes, b: &Lanes) -> Lanes {
    let Conversion { to, from, .. } = conversion;
    if matches!(to, Type::E4m3x2 | Type::E5m2x2) {
        return map2(a, b, |a: u64, b: u64| {
            let [high, low] = [a, b].map(|bits| u64::from(narrow_to_byte(widen(bits, from), to)));
            high << 8 | low
        });
    }
    let single = Conversion { to: to.element(), ..conversion };
    map2(a, b, |a: u64, b: u64| (float_to_float(single, a) & 0xffff) << 16 | float_to_float(single, b) & 0xffff)
}

fn float_to_float(conversion: Conversion, bits: u64) -> u64 {
    let Conversion { to, from, rounding, .. } = conversion;
    let mut value = widen(bits, from);
    if conversion.flush && from == Type::F32 && (value as f32).is_subnormal() {
        value = 0f64.copysign(value);
    }
    if conversion.integral {
        value = round_integral(value, rounding);
    }
    if conversion.relu && (value < 0.0 || value.is_nan()) && !value.is_nan() {
        value = 0.0;
    }
    if conversion.saturate {
        value = if value > 0.0 { value.min(1.0) } else { 0.0 };
    }
    narrow(value, to, if conversion.integral { Rounding::Nearest } else { rounding })
}

/// Clamps an integer converted to a float, where `.sat` asks for it.
fn saturate(conversion: Conversion, bits: u64) -> u64 {
    if conversion.saturate {
        narrow(widen(bits, conversion.to).clamp(0.0, 1.0), conversion.to, Rounding::Nearest)
    } else {
        bits
    }
}

fn round_integral(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::NearestAway => value.round(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

/// Clamps to the integer's range. A NaN becomes zero, or the sign bit where 64 bits are involved.
fn float_to_integer(conversion: Conversion, bits: u64) -> u64 {
    let Conversion { to, from, .. } = conversion;
    let value = round_integral(widen(bits, from), conversion.rounding);
    if value.is_nan() {
        return if from == Type::F64 || to.bits() == 64 { 1 << (to.bits() - 1) } else { 0 };
    }
    clamp(value as i128, to)
}

fn clamp(value: i128, ty: Type) -> u64 {
    let (low, high) = if ty.is_signed() {
        (-(1i128 << (ty.bits() - 1)), (1i128 << (ty.bits() - 1)) - 1)
    } else {
        (0, (1i128 << ty.bits()) - 1)
    };
    value.clamp(low, high) as u64
}

fn integer_value(ty: Type, bits: u64) -> i128 {
    match ty {
        Type::S8 => i128::from(bits as i8),
        Type::S16 => i128::from(bits as i16),
        Type::S32 => i128::from(bits as i32),
        Type::S64 => i128::from(bits.cast_signed()),
        Type::U8 | Type::B8 => i128::from(bits as u8),
        Type::U16 | Type::B16 => i128::from(bits as u16),
        Type::U32 | Type::B32 => i128::from(bits as u32),
        _ => i128::from(bits),
    }
}

/// A comparison; for packed types the second result is that of the upper halves.
pub fn compare(comparison: Comparison, ty: Type, flush: bool, a: &Lanes, b: &Lanes) -> (Lanes, Option<Lanes>) {
    if ty.is_packed() {
        let halves = |shift: u32| {
            map2(a, b, |a: u64, b: u64| {
                u8::from(holds(comparison, widen(a >> shift & 0xffff, ty), widen(b >> shift & 0xffff, ty)))
            })
        };
        return (halves(0), Some(halves(16)));
    }
    let result = match ty {
        Type::F32 if flush => map2(a, b, |a: f32, b: f32| {
            let [a, b] = [a, b].map(|value| if value.is_subnormal() { 0.0 } else { f64::from(value) });
            u8::from(holds(comparison, a, b))
        }),
        Type::F32 => map2(a, b, |a: f32, b: f32| u8::from(holds(comparison, f64::from(a), f64::from(b)))),
        _ if ty.is_float() => map2(a, b, |a: u64, b: u64| u8::from(holds(comparison, widen(a, ty), widen(b, ty)))),
        _ => integer::compare(ty, a, b, |order| match comparison {
            Comparison::Equal => order == Ordering::Equal,
            Comparison::NotEqual => order != Ordering::Equal,
            Comparison::Less => order == Ordering::Less,
            Comparison::LessEqual => order != Ordering::Greater,
            Comparison::Greater => order == Ordering::Greater,
            _ => order != Ordering::Less,
        }),
    };
    (result, None)
}

#[inline]
fn holds(comparison: Comparison, a: f64, b: f64) -> bool {
    let unordered = a.is_nan() || b.is_nan();
    match comparison {
        Comparison::Equal => a == b,
        Comparison::NotEqual => a != b && !unordered,
        Comparison::Less => a < b,
        Comparison::LessEqual => a <= b,
        Comparison::Greater => a > b,
        Comparison::GreaterEqual => a >= b,
        Comparison::EqualUnordered => a == b || unordered,
        Comparison::NotEqualUnordered => a != b,
        Comparison::LessUnordered => a < b || unordered,
        Comparison::LessEqualUnordered => a <= b || unordered,
        Comparison::GreaterUnordered => a > b || unordered,
        Comparison::GreaterEqualUnordered => a >= b || unordered,
        Comparison::Number => !unordered,
        Comparison::Nan => unordered,
    }
}

/// A predicate joined with another, which may be negated.
pub fn join(join: Join, a: &Lanes, b: &Lanes, negated: bool) -> Lanes {
    let flip = u64::from(negated);
    map2(a, b, |a: u64, b: u64| {
        let b = b & 1 ^ flip;
        match join {
            Join::And => a & b,
            Join::Or => a | b,
            Join::Xor => a ^ b,
        }
    })
}

/// The value that `set` writes where a comparison holds: 1.0 for floats, all ones for integers.
pub fn set_value(result: Type) -> u64 {
    match result {
        Type::F32 => 0x3f80_0000,
        Type::F16 => 0x3c00,
        Type::F16x2 => 0x3c00_3c00,
        Type::Bf16 => 0x3f80,
        Type::Bf16x2 => 0x3f80_3f80,
        _ => u64::MAX >> (64 - result.bits()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversion(to: Type, from: Type, rounding: Rounding) -> Conversion {
        Conversion { to, from, rounding, integral: !to.is_float(), saturate: false, relu: false, flush: false }
    }

    fn one(conversion: Conversion, bits: u64) -> u64 {
        convert(conversion, &[bits; 32])[3]
    }

    #[test]
    fn floats_saturate_when_they_become_integers() {
        let to_byte = conversion(Type::S8, Type::F32, Rounding::Nearest);
        assert_eq!(one(to_byte, u64::from(300f32.to_bits())) as i8, 127);
        assert_eq!(one(to_byte, u64::from((-2.5f32).to_bits())) as i8, -2);
        let to_word = conversion(Type::S32, Type::F32, Rounding::Zero);
        assert_eq!(one(to_word, u64::from(f32::NAN.to_bits())), 0);
        let to_unsigned = conversion(Type::U32, Type::F32, Rounding::Zero);
        assert_eq!(one(to_unsigned, u64::from((-7f32).to_bits())), 0);
        let to_long = conversion(Type::S64, Type::F64, Rounding::Zero);
        assert_eq!(one(to_long, f64::NAN.to_bits()), 1 << 63);
    }

    #[test]
    fn integers_are_truncated_extended_or_saturated() {
        assert_eq!(one(conversion(Type::S32, Type::S8, Rounding::Nearest), 0xf0) as i32, -16);
        assert_eq!(one(conversion(Type::U8, Type::U32, Rounding::Nearest), 0x1ff), 0xff);
        let saturating = Conversion { saturate: true, ..conversion(Type::S8, Type::S32, Rounding::Nearest) };
        assert_eq!(one(saturating, 0xffff_0000) as i8, -128);
    }

    #[test]
    fn a_pair_puts_its_first_value_above() {
        let pack = conversion(Type::Bf16x2, Type::F32, Rounding::Nearest);
        let [one, two] = [1f32, 2f32].map(|value| [u64::from(value.to_bits()); 32]);
        assert_eq!(convert_pair(pack, &one, &two)[0], 0x3f80_4000);
    }

    #[test]
    fn tensor_floats_are_rounded_away_and_keep_the_layout_of_f32() {
        let to = conversion(Type::Tf32, Type::F32, Rounding::NearestAway);
        assert_eq!(one(to, 0x3f80_1000), 0x3f80_2000);
        assert_eq!(one(to, 0x3f80_0fff), 0x3f80_0000);
    }

    #[test]
    fn unordered_comparisons_hold_for_nan() {
        let nan = [u64::from(f32::NAN.to_bits()); 32];
        let compare = |comparison| compare(comparison, Type::F32, false, &nan, &nan).0[0];
        assert_eq!(compare(Comparison::NotEqual), 0);
        assert_eq!(compare(Comparison::NotEqualUnordered), 1);
        assert_eq!(compare(Comparison::GreaterEqualUnordered), 1);
        assert_eq!(compare(Comparison::Nan), 1);
    }
}
