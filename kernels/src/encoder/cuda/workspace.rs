//! The workspace of a batch: one piece of device memory, divided anew for each batch, and pinned memory on the host for
//! the input numbers and the output rows. Both grow only when a larger batch comes.

use super::shape::Shape;
use crate::KernelError;
use crate::aligned::Number;
use crate::attention::cuda::TILE;
use crate::cuda::{Buffer, Element, Gpu, Matrix, Pinned, QuantizedMatrix, View};
use crate::embedding::cuda::Lookups;
use crate::encoder::PackedTokens;

/// Alignment of each part of the device memory, in bytes.
const ALIGNMENT: usize = 256;

/// The widths and element types of an encoder's matrices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Widths {
    pub(super) hidden: usize,
    pub(super) inner: usize,
    /// Outputs of the pooler; 0 if there is none.
    pub(super) pooler: usize,
    pub(super) outputs: usize,
    pub(super) element: Element,
    pub(super) int8: bool,
    /// Number of queries of a tile of attention.
    pub(super) queries: usize,
}

/// The shape of a batch, and the offsets of its matrices in the device memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    x: usize,
    /// Query, key and value; after attention, the inner matrix in the same place.
    wide: usize,
    attended: usize,
    projected: usize,
    values: usize,
    scales: usize,
    zeros: usize,
    pooled: usize,
    pooler: usize,
    out: usize,
    bytes: usize,
}

impl Layout {
    fn new(widths: &Widths, shape: Shape) -> Self {
        let Shape { tokens, sequences, .. } = shape;
        let Widths { hidden, inner, pooler, outputs, element, int8, .. } = *widths;
        let mut bytes = 0;
        let mut part = |size: usize| {
            let start = bytes;
            bytes = (bytes + size).next_multiple_of(ALIGNMENT);
            start
        };
        part(size_of::<i32>() * shape.inputs());
        let floats = tokens * element.size();
        let quantized = if int8 { tokens } else { 0 };
        let mut layout = Self {
            shape,
            x: part(floats * hidden),
            wide: part(floats * inner.max(3 * hidden)),
            attended: part(floats * hidden),
            projected: part(floats * hidden),
            values: part(quantized * QuantizedMatrix::stride(inner.max(hidden))),
            scales: part(quantized * size_of::<f32>()),
            zeros: part(quantized * size_of::<i32>()),
            pooled: part(sequences * hidden * size_of::<f32>()),
            pooler: part(sequences * pooler * size_of::<f32>()),
            out: part(sequences * outputs * size_of::<f32>()),
            bytes: 0,
        };
        layout.bytes = bytes;
        layout
    }
}

/// Memory for batches up to the largest so far.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// Counts allocations. Graphs of an earlier generation use freed memory.
    generation: u64,
    device: Option<Buffer>,
    inputs: Option<Pinned<i32>>,
    outputs: Option<Pinned<f32>>,
}

impl Workspace {
    /// Bytes on the device.
    pub(super) fn bytes(&self) -> usize {
        self.device.as_ref().map_or(0, Buffer::bytes)
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes room for a batch of this shape and writes its input numbers to pinned memory. No copy or launch may be in
    /// flight.
    pub(super) fn prepare(
        &mut self,
        gpu: &Gpu,
        widths: &Widths,
        shape: Shape,
        tokens: PackedTokens<'_>,
    ) -> Result<Layout, KernelError> {
        let layout = Layout::new(widths, shape);
        if self.bytes() < layout.bytes {
            self.generation += 1;
            // Free the old memory first: both may not fit.
            self.device = None;
            self.device = Some(gpu.allocate(layout.bytes)?);
        }
        let Self { inputs, outputs, generation, .. } = self;
        grow(gpu, outputs, shape.sequences * widths.outputs, generation)?;
        let inputs = grow(gpu, inputs, shape.inputs(), generation)?;
        shape.write(&mut inputs[..shape.inputs()], widths.queries, tokens)?;
        Ok(layout)
    }

    /// Queues the copy of the input numbers to the device.
    pub(super) fn copy_in(&self, gpu: &Gpu, layout: &Layout) -> Result<(), KernelError> {
        let count = layout.shape.inputs();
        let inputs = self.inputs.as_ref().expect("`prepare` has made it");
        gpu.copy_in(&inputs[..count], self.device().view(0, count))
    }

    /// Queues the copy of the rows back to the host.
    pub(super) fn copy_out(&mut self, gpu: &Gpu, widths: &Widths, layout: &Layout) -> Result<(), KernelError> {
        let count = layout.shape.sequences * widths.outputs;
        let device = self.device.as_ref().expect("`prepare` has made it");
        let outputs = self.outputs.as_mut().expect("`prepare` has made it");
        gpu.copy_out(device.view(layout.out, count), outputs, count)
    }

    /// The rows that were copied back; valid after the stream was waited for.
    pub(super) fn outputs(&self) -> &[f32] {
        self.outputs.as_ref().expect("`prepare` has made it")
    }

    /// The matrices of the batch.
    pub(super) fn matrices(&self, widths: &Widths, layout: &Layout) -> Matrices<'_> {
        let (device, Shape { tokens, sequences, tiles }) = (self.device(), layout.shape);
        let number = size_of::<i32>();
        let numbers = |from: usize, length: usize| device.view(from * number, length);
        let of_tokens = |at, columns| device.matrix(at, tokens, columns, widths.element);
        let of_sequences = |at, columns| device.matrix(at, sequences, columns, Element::F32);
        let quantized = |columns| QuantizedMatrix {
            values: device.view(layout.values, tokens * QuantizedMatrix::stride(columns)),
            scales: device.view(layout.scales, tokens),
            zeros: device.view(layout.zeros, tokens),
            columns,
        };
        Matrices {
            lookups: Lookups {
                ids: numbers(0, tokens),
                segments: numbers(tokens, tokens),
                positions: numbers(2 * tokens, tokens),
            },
            starts: numbers(3 * tokens, sequences + 1),
            tiles: numbers(3 * tokens + sequences + 1, TILE * tiles),
            x: of_tokens(layout.x, widths.hidden),
            query_key_value: of_tokens(layout.wide, 3 * widths.hidden),
            inner: of_tokens(layout.wide, widths.inner),
            attended: of_tokens(layout.attended, widths.hidden),
            projected: of_tokens(layout.projected, widths.hidden),
            quantized: widths.int8.then(|| quantized(widths.hidden)),
            quantized_inner: widths.int8.then(|| quantized(widths.inner)),
            pooled: of_sequences(layout.pooled, widths.hidden),
            pooler: of_sequences(layout.pooler, widths.pooler),
            out: of_sequences(layout.out, widths.outputs),
        }
    }

    fn device(&self) -> &Buffer {
        self.device.as_ref().expect("`prepare` has made it")
    }
}

/// A batch in device memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrices<'a> {
    pub(super) lookups: Lookups<'a>,
    pub(super) starts: View<'a, i32>,
    pub(super) tiles: View<'a, i32>,
    pub(super) x: Matrix<'a>,
    pub(super) query_key_value: Matrix<'a>,
    pub(super) inner: Matrix<'a>,
    pub(super) attended: Matrix<'a>,
    pub(super) projected: Matrix<'a>,
    /// The int8 input of the next product, in int8.
    pub(super) quantized: Option<QuantizedMatrix<'a>>,
    pub(super) quantized_inner: Option<QuantizedMatrix<'a>>,
    pub(super) pooled: Matrix<'a>,
    pub(super) pooler: Matrix<'a>,
    pub(super) out: Matrix<'a>,
}

fn grow<'a, T: Number>(
    gpu: &Gpu,
    memory: &'a mut Option<Pinned<T>>,
    length: usize,
    generation: &mut u64,
) -> Result<&'a mut Pinned<T>, KernelError> {
    if memory.as_ref().is_none_or(|memory| memory.len() < length) {
        *generation += 1;
        *memory = None;
        *memory = Some(gpu.pinned(length)?);
    }
    Ok(memory.as_mut().expect("made on the line above"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: Widths =
        Widths { hidden: 64, inner: 96, pooler: 0, outputs: 64, element: Element::F16, int8: true, queries: 64 };

    #[test]
    fn parts_do_not_overlap_and_only_int8_has_room_for_bytes() {
        let shape = Shape::exact(&[5, 100], WIDTHS.queries);
        let layout = Layout::new(&WIDTHS, shape);
        let Layout { x, wide, attended, projected, values, scales, zeros, pooled, pooler, out, bytes, .. } = layout;
        let starts = [0, x, wide, attended, projected, values, scales, zeros, pooled, pooler, out, bytes];
        let sizes = [
            4 * (3 * 105 + 3 + 3 * 3),
            105 * 64 * 2,
            105 * 192 * 2,
            105 * 64 * 2,
            105 * 64 * 2,
            105 * 128,
            105 * 4,
            105 * 4,
            2 * 64 * 4,
            0,
            2 * 64 * 4,
        ];
        for ((start, end), size) in starts.iter().zip(&starts[1..]).zip(sizes) {
            assert!(start + size <= *end && end - (start + size) < ALIGNMENT, "{layout:?}");
        }
        let without = Layout::new(&Widths { int8: false, ..WIDTHS }, shape);
        assert_eq!((without.scales, without.zeros, without.pooled), (without.values, without.values, without.values));
    }
}
