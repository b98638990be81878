//! NEON with dot product (Armv8.2 and later: Graviton 2, Ampere, Apple): 4 lanes, 32 registers.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub(super) struct Neon(());

/// Compiles `kernel` for NEON with dot product and runs it.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

// SAFETY of every block below: only `run` makes a `Neon`, so the features are there; memory is accessed within the
// bounds that the assertion before it has checked, or that the caller of an unsafe operation vouches for.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one reason for all of them, above")]
impl Simd for Neon {
    const LANES: usize = 4;
    const MAX_ROWS: usize = 12;
    const MAX_DOT_ROWS: usize = 12;
    /// The dot product takes signed bytes on both sides.
    const MAX_U8: u8 = 127;

    type F32 = float32x4_t;
    type I32 = int32x4_t;

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> float32x4_t {
        assert!(from.len() >= Self::LANES);
        unsafe { vld1q_f32(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> float32x4_t {
        let mut lanes = [0.0; 4];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    #[inline(always)]
    fn store(self, value: float32x4_t, to: &mut [f32]) {
        assert!(to.len() >= Self::LANES);
        unsafe { vst1q_f32(to.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn store_partial(self, value: float32x4_t, to: &mut [f32]) {
        let mut lanes = [0.0; 4];
        self.store(value, &mut lanes);
        let count = to.len();
        to.copy_from_slice(&lanes[..count]);
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }

    /// By selection, not by `vmaxq`, which would also let a NaN of `a` through.
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
    }

    #[inline(always)]
    fn abs(self, a: float32x4_t) -> float32x4_t {
        unsafe { vabsq_f32(a) }
    }

    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        unsafe { vaddvq_f32(a) }
    }

    #[inline(always)]
    fn max_lane(self, a: float32x4_t) -> f32 {
        unsafe { vmaxvq_f32(a) }
    }

    #[inline(always)]
    fn round(self, a: float32x4_t) -> int32x4_t {
        unsafe { vcvtnq_s32_f32(a) }
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> int32x4_t {
        unsafe { vdupq_n_s32(value) }
    }

    #[inline(always)]
    fn load_i32(self, from: &[i32]) -> int32x4_t {
        assert!(from.len() >= Self::LANES);
        unsafe { vld1q_s32(from.as_ptr()) }
    }

    #[inline(always)]
    fn to_f32(self, a: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(a) }
    }

    #[inline(always)]
    fn sub_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vsubq_s32(a, b) }
    }

    #[inline(always)]
    fn mul_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vmulq_s32(a, b) }
    }

    #[inline(always)]
    fn power_of_two(self, n: int32x4_t) -> float32x4_t {
        unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127)))) }
    }

    #[inline(always)]
    fn store_u8(self, a: int32x4_t, to: &mut [u8]) {
        let mut lanes = [0; 4];
        unsafe { vst1q_s32(lanes.as_mut_ptr(), a) };
        for (to, lane) in to[..4].iter_mut().zip(lanes) {
            *to = lane.to_le_bytes()[0];
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8]) -> float32x4_t {
        self.to_f32(self.load_i32(&[from[0].into(), from[1].into(), from[2].into(), from[3].into()]))
    }

    /// In assembly, because `vdotq_s32` is not stable yet (rust-lang/rust#117224).
    #[inline(always)]
    fn dot(self, sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        let mut sum = sum;
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                sum = inout(vreg) sum,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }

    #[inline(always)]
    unsafe fn load_from(self, from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store_to(self, value: float32x4_t, to: *mut f32) {
        unsafe { vst1q_f32(to, value) }
    }

    #[inline(always)]
    unsafe fn load_bytes(self, from: *const i8) -> int32x4_t {
        unsafe { vreinterpretq_s32_s8(vld1q_s8(from)) }
    }
}
