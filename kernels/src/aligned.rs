//! Buffers that begin on a cache line, as vectors of packed weights must.

use std::ops::{Deref, DerefMut};

/// 64 bytes aligned to a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

/// Number types for which every bit pattern is a valid value.
///
/// # Safety
/// All-zero bytes are a value, every value may be read as bytes, the size divides 64, and the alignment is at most 64.
pub(crate) unsafe trait Number: Copy + 'static {}

// SAFETY: plain numbers of 1 and 4 bytes.
unsafe impl Number for f32 {}
// SAFETY: as above.
unsafe impl Number for i32 {}
// SAFETY: as above.
unsafe impl Number for i8 {}
// SAFETY: as above.
unsafe impl Number for u8 {}

/// A buffer that begins on a cache line, zeros at first. Growing keeps its contents; its capacity never shrinks.
#[derive(Clone)]
pub(crate) struct Aligned<T> {
    lines: Vec<CacheLine>,
    length: usize,
    numbers: std::marker::PhantomData<T>,
}

impl<T: Number> Aligned<T> {
    pub(crate) fn zeros(length: usize) -> Self {
        let mut buffer = Self { lines: Vec::new(), length: 0, numbers: std::marker::PhantomData };
        buffer.grow(length);
        buffer
    }

    /// Makes room for at least `length` numbers.
    pub(crate) fn grow(&mut self, length: usize) {
        if length > self.length {
            self.lines.resize((length * size_of::<T>()).div_ceil(size_of::<CacheLine>()), CacheLine([0; 64]));
            self.length = length;
        }
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<CacheLine>()
    }
}

impl<T: Number> Default for Aligned<T> {
    fn default() -> Self {
        Self::zeros(0)
    }
}

impl<T: Number> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `grow` has made lines for `length` numbers; by `Number`'s contract any bytes are a value.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl<T: Number> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the buffer is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}
