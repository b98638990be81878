//! Integer arithmetic and logic.

use super::lanes::{Lanes, Word, map, map2, map3};
use crate::ptx::operation::{CarryOp, IntegerOp, IntegerUnaryOp, Product};
use crate::ptx::types::Type;

/// Operations that all integer types have.
trait Integer: Word + Ord {
    const BITS: u32;
    fn wrapping_add(self, other: Self) -> Self;
    fn wrapping_sub(self, other: Self) -> Self;
    fn saturating_add(self, other: Self) -> Self;
    fn saturating_sub(self, other: Self) -> Self;
    fn wrapping_mul(self, other: Self) -> Self;
    /// The upper half of the product.
    fn high_mul(self, other: Self) -> Self;
    /// The product in twice the width; 64-bit operands have none.
    fn wide_mul(self, other: Self) -> u64;
    fn div(self, other: Self) -> Self;
    fn rem(self, other: Self) -> Self;
    fn shift_left(self, amount: u32) -> Self;
    fn shift_right(self, amount: u32) -> Self;
    fn abs_diff(self, other: Self) -> Self;
}

macro_rules! integers {
    ($($ty:ty, $wide:ty, $wide_unsigned:ty;)*) => {$(
        impl Integer for $ty {
            const BITS: u32 = <$ty>::BITS;
            #[inline(always)]
            fn wrapping_add(self, other: Self) -> Self {
                <$ty>::wrapping_add(self, other)
            }
            #[inline(always)]
            fn wrapping_sub(self, other: Self) -> Self {
                <$ty>::wrapping_sub(self, other)
            }
            fn saturating_add(self, other: Self) -> Self {
                <$ty>::saturating_add(self, other)
            }
            fn saturating_sub(self, other: Self) -> Self {
                <$ty>::saturating_sub(self, other)
            }
            #[inline(always)]
            fn wrapping_mul(self, other: Self) -> Self {
                <$ty>::wrapping_mul(self, other)
            }
            #[inline(always)]
            fn high_mul(self, other: Self) -> Self {
                ((self as $wide * other as $wide) >> <$ty>::BITS) as $ty
            }
            #[inline(always)]
            fn wide_mul(self, other: Self) -> u64 {
                (self as $wide * other as $wide) as $wide_unsigned as u64
            }
            fn div(self, other: Self) -> Self {
                // The result is unspecified; cards return all ones.
                if other == 0 { !0 } else { self.wrapping_div(other) }
            }
            fn rem(self, other: Self) -> Self {
                if other == 0 { self } else { self.wrapping_rem(other) }
            }
            #[inline(always)]
            fn shift_left(self, amount: u32) -> Self {
                if amount >= <$ty>::BITS { 0 } else { self << amount }
            }
            #[inline(always)]
            fn shift_right(self, amount: u32) -> Self {
                let kept = if amount >= <$ty>::BITS { <$ty>::BITS - 1 } else { amount };
                let shifted = self >> kept;
                // One more position empties an unsigned value and fills a signed one with its sign.
                if amount >= <$ty>::BITS { shifted >> 1 } else { shifted }
            }
            fn abs_diff(self, other: Self) -> Self {
                <$ty>::abs_diff(self, other) as $ty
            }
        }
    )*};
}
integers! {
    u8, u16, u16; u16, u32, u32; u32, u64, u64; u64, u128, u128;
    i8, i16, u16; i16, i32, u32; i32, i64, u64; i64, i128, u128;
}

/// Calls a generic function for the integer type `ty`.
macro_rules! for_type {
    ($ty:expr, $function:ident($($argument:expr),*)) => {
        match $ty {
            Type::U8 | Type::B8 | Type::Predicate => $function::<u8>($($argument),*),
            Type::U16 | Type::B16 | Type::F16 | Type::Bf16 | Type::E4m3x2 | Type::E5m2x2 => $function::<u16>($($argument),*),
            Type::U32 | Type::B32 | Type::F32 | Type::Tf32 | Type::F16x2 | Type::Bf16x2 => $function::<u32>($($argument),*),
            Type::U64 | Type::B64 | Type::B128 | Type::F64 => $function::<u64>($($argument),*),
            Type::S8 => $function::<i8>($($argument),*),
            Type::S16 => $function::<i16>($($argument),*),
            Type::S32 => $function::<i32>($($argument),*),
            Type::S64 => $function::<i64>($($argument),*),
        }
    };
}

/// An operation of two operands.
pub fn binary(op: IntegerOp, ty: Type, a: &Lanes, b: &Lanes) -> Lanes {
    for_type!(ty, binary_of(op, a, b))
}

fn binary_of<T: Integer>(op: IntegerOp, a: &Lanes, b: &Lanes) -> Lanes {
    match op {
        IntegerOp::Add => map2(a, b, T::wrapping_add),
        IntegerOp::Sub => map2(a, b, T::wrapping_sub),
        IntegerOp::AddSaturating => map2(a, b, T::saturating_add),
        IntegerOp::SubSaturating => map2(a, b, T::saturating_sub),
        IntegerOp::MulLow => map2(a, b, T::wrapping_mul),
        IntegerOp::MulHigh => map2(a, b, T::high_mul),
        IntegerOp::MulWide => map2(a, b, T::wide_mul),
        IntegerOp::Div => map2(a, b, T::div),
        IntegerOp::Rem => map2(a, b, T::rem),
        IntegerOp::Min => map2(a, b, |a: T, b: T| if b < a { b } else { a }),
        IntegerOp::Max => map2(a, b, |a: T, b: T| if b > a { b } else { a }),
        IntegerOp::And => map2(a, b, |a: u64, b: u64| a & b),
        IntegerOp::Or => map2(a, b, |a: u64, b: u64| a | b),
        IntegerOp::Xor => map2(a, b, |a: u64, b: u64| a ^ b),
        IntegerOp::ShiftLeft => map2(a, b, |a: T, amount: u32| a.shift_left(amount)),
        IntegerOp::ShiftRight => map2(a, b, |a: T, amount: u32| a.shift_right(amount)),
    }
}

/// An operation of one operand.
pub fn unary(op: IntegerUnaryOp, ty: Type, a: &Lanes) -> Lanes {
    let bits = ty.bits();
    let low = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    match op {
        IntegerUnaryOp::Not if ty == Type::Predicate => map(a, |a: u64| (a & 1) ^ 1),
        IntegerUnaryOp::Not => map(a, |a: u64| !a),
        IntegerUnaryOp::LogicalNot => map(a, |a: u64| u64::from(a & low == 0)),
        IntegerUnaryOp::Negate => map(a, u64::wrapping_neg),
        IntegerUnaryOp::Absolute => map(a, |a: u64| if a >> (bits - 1) & 1 == 1 { a.wrapping_neg() } else { a }),
        IntegerUnaryOp::PopulationCount => map(a, |a: u64| (a & low).count_ones()),
        IntegerUnaryOp::LeadingZeros => map(a, |a: u64| (a & low).leading_zeros() - (64 - bits)),
        IntegerUnaryOp::Reverse => map(a, |a: u64| (a & low).reverse_bits() >> (64 - bits)),
        IntegerUnaryOp::FindHighest | IntegerUnaryOp::FindHighestShift => map(a, |a: u64| {
            let negative = ty.is_signed() && a >> (bits - 1) & 1 == 1;
            let value = if negative { !a & low } else { a & low };
            match value.checked_ilog2() {
                None => u32::MAX,
                Some(highest) if op == IntegerUnaryOp::FindHighest => highest,
                Some(highest) => bits - 1 - highest,
            }
        }),
    }
}

/// a · b + c.
pub fn multiply_add(product: Product, ty: Type, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    for_type!(ty, multiply_add_of(product, a, b, c))
}

fn multiply_add_of<T: Integer>(product: Product, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    match product {
        Product::Low => map3(a, b, c, |a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c)),
        Product::High => map3(a, b, c, |a: T, b: T, c: T| a.high_mul(b).wrapping_add(c)),
        Product::Wide => map3(a, b, c, |a: T, b: T, c: u64| u64::wrapping_add(a.wide_mul(b), c)),
    }
}

/// |a − b| + c.
pub fn absolute_difference(ty: Type, a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    for_type!(ty, absolute_difference_of(a, b, c))
}

fn absolute_difference_of<T: Integer>(a: &Lanes, b: &Lanes, c: &Lanes) -> Lanes {
    map3(a, b, c, |a: T, b: T, c: T| a.abs_diff(b).wrapping_add(c))
}

/// Arithmetic with a carry (or borrow) in; returns the result and the carry out.
pub fn carry(op: CarryOp, ty: Type, operands: [&Lanes; 3], carry_in: &Lanes) -> (Lanes, Lanes) {
    let bits = ty.bits();
    let low = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let (mut out, mut flags) = ([0; 32], [0; 32]);
    for lane in 0..32 {
        let [a, b, c] = operands.map(|operand| u128::from(operand[lane] & low));
        let carry = u128::from(carry_in[lane] & 1);
        let (value, flag) = match op {
            CarryOp::Add => (a + b + carry, (a + b + carry) >> bits != 0),
            CarryOp::Sub => (a.wrapping_sub(b).wrapping_sub(carry), a < b + carry),
            CarryOp::MulAddLow | CarryOp::MulAddHigh => {
                let product = if ty.is_signed() {
                    let extend = |value: u128| ((value as u64) << (64 - bits)).cast_signed() >> (64 - bits);
                    (i128::from(extend(a)) * i128::from(extend(b))) as u128
                } else {
                    a * b
                };
                let part = if op == CarryOp::MulAddLow { product } else { product >> bits } & u128::from(low);
                (part + c + carry, (part + c + carry) >> bits != 0)
            }
        };
        out[lane] = value as u64 & low;
        flags[lane] = u64::from(flag);
    }
    (out, flags)
}

/// Compares whole registers as the integer type `ty` and applies `f` to the ordering.
pub fn compare(ty: Type, a: &Lanes, b: &Lanes, f: impl Fn(std::cmp::Ordering) -> bool) -> Lanes {
    for_type!(ty, compare_of(a, b, &f))
}

#[inline]
fn compare_of<T: Integer>(a: &Lanes, b: &Lanes, f: &impl Fn(std::cmp::Ordering) -> bool) -> Lanes {
    map2(a, b, |a: T, b: T| u8::from(f(a.cmp(&b))))
}

/// Sign- or zero-extends the low bits of each lane to 64 bits.
pub fn extend(ty: Type, a: &Lanes) -> Lanes {
    match ty {
        Type::S8 => map(a, |a: i8| i64::from(a)),
        Type::S16 => map(a, |a: i16| i64::from(a)),
        Type::S32 => map(a, |a: i32| i64::from(a)),
        _ => for_type!(ty, zero_extend_of(a)),
    }
}

fn zero_extend_of<T: Integer>(a: &Lanes) -> Lanes {
    debug_assert!(T::BITS <= 64, "no register is wider");
    map(a, |a: T| a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(op: IntegerOp, ty: Type, a: u64, b: u64) -> u64 {
        binary(op, ty, &[a; 32], &[b; 32])[7]
    }

    #[test]
    fn narrow_types_wrap_and_signed_ones_compare_by_sign() {
        assert_eq!(one(IntegerOp::Add, Type::U16, 0xffff, 2), 1);
        assert_eq!(one(IntegerOp::MulHigh, Type::U32, 0xffff_ffff, 0xffff_ffff), 0xffff_fffe);
        assert_eq!(one(IntegerOp::MulWide, Type::S32, 0xffff_ffff, 5), 5u64.wrapping_neg());
        assert_eq!(one(IntegerOp::Min, Type::S32, 0xffff_ffff, 5), 0xffff_ffff);
        assert_eq!(one(IntegerOp::Min, Type::U32, 0xffff_ffff, 5), 5);
        assert_eq!(one(IntegerOp::AddSaturating, Type::S32, 0x7fff_ffff, 5), 0x7fff_ffff);
    }

    #[test]
    fn shifts_beyond_the_width_empty_or_fill_with_the_sign() {
        assert_eq!(one(IntegerOp::ShiftLeft, Type::B32, 1, 32), 0);
        assert_eq!(one(IntegerOp::ShiftRight, Type::U32, 0x8000_0000, 40), 0);
        assert_eq!(one(IntegerOp::ShiftRight, Type::S32, 0x8000_0000, 40), 0xffff_ffff);
        assert_eq!(one(IntegerOp::ShiftRight, Type::U64, u64::MAX, 63), 1);
    }

    #[test]
    fn a_wide_sum_is_made_of_two_with_carry() {
        let (low, flag) = carry(CarryOp::Add, Type::U32, [&[0xffff_ffff; 32], &[1; 32], &[0; 32]], &[0; 32]);
        let (high, _) = carry(CarryOp::Add, Type::U32, [&[1; 32], &[2; 32], &[0; 32]], &flag);
        assert_eq!((high[0], low[0]), (4, 0));
        let (low, borrow) = carry(CarryOp::Sub, Type::U32, [&[0; 32], &[1; 32], &[0; 32]], &[0; 32]);
        assert_eq!((low[0], borrow[0]), (0xffff_ffff, 1));
    }

    #[test]
    fn highest_bits_are_found_in_both_countings() {
        assert_eq!(unary(IntegerUnaryOp::FindHighest, Type::U32, &[0x10; 32])[0], 4);
        assert_eq!(unary(IntegerUnaryOp::FindHighestShift, Type::U32, &[0x10; 32])[0], 27);
        assert_eq!(unary(IntegerUnaryOp::FindHighest, Type::S32, &[0xffff_fff0; 32])[0], 3);
        assert_eq!(unary(IntegerUnaryOp::FindHighest, Type::U32, &[0; 32])[0], 0xffff_ffff);
    }
}
