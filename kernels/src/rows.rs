//! Rectangles of row-major matrices, so that threads can write disjoint columns of one matrix.

use std::marker::PhantomData;
use std::ops::Range;

/// A read-only rectangle.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    pointer: *const T,
    count: usize,
    columns: usize,
    stride: usize,
    lifetime: PhantomData<&'a [T]>,
}

// SAFETY: as a shared slice with gaps.
unsafe impl<T: Sync> Send for Rows<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Rows<'_, T> {}

impl<'a, T> Rows<'a, T> {
    /// The first `rows` rows of a matrix whose rows begin every `stride` elements.
    pub(crate) fn new(values: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        check(values.len(), rows, columns, stride);
        Self { pointer: values.as_ptr(), count: rows, columns, stride, lifetime: PhantomData }
    }

    /// Rows that begin every `stride` elements and may overlap, as the windows of a convolution do.
    pub(crate) fn windows(values: &'a [T], columns: usize, stride: usize) -> Self {
        let count = if columns <= values.len() { (values.len() - columns) / stride + 1 } else { 0 };
        Self { pointer: values.as_ptr(), count, columns, stride, lifetime: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.count
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Pointer to the first element; further rows follow every [`Rows::stride`] elements.
    pub(crate) fn pointer(&self) -> *const T {
        self.pointer
    }

    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.count);
        // SAFETY: `check` has found every row of the rectangle within the slice it was made from.
        unsafe { std::slice::from_raw_parts(self.pointer.add(row * self.stride), self.columns) }
    }

    /// The part of the rectangle in these rows and columns.
    pub(crate) fn part(&self, rows: Range<usize>, columns: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.count);
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        // SAFETY: the corner is within the rectangle, or one past its end where the part is empty.
        let pointer = unsafe { self.pointer.add(offset(rows.start, self.stride, columns.start, rows.is_empty())) };
        Self { pointer, count: rows.len(), columns: columns.len(), ..*self }
    }
}

/// A rectangle that only its holder may read or write.
pub(crate) struct RowsMut<'a, T> {
    pointer: *mut T,
    count: usize,
    columns: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: as an exclusive slice with gaps, which are never touched.
unsafe impl<T: Send> Send for RowsMut<'_, T> {}

impl<'a, T> RowsMut<'a, T> {
    /// The first `rows` rows of a matrix whose rows begin every `stride` elements.
    pub(crate) fn new(values: &'a mut [T], rows: usize, columns: usize, stride: usize) -> Self {
        check(values.len(), rows, columns, stride);
        Self { pointer: values.as_mut_ptr(), count: rows, columns, stride, lifetime: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.count
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn pointer(&mut self) -> *mut T {
        self.pointer
    }

    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.count);
        // SAFETY: `check` has found every row of the rectangle within the slice it was made from; `self` is borrowed
        // for writing, and nothing else may touch the rectangle.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(row * self.stride), self.columns) }
    }

    /// The same rectangle, for a shorter time.
    pub(crate) fn reborrow(&mut self) -> RowsMut<'_, T> {
        RowsMut { lifetime: PhantomData, ..*self }
    }

    pub(crate) fn as_rows(&self) -> Rows<'_, T> {
        Rows {
            pointer: self.pointer,
            count: self.count,
            columns: self.columns,
            stride: self.stride,
            lifetime: PhantomData,
        }
    }

    /// The part of the rectangle in these rows and columns.
    pub(crate) fn part(&mut self, rows: Range<usize>, columns: Range<usize>) -> RowsMut<'_, T> {
        let part = self.as_rows().part(rows, columns);
        let Rows { pointer, count, columns, stride, .. } = part;
        RowsMut { pointer: pointer.cast_mut(), count, columns, stride, lifetime: PhantomData }
    }

    /// The part of the rectangle in these rows.
    pub(crate) fn into_rows(self, rows: Range<usize>) -> Self {
        let Rows { pointer, count, columns, stride, .. } = self.as_rows().part(rows, 0..self.columns);
        Self { pointer: pointer.cast_mut(), count, columns, stride, lifetime: PhantomData }
    }

    /// Shares the rectangle, so that several threads can take parts of it.
    pub(crate) fn share(self) -> SharedRows<'a, T> {
        SharedRows(self)
    }
}

/// A rectangle whose disjoint parts several threads write.
pub(crate) struct SharedRows<'a, T>(RowsMut<'a, T>);

// SAFETY: parts are handed out by unsafe calls alone, whose callers keep them apart.
unsafe impl<T: Send + Sync> Sync for SharedRows<'_, T> {}

impl<T> SharedRows<'_, T> {
    /// # Safety
    /// While the part lives, no other part that overlaps with it does.
    pub(crate) unsafe fn part(&self, rows: Range<usize>, columns: Range<usize>) -> RowsMut<'_, T> {
        let Rows { pointer, count, columns, stride, .. } = self.0.as_rows().part(rows, columns);
        RowsMut { pointer: pointer.cast_mut(), count, columns, stride, lifetime: PhantomData }
    }
}

fn check(length: usize, rows: usize, columns: usize, stride: usize) {
    assert!(columns <= stride, "rows of {columns} do not fit a stride of {stride}");
    let needed = rows.checked_sub(1).map_or(0, |last| last * stride + columns);
    assert!(needed <= length, "{rows} rows of {columns}, {stride} apart, need {needed} elements of {length}");
}

fn offset(row: usize, stride: usize, column: usize, empty: bool) -> usize {
    if empty { 0 } else { row * stride + column }
}
