//! Memory of a device, and views of it that know their shapes.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use cudarc::driver::{CudaContext, result};
use half::{bf16, f16};

use super::error::Named as _;
use crate::KernelError;
use crate::aligned::Number;

/// Storage type of a float on a device. All arithmetic is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    pub(crate) const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes per element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

// SAFETY: a plain number of 2 bytes.
unsafe impl Number for u16 {}

/// The bits of each value as a 16-bit element.
///
/// # Errors
/// [`KernelError::TooLarge`] names a finite value that would become infinite.
pub(super) fn converted(element: Element, values: &[f32]) -> Result<Vec<u16>, KernelError> {
    let bits = values.iter().enumerate().map(|(at, value)| {
        let (bits, finite) = if element == Element::F16 {
            let narrow = f16::from_f32(*value);
            (narrow.to_bits(), narrow.is_finite())
        } else {
            let narrow = bf16::from_f32(*value);
            (narrow.to_bits(), narrow.is_finite())
        };
        if value.is_finite() && !finite {
            return Err(KernelError::TooLarge { at, value: value.to_string(), element: element.name() });
        }
        Ok(bits)
    });
    bits.collect()
}

/// Memory of a device, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    context: Arc<CudaContext>,
    pointer: u64,
    bytes: usize,
}

impl Buffer {
    pub(super) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, KernelError> {
        // The driver refuses an allocation of 0 bytes.
        // SAFETY: the context is current (every public verb of `Gpu`'s owners binds it); nothing reads it unwritten.
        let pointer = unsafe { result::malloc_sync(bytes.max(1)).named("cuMemAlloc")? };
        Ok(Self { context: Arc::clone(context), pointer, bytes })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// `length` numbers from byte `at` on.
    pub(crate) fn view<T: Number>(&self, at: usize, length: usize) -> View<'_, T> {
        self.check(at, length * size_of::<T>(), size_of::<T>());
        View { pointer: self.pointer + at as u64, length, lifetime: PhantomData }
    }

    /// A matrix of floats from byte `at` on.
    pub(crate) fn matrix(&self, at: usize, rows: usize, columns: usize, element: Element) -> Matrix<'_> {
        // Kernels read four elements at once where the columns allow it.
        self.check(at, rows * columns * element.size(), 4 * element.size());
        Matrix { pointer: self.pointer + at as u64, rows, columns, element, lifetime: PhantomData }
    }

    fn check(&self, at: usize, bytes: usize, alignment: usize) {
        assert!(at + bytes <= self.bytes, "{bytes} bytes from {at} are not within {}", self.bytes);
        assert!(at.is_multiple_of(alignment), "byte {at} is not a multiple of {alignment}");
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A lost device has nothing left to free.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: allocated here. The driver waits for launches that use it.
            let _ = unsafe { result::free_sync(self.pointer) };
        }
    }
}

/// Numbers in device memory.
#[derive(Debug)]
pub(crate) struct View<'a, T> {
    pointer: u64,
    length: usize,
    lifetime: PhantomData<&'a [T]>,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<T> View<'_, T> {
    pub(crate) fn pointer(&self) -> u64 {
        self.pointer
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }
}

/// A matrix of floats in device memory, row by row without gaps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pointer: u64,
    rows: usize,
    columns: usize,
    element: Element,
    lifetime: PhantomData<&'a [f32]>,
}

impl<'a> Matrix<'a> {
    pub(crate) fn pointer(&self) -> u64 {
        self.pointer
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn element(&self) -> Element {
        self.element
    }

    /// Rows, columns and element.
    pub(crate) fn shape(&self) -> (usize, usize, Element) {
        (self.rows, self.columns, self.element)
    }

    /// Some of the rows.
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        assert!(rows.end <= self.rows, "rows {rows:?} are not within {}", self.rows);
        let first = rows.start * self.columns * self.element.size();
        Self { pointer: self.pointer + first as u64, rows: rows.len(), ..*self }
    }

    /// The matrix's numbers, if they are f32.
    pub(crate) fn floats(&self) -> Option<View<'a, f32>> {
        let Self { pointer, rows, columns, .. } = *self;
        (self.element == Element::F32).then_some(View { pointer, length: rows * columns, lifetime: PhantomData })
    }
}

/// Rows of signed bytes, each with its scale and zero point (see `quantize.cu`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuantizedMatrix<'a> {
    pub(crate) values: View<'a, i8>,
    pub(crate) scales: View<'a, f32>,
    pub(crate) zeros: View<'a, i32>,
    pub(crate) columns: usize,
}

impl QuantizedMatrix<'_> {
    /// Bytes from one row to the next.
    pub(crate) fn stride(columns: usize) -> usize {
        columns.next_multiple_of(64)
    }

    pub(crate) fn rows(&self) -> usize {
        self.scales.len()
    }

    /// True if all parts hold the same number of rows.
    pub(crate) fn fits(&self) -> bool {
        self.zeros.len() == self.rows() && self.values.len() == self.rows() * Self::stride(self.columns)
    }
}

/// Page-locked memory of the host, which the device reads and writes directly. Filled with zeros at first.
#[derive(Debug)]
pub(crate) struct Pinned<T> {
    context: Arc<CudaContext>,
    pointer: *mut T,
    length: usize,
}

// SAFETY: it owns its memory, as a boxed slice does.
unsafe impl<T: Send> Send for Pinned<T> {}

impl<T: Number> Pinned<T> {
    pub(super) fn new(context: &Arc<CudaContext>, length: usize) -> Result<Self, KernelError> {
        // SAFETY: the context is current; the driver's memory is aligned to pages.
        let pointer = unsafe {
            let pointer = result::malloc_host(length.max(1) * size_of::<T>(), 0).named("cuMemHostAlloc")?.cast::<T>();
            pointer.write_bytes(0, length);
            pointer
        };
        Ok(Self { context: Arc::clone(context), pointer, length })
    }
}

impl<T> Deref for Pinned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: allocated for `length` numbers, zeroed, and any bytes are a value.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }
    }
}

impl<T> DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.length) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: allocated here; the owner waits for every copy that it has queued.
            let _ = unsafe { result::free_host(self.pointer.cast()) };
        }
    }
}
