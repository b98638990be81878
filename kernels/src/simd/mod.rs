//! The vector operations that the kernels are written in, once for each instruction set.
//!
//! A kernel is written once, generic over [`Simd`], as a [`Kernel`]; [`Isa::run`] compiles it for each instruction set
//! and picks one at run time. Every function that a kernel calls must be inlined into it (`#[inline(always)]`): code that
//! is not inlined is compiled without the vector instructions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::LazyLock;

/// Vectors side by side in one panel of packed weights, on every instruction set.
pub(crate) const PANEL_VECTORS: usize = 2;

/// Operations on vectors of one instruction set. A value of the type proves that the processor has it.
///
/// Slices must hold at least [`Simd::LANES`] elements (a panic otherwise), except for the `_partial` operations, which
/// take at most that many and treat the missing ones as 0.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Elements of 32 bits in a vector.
    const LANES: usize;
    /// Rows of a matrix product that are computed at once: as many as there are registers for.
    const MAX_ROWS: usize;
    /// [`Simd::MAX_ROWS`] for products of bytes, which may need more registers.
    const MAX_DOT_ROWS: usize;
    /// The largest u8 that [`Simd::dot`] takes.
    const MAX_U8: u8;
    /// Columns of a panel.
    const PANEL: usize = PANEL_VECTORS * Self::LANES;

    /// `LANES` times f32.
    type F32: Copy;
    /// `LANES` times i32, or four times as many i8.
    type I32: Copy;

    fn splat(self, value: f32) -> Self::F32;
    fn load(self, from: &[f32]) -> Self::F32;
    fn load_partial(self, from: &[f32]) -> Self::F32;
    fn store(self, value: Self::F32, to: &mut [f32]);
    fn store_partial(self, value: Self::F32, to: &mut [f32]);

    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a·b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger; `b` where it is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller; `b` where it is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn abs(self, a: Self::F32) -> Self::F32;
    /// The sum over the lanes, always in the same order.
    fn sum(self, a: Self::F32) -> f32;
    /// The largest lane.
    fn max_lane(self, a: Self::F32) -> f32;
    /// The nearest whole number, halves to even; any number where the value does not fit an i32.
    fn round(self, a: Self::F32) -> Self::I32;

    fn splat_i32(self, value: i32) -> Self::I32;
    fn load_i32(self, from: &[i32]) -> Self::I32;
    fn to_f32(self, a: Self::I32) -> Self::F32;
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// 2ⁿ for -127 < n < 128.
    fn power_of_two(self, n: Self::I32) -> Self::F32;
    /// Each lane's low byte, for lanes of 0 to 255.
    fn store_u8(self, a: Self::I32, to: &mut [u8]);
    /// Bytes with sign, as numbers.
    fn load_i8(self, from: &[i8]) -> Self::F32;
    /// In each lane: `sum + Σ aᵢ·bᵢ` over its four bytes, `a` without sign and at most [`Simd::MAX_U8`], `b` with sign.
    fn dot(self, sum: Self::I32, a: Self::I32, b: Self::I32) -> Self::I32;

    /// Prefetches the cache line at an address; any address will do.
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    /// # Safety
    /// `from` points to `LANES` readable elements.
    unsafe fn load_from(self, from: *const f32) -> Self::F32;
    /// # Safety
    /// `to` points to `LANES` writable elements.
    unsafe fn store_to(self, value: Self::F32, to: *mut f32);
    /// # Safety
    /// `from` points to `4·LANES` readable bytes.
    unsafe fn load_bytes(self, from: *const i8) -> Self::I32;
}

/// Code that is compiled for each instruction set. `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// A function of one vector; not a closure, because closures are not always inlined. `of` must be `#[inline(always)]`.
pub(crate) trait Unary: Copy {
    fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32;
}

/// `factor·x`
#[derive(Clone, Copy)]
pub(crate) struct Times(pub(crate) f32);

impl Unary for Times {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        simd.mul(x, simd.splat(self.0))
    }
}

/// Replaces each `x` of a row with `f(x)`.
#[inline(always)]
pub(crate) fn map<S: Simd>(simd: S, row: &mut [f32], f: impl Unary) {
    let mut vectors = row.chunks_exact_mut(S::LANES);
    for vector in &mut vectors {
        simd.store(f.of(simd, simd.load(vector)), vector);
    }
    let rest = vectors.into_remainder();
    if !rest.is_empty() {
        simd.store_partial(f.of(simd, simd.load_partial(rest)), rest);
    }
}

/// An instruction set that this processor has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa(IsaKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IsaKind {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx2Fma,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    Portable,
}

static AVAILABLE: LazyLock<Vec<Isa>> = LazyLock::new(detect);

fn detect() -> Vec<Isa> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx2") && has!("fma") {
            if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") && has!("avx512vnni") {
                found.push(Isa(IsaKind::Avx512Vnni));
            }
            if has!("avxvnni") {
                found.push(Isa(IsaKind::AvxVnni));
            }
            found.push(Isa(IsaKind::Avx2Fma));
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        found.push(Isa(IsaKind::NeonDot));
    }
    found.push(Isa(IsaKind::Portable));
    found
}

impl Isa {
    /// The fastest instruction set of this processor.
    #[must_use]
    pub fn best() -> Self {
        AVAILABLE[0]
    }

    /// All instruction sets of this processor, the fastest first. The last runs anywhere.
    #[must_use]
    pub fn available() -> &'static [Self] {
        &AVAILABLE
    }

    /// Conventional name, such as `avx2-fma`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            IsaKind::AvxVnni => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2Fma => "avx2-fma",
            #[cfg(target_arch = "aarch64")]
            IsaKind::NeonDot => "neon-dotprod",
            IsaKind::Portable => "portable",
        }
    }

    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            // SAFETY: `detect`, which alone makes an `Isa`, has found its features on this processor.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx512Vnni => unsafe { avx512::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            IsaKind::AvxVnni => unsafe { avx2::run_vnni(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            IsaKind::Avx2Fma => unsafe { avx2::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            IsaKind::NeonDot => unsafe { neon::run(kernel) },
            IsaKind::Portable => portable::run(kernel),
        }
    }

    /// Columns of a panel of packed weights.
    pub(crate) fn panel(self) -> usize {
        self.run(PanelWidth)
    }

    #[cfg(test)]
    /// The largest quantised activation.
    pub(crate) fn max_u8(self) -> u8 {
        self.run(MaxU8)
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

struct PanelWidth;

impl Kernel for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        S::PANEL
    }
}

#[cfg(test)]
struct MaxU8;

#[cfg(test)]
impl Kernel for MaxU8 {
    type Output = u8;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> u8 {
        S::MAX_U8
    }
}
