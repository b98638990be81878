//! AVX2 with FMA: 8 lanes, 16 registers; with or without AVX-VNNI, which multiplies bytes four at a time.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// AVX2 with FMA. `VNNI`: the processor also has AVX-VNNI (Alder Lake and later; Zen 5 and later).
#[derive(Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool>(());

/// Compiles `kernel` for AVX2 and FMA and runs it.
#[target_feature(enable = "avx2,fma")]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<false>(()))
}

/// Compiles `kernel` for AVX2, FMA and AVX-VNNI and runs it.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) fn run_vnni<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<true>(()))
}

/// A mask of the lowest `count` lanes.
#[inline(always)]
fn first(count: usize) -> __m256i {
    const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(count <= 8, "a vector has 8 lanes");
    // SAFETY: eight numbers from 8 - count are within the sixteen; the caller's features are there.
    unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - count).cast()) }
}

// SAFETY of every block below: only `run` and `run_vnni` make an `Avx2`, so the features are there; memory is accessed
// within the bounds that the assertion before it has checked, or that the caller of an unsafe operation vouches for.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one reason for all of them, above")]
impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    const MAX_ROWS: usize = 6;
    const MAX_DOT_ROWS: usize = if VNNI { 6 } else { 4 };
    /// Without VNNI, two products of bytes are summed in 16 bits: 2 · 127 · 127 fits, 2 · 255 · 127 does not.
    const MAX_U8: u8 = if VNNI { 255 } else { 127 };

    type F32 = __m256;
    type I32 = __m256i;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        assert!(from.len() >= Self::LANES);
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_partial(self, from: &[f32]) -> __m256 {
        unsafe { _mm256_maskload_ps(from.as_ptr(), first(from.len())) }
    }

    #[inline(always)]
    fn store(self, value: __m256, to: &mut [f32]) {
        assert!(to.len() >= Self::LANES);
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) }
    }

    #[inline(always)]
    fn store_partial(self, value: __m256, to: &mut [f32]) {
        unsafe { _mm256_maskstore_ps(to.as_mut_ptr(), first(to.len()), value) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn max_lane(self, a: __m256) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256i {
        unsafe { _mm256_cvtps_epi32(a) }
    }

    #[inline(always)]
    fn splat_i32(self, value: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(value) }
    }

    #[inline(always)]
    fn load_i32(self, from: &[i32]) -> __m256i {
        assert!(from.len() >= Self::LANES);
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn to_f32(self, a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn sub_i32(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn mul_i32(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_mullo_epi32(a, b) }
    }

    #[inline(always)]
    fn power_of_two(self, n: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))) }
    }

    #[inline(always)]
    fn store_u8(self, a: __m256i, to: &mut [u8]) {
        assert!(to.len() >= Self::LANES);
        unsafe {
            let words = _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_packus_epi16(words, words));
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8]) -> __m256 {
        assert!(from.len() >= Self::LANES);
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn dot(self, sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(sum, a, b)
            } else {
                let pairs = _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1));
                _mm256_add_epi32(sum, pairs)
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn load_from(self, from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store_to(self, value: __m256, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn load_bytes(self, from: *const i8) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
}
