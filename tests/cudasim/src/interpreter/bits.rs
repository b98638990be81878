//! Bit fields, byte permutations, and dot products of packed bytes.

use super::lanes::{Lanes, map2, map3};
use crate::ptx::operation::PermuteMode;
use crate::ptx::types::Type;

/// A function of three bits, given by its table.
pub fn logic3(table: u8, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    map3(a, b, c, |a: u32, b: u32, c: u32| {
        let mut out = 0;
        for row in 0..8 {
            if table >> row & 1 == 1 {
                let a = if row & 4 != 0 { a } else { !a };
                let b = if row & 2 != 0 { b } else { !b };
                let c = if row & 1 != 0 { c } else { !c };
                out |= a & b & c;
            }
        }
        out
    })
}

/// Four bytes chosen from the eight of `b:a`.
pub fn permute(mode: PermuteMode, a: &Lanes, b: &Lanes, selector: &Lanes) -> Lanes {
    map3(a, b, selector, |a: u32, b: u32, selector: u32| {
        let bytes = u64::from(a) | u64::from(b) << 32;
        let low = selector & 3;
        let mut out = 0u32;
        for place in 0..4 {
            let chosen = match mode {
                PermuteMode::Index => selector >> (4 * place) & 15,
                PermuteMode::Forward4 => low + place,
                PermuteMode::Backward4 => low.wrapping_sub(place) & 7,
                PermuteMode::Replicate8 => low,
                PermuteMode::ClampLeft => place.max(low),
                PermuteMode::ClampRight => place.min(low),
                PermuteMode::Replicate16 => (low & 1) * 2 + (place & 1),
            };
            let byte = (bytes >> (8 * (chosen & 7))) as u8;
            // The fourth bit of the selector asks for the byte's sign instead of the byte.
            let byte = if chosen & 8 == 0 { byte } else { (byte.cast_signed() >> 7).cast_unsigned() };
            out |= u32::from(byte) << (8 * place);
        }
        out
    })
}

fn low_mask(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// A field of `a`, sign-extended where the type is signed.
pub fn extract(ty: Type, a: &Lanes, start: &Lanes, length: &Lanes) -> Lanes {
    let bits = ty.bits();
    map3(a, start, length, |a: u64, start: u8, length: u8| {
        let (start, length) = (u32::from(start), u32::from(length));
        if length == 0 {
            return 0;
        }
        let value = a & low_mask(bits);
        let shifted = if start >= bits { 0 } else { value >> start };
        let kept = shifted & low_mask(length);
        let sign = value >> (start + length - 1).min(bits - 1) & 1;
        if ty.is_signed() && sign == 1 { kept | !low_mask(length.min(bits.saturating_sub(start))) } else { kept }
    })
}

/// `b` with a field replaced by the low bits of `a`.
pub fn insert(ty: Type, operands: [&Lanes; 4]) -> Lanes {
    let [a, b, start, length] = operands;
    let mut out = [0; 32];
    for lane in 0..32 {
        let (start, length) = ((start[lane] & 255) as u32, (length[lane] & 255) as u32);
        let field = if start >= 64 { 0 } else { low_mask(length) << start } & low_mask(ty.bits());
        out[lane] = b[lane] & !field | a[lane].unbounded_shl(start) & field;
    }
    out
}

/// 32 of the 64 bits of `b:a`, shifted.
pub fn funnel_shift(right: bool, clamp: bool, a: &Lanes, b: &Lanes, amount: &Lanes) -> Lanes {
    map3(a, b, amount, |a: u32, b: u32, amount: u32| {
        let both = u64::from(a) | u64::from(b) << 32;
        let amount = if clamp { amount.min(32) } else { amount & 31 };
        if right { (both >> amount) as u32 } else { (both << amount >> 32) as u32 }
    })
}

fn byte_value(word: u32, index: u32, ty: Type) -> i32 {
    let byte = (word >> (8 * index)) as u8;
    if ty.is_signed() { i32::from(byte.cast_signed()) } else { i32::from(byte) }
}

/// `dp4a`: the sum of four products of bytes, plus `c`.
pub fn dot4(a_type: Type, b_type: Type, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    map3(a, b, c, |a: u32, b: u32, c: i32| {
        let product = |index| byte_value(a, index, a_type) * byte_value(b, index, b_type);
        c.wrapping_add(product(0) + product(1) + product(2) + product(3))
    })
}

/// `dp2a`: the sum of two products of 16-bit values of `a` with bytes of one half of `b`, plus `c`.
pub fn dot2(a_type: Type, b_type: Type, high: bool, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    map3(a, b, c, |a: u32, b: u32, c: i32| {
        let product = |index: u32| {
            let word = (a >> (16 * index)) as u16;
            let word = if a_type.is_signed() { i32::from(word.cast_signed()) } else { i32::from(word) };
            word * byte_value(b, index + if high { 2 } else { 0 }, b_type)
        };
        c.wrapping_add(product(0)).wrapping_add(product(1))
    })
}

/// The `bits` bits of `a` from `start` on.
pub fn part(a: &Lanes, start: u32, bits: u32) -> Lanes {
    map2(a, a, |a: u64, _: u64| a >> start & low_mask(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logic_of_three_follows_its_table() {
        let (a, b, c) = ([0b1111_0000; 32], [0b1100_1100; 32], [0b1010_1010; 32]);
        assert_eq!(logic3(0x96, &a, &b, &c)[0], 0b1001_0110);
        assert_eq!(logic3(0x80, &a, &b, &c)[0] & 0xff, 0b1000_0000);
    }

    #[test]
    fn bytes_are_permuted_and_their_signs_replicated() {
        let (a, b) = ([0x8070_6050; 32], [0x4030_2010; 32]);
        assert_eq!(permute(PermuteMode::Index, &a, &b, &[0x7410; 32])[0], 0x4010_6050);
        assert_eq!(permute(PermuteMode::Index, &a, &b, &[0x000b; 32])[0] & 0xff, 0xff);
        assert_eq!(permute(PermuteMode::Replicate8, &a, &b, &[2; 32])[0], 0x7070_7070);
    }

    #[test]
    fn fields_are_extracted_with_sign_and_inserted() {
        assert_eq!(extract(Type::U32, &[0xabcd; 32], &[4; 32], &[8; 32])[0], 0xbc);
        assert_eq!(extract(Type::S32, &[0xabcd; 32], &[4; 32], &[8; 32])[0] as i32, 0xbc - 256);
        assert_eq!(insert(Type::B32, [&[0xff; 32], &[0; 32], &[4; 32], &[4; 32]])[0], 0xf0);
        assert_eq!(insert(Type::B64, [&[1; 32], &[0; 32], &[63; 32], &[1; 32]])[0], 1 << 63);
    }

    #[test]
    fn dot_products_mix_signs() {
        // (-1)·1 + 2·2 + 3·3 + 4·4 + 10
        let a = [0x0403_02ff; 32];
        let b = [0x0403_0201; 32];
        assert_eq!(dot4(Type::S32, Type::U32, &a, &b, &[10; 32])[0], 38);
        assert_eq!(dot4(Type::U32, Type::U32, &a, &b, &[10; 32])[0], 294);
        assert_eq!(dot2(Type::S32, Type::S32, true, &[0x0002_ffff; 32], &b, &[0; 32])[0], 5);
    }

    #[test]
    fn a_funnel_shift_takes_bits_of_both() {
        assert_eq!(funnel_shift(false, false, &[0x8000_0000; 32], &[1; 32], &[1; 32])[0], 3);
        assert_eq!(funnel_shift(true, true, &[0xffff_fff0; 32], &[0xf; 32], &[40; 32])[0], 0xf);
    }
}
