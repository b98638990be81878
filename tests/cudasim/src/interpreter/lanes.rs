//! A value for each lane of a warp, and functions of all lanes at once.
//!
//! Functions compute all 32 lanes, active or not, so that the compiler can use vector instructions. Only active lanes are
//! written back.

/// A register: 64 bits for each of 32 lanes. Bits above a value's width are arbitrary and never read.
pub type Lanes = [u64; 32];

/// All lanes.
pub const ALL: u32 = u32::MAX;

/// A number that a lane can hold.
pub trait Word: Copy {
    /// Reads the low bits of a register.
    fn read(bits: u64) -> Self;
    /// The value as the bits of a register.
    fn write(self) -> u64;
}

macro_rules! words {
    ($($unsigned:ty, $signed:ty;)*) => {$(
        impl Word for $unsigned {
            #[inline(always)]
            fn read(bits: u64) -> Self {
                bits as $unsigned
            }
            #[inline(always)]
            fn write(self) -> u64 {
                self as u64
            }
        }
        impl Word for $signed {
            #[inline(always)]
            fn read(bits: u64) -> Self {
                bits as $signed
            }
            #[inline(always)]
            fn write(self) -> u64 {
                self as $unsigned as u64
            }
        }
    )*};
}
words! { u8, i8; u16, i16; u32, i32; u64, i64; }

impl Word for f32 {
    #[inline(always)]
    fn read(bits: u64) -> Self {
        Self::from_bits(bits as u32)
    }
    #[inline(always)]
    fn write(self) -> u64 {
        u64::from(self.to_bits())
    }
}

impl Word for f64 {
    #[inline(always)]
    fn read(bits: u64) -> Self {
        Self::from_bits(bits)
    }
    #[inline(always)]
    fn write(self) -> u64 {
        self.to_bits()
    }
}

/// `f` of each lane.
#[inline(always)]
pub fn map<A: Word, R: Word>(a: &Lanes, f: impl Fn(A) -> R) -> Lanes {
    let mut out = [0; 32];
    for (out, a) in out.iter_mut().zip(a) {
        *out = f(A::read(*a)).write();
    }
    out
}

/// `f` of each pair of lanes.
#[inline(always)]
pub fn map2<A: Word, B: Word, R: Word>(a: &Lanes, b: &Lanes, f: impl Fn(A, B) -> R) -> Lanes {
    let mut out = [0; 32];
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = f(A::read(*a), B::read(*b)).write();
    }
    out
}

/// `f` of each triple of lanes.
#[inline(always)]
pub fn map3<A: Word, B: Word, C: Word, R: Word>(a: &Lanes, b: &Lanes, c: &Lanes, f: impl Fn(A, B, C) -> R) -> Lanes {
    let mut out = [0; 32];
    for (((out, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
        *out = f(A::read(*a), B::read(*b), C::read(*c)).write();
    }
    out
}

/// The numbers of the lanes in `mask`, lowest first.
pub fn lanes_of(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros();
        rest &= rest.wrapping_sub(1);
        (lane < 32).then_some(lane as usize)
    })
}

/// The lanes of `mask` whose lowest bit is set.
pub fn true_lanes(values: &Lanes, mask: u32) -> u32 {
    let mut found = 0;
    for (lane, value) in values.iter().enumerate() {
        found |= ((*value & 1) as u32) << lane;
    }
    found & mask
}
