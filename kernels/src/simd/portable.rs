//! Plain arrays for any processor, vectorised as far as the compiler can.

use std::array;

use super::{Kernel, Simd};

const LANES: usize = 8;

#[derive(Clone, Copy)]
pub(super) struct Portable(());

pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Portable(()))
}

#[inline(always)]
fn zip<T: Copy, U>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> U) -> [U; LANES] {
    array::from_fn(|lane| f(a[lane], b[lane]))
}

/// Halves the lanes until one is left.
#[inline(always)]
fn fold(a: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    f(f(f(a[0], a[4]), f(a[2], a[6])), f(f(a[1], a[5]), f(a[3], a[7])))
}

impl Simd for Portable {
    const LANES: usize = LANES;
    const MAX_ROWS: usize = 2;
    const MAX_DOT_ROWS: usize = 2;
    const MAX_U8: u8 = 255;

    type F32 = [f32; LANES];
    type I32 = [i32; LANES];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F32 {
        array::from_fn(|lane| from[lane])
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> Self::F32 {
        assert!(from.len() <= LANES, "a vector has {LANES} lanes");
        array::from_fn(|lane| from.get(lane).copied().unwrap_or(0.0))
    }

    #[inline(always)]
    fn store(self, value: Self::F32, to: &mut [f32]) {
        to[..LANES].copy_from_slice(&value);
    }

    #[inline(always)]
    fn store_partial(self, value: Self::F32, to: &mut [f32]) {
        let count = to.len();
        to.copy_from_slice(&value[..count]);
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a / b)
    }

    /// Two roundings: `f32::mul_add` is a slow library call where the processor has no instruction for it.
    #[inline(always)]
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: Self::F32) -> Self::F32 {
        a.map(f32::abs)
    }

    #[inline(always)]
    fn sum(self, a: Self::F32) -> f32 {
        fold(a, |a, b| a + b)
    }

    #[inline(always)]
    fn max_lane(self, a: Self::F32) -> f32 {
        fold(a, f32::max)
    }

    #[inline(always)]
    fn round(self, a: Self::F32) -> Self::I32 {
        #[expect(clippy::cast_possible_truncation, reason = "what does not fit gives any number, as the trait says")]
        a.map(|a| a.round_ties_even() as i32)
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> Self::I32 {
        [value; LANES]
    }

    #[inline(always)]
    fn load_i32(self, from: &[i32]) -> Self::I32 {
        array::from_fn(|lane| from[lane])
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        zip(a, b, i32::wrapping_sub)
    }

    #[inline(always)]
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        zip(a, b, i32::wrapping_mul)
    }

    #[inline(always)]
    fn power_of_two(self, n: Self::I32) -> Self::F32 {
        n.map(|n| f32::from_bits((n.wrapping_add(127) << 23).cast_unsigned()))
    }

    #[inline(always)]
    fn store_u8(self, a: Self::I32, to: &mut [u8]) {
        for (to, a) in to[..LANES].iter_mut().zip(a) {
            *to = a.to_le_bytes()[0];
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8]) -> Self::F32 {
        array::from_fn(|lane| f32::from(from[lane]))
    }

    #[inline(always)]
    fn dot(self, sum: Self::I32, a: Self::I32, b: Self::I32) -> Self::I32 {
        array::from_fn(|lane| {
            let products = a[lane].to_le_bytes().into_iter().zip(b[lane].to_le_bytes());
            sum[lane] + products.map(|(a, b)| i32::from(a) * i32::from(b.cast_signed())).sum::<i32>()
        })
    }

    #[inline(always)]
    unsafe fn load_from(self, from: *const f32) -> Self::F32 {
        // SAFETY: the caller vouches for LANES readable elements; an array of f32 has the alignment of one.
        unsafe { from.cast::<Self::F32>().read() }
    }

    #[inline(always)]
    unsafe fn store_to(self, value: Self::F32, to: *mut f32) {
        // SAFETY: the caller vouches for LANES writable elements; an array of f32 has the alignment of one.
        unsafe { to.cast::<Self::F32>().write(value) }
    }

    #[inline(always)]
    unsafe fn load_bytes(self, from: *const i8) -> Self::I32 {
        // SAFETY: the caller vouches for 4·LANES readable bytes.
        unsafe { from.cast::<Self::I32>().read_unaligned() }
    }
}
