//! The workspace of a batch: one piece of device memory, divided anew for each batch, and pinned memory on the host for
//! the input numbers and the output rows. Both grow only when a larger batch comes.

use super::launches::DevicePlace;
use super::shape::Shape;
use crate::KernelError;
use crate::aligned::Number;
use crate::attention::cuda::TILE;
use crate::cuda::{Buffer, Element, Gpu, Matrix, Pinned, QuantizedMatrix, View};
use crate::embedding::cuda::Lookups;
use crate::encoder::{BlockSpec, EncoderSpec, HeadRows, HeadSpec, HeadStep, NormOrder, PackedTokens};

/// Alignment of each part of the device memory, in bytes.
const ALIGNMENT: usize = 256;

/// Most rows of a sparse head at a time: a row has a number for each word of the vocabulary.
pub(super) const MAX_SPARSE_ROWS: usize = 256;

/// The widths and element types of an encoder's matrices; 0 for matrices that it does not have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Widths {
    pub(super) hidden: usize,
    pub(super) embedded: usize,
    pub(super) normed: usize,
    pub(super) wide: usize,
    pub(super) gated: usize,
    pub(super) attended: usize,
    /// The widest input of a product of bytes.
    pub(super) quantized: usize,
    pub(super) head: HeadWidths,
    pub(super) element: Element,
    /// Number of queries of a tile of attention.
    pub(super) queries: usize,
}

/// The widths of a head's rows, which are f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadWidths {
    pub(super) rows: RowsOf,
    /// The widest row before each product, and 0 without products.
    pub(super) widest: usize,
    /// Number of products.
    pub(super) products: usize,
    pub(super) outputs: usize,
}

/// The rows of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowsOf {
    /// One per sequence.
    Sequences,
    /// One per token.
    Tokens,
    /// One per token, some tokens at a time; the answer is one per sequence.
    SomeTokens,
}

impl Widths {
    /// The widths of an encoder whose tiles of attention have `queries` queries.
    pub(super) fn new(spec: &EncoderSpec, element: Element, int8: bool, queries: usize) -> Self {
        let EncoderSpec { hidden, ref blocks, ref head, .. } = *spec;
        let embedded = spec.embeddings.projected_from.unwrap_or(0);
        let mut widths = Self {
            hidden,
            embedded,
            normed: 0,
            wide: 0,
            gated: 0,
            attended: 0,
            quantized: if int8 { hidden.max(embedded) } else { 0 },
            head: HeadWidths::new(head, hidden),
            element,
            queries,
        };
        for BlockSpec { order, attention, attention_norm, feed_forward, output_norm } in blocks {
            let (attended, inner) = (attention.heads * attention.head_size, feed_forward.inner);
            let packed = attended + 2 * attention.key_value_heads * attention.head_size;
            let has_norms = attention_norm.is_some() || output_norm.is_some();
            let at_least = |width: &mut usize, needed: usize| *width = needed.max(*width);
            at_least(&mut widths.normed, if *order == NormOrder::Pre && has_norms { hidden } else { 0 });
            at_least(&mut widths.wide, packed.max(if feed_forward.gated { 2 * inner } else { inner }));
            at_least(&mut widths.gated, if feed_forward.gated && !int8 { inner } else { 0 });
            at_least(&mut widths.attended, attended);
            at_least(&mut widths.quantized, if int8 { attended.max(inner) } else { 0 });
        }
        widths
    }
}

impl HeadWidths {
    fn new(head: &HeadSpec, hidden: usize) -> Self {
        let rows = match head.rows {
            HeadRows::Pooled(_) => RowsOf::Sequences,
            HeadRows::Tokens => RowsOf::Tokens,
            HeadRows::Sparse => RowsOf::SomeTokens,
        };
        let (mut width, mut widest, mut products) = (head.inputs(hidden), 0, 0);
        for step in &head.steps {
            if let HeadStep::Product { outputs, .. } = step {
                (widest, products, width) = (width.max(widest), products + 1, *outputs);
            }
        }
        Self { rows, widest, products, outputs: width }
    }

    /// Number of rows of the answer.
    pub(super) fn rows_out(&self, shape: Shape) -> usize {
        if self.rows == RowsOf::Tokens { shape.tokens } else { shape.sequences }
    }

    /// Number of rows that go through the steps at once.
    fn rows_at_once(&self, shape: Shape) -> usize {
        match self.rows {
            RowsOf::Sequences => shape.sequences,
            RowsOf::Tokens => shape.tokens,
            RowsOf::SomeTokens => shape.tokens.min(MAX_SPARSE_ROWS),
        }
    }
}

/// The shape of a batch, and the offsets of its matrices in the device memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    x: usize,
    embedded: usize,
    normed: usize,
    wide: usize,
    gated: usize,
    attended: usize,
    projected: usize,
    values: usize,
    scales: usize,
    zeros: usize,
    /// Rows of the head before its products: each product reads one and writes the other.
    head: [usize; 2],
    /// The last rows of a sparse head.
    words: usize,
    out: usize,
    bytes: usize,
}

impl Layout {
    fn new(widths: &Widths, shape: Shape) -> Self {
        let tokens = shape.tokens;
        let Widths { hidden, embedded, normed, wide, gated, attended, quantized, head, element, .. } = *widths;
        let mut bytes = 0;
        let mut part = |size: usize| {
            let start = bytes;
            bytes = (bytes + size).next_multiple_of(ALIGNMENT);
            start
        };
        part(size_of::<i32>() * shape.inputs());
        let floats = tokens * element.size();
        let bytes_of = |size: usize| if quantized > 0 { tokens * size } else { 0 };
        let at_once = head.rows_at_once(shape) * size_of::<f32>();
        let of_head = |products: usize| if head.products >= products { at_once * head.widest } else { 0 };
        let mut layout = Self {
            shape,
            x: part(floats * hidden),
            embedded: part(floats * embedded),
            normed: part(floats * normed),
            wide: part(floats * wide),
            gated: part(floats * gated),
            attended: part(floats * attended),
            projected: part(floats * hidden),
            values: part(bytes_of(QuantizedMatrix::stride(quantized))),
            scales: part(bytes_of(size_of::<f32>())),
            zeros: part(bytes_of(size_of::<i32>())),
            head: [1, 2].map(|products| part(of_head(products))),
            words: part(if head.rows == RowsOf::SomeTokens { at_once * head.outputs } else { 0 }),
            out: part(head.rows_out(shape) * head.outputs * size_of::<f32>()),
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
        grow(gpu, outputs, widths.head.rows_out(shape) * widths.head.outputs, generation)?;
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
        let count = widths.head.rows_out(layout.shape) * widths.head.outputs;
        let device = self.device.as_ref().expect("`prepare` has made it");
        let outputs = self.outputs.as_mut().expect("`prepare` has made it");
        gpu.copy_out(device.view(layout.out, count), outputs, count)
    }

    /// The rows that were copied back; valid after the stream was waited for.
    pub(super) fn outputs(&self) -> &[f32] {
        self.outputs.as_ref().expect("`prepare` has made it")
    }

    /// The matrices of the batch.
    pub(super) fn matrices<'a>(&'a self, widths: &'a Widths, layout: &'a Layout) -> Matrices<'a> {
        Matrices { device: self.device(), widths, layout }
    }

    fn device(&self) -> &Buffer {
        self.device.as_ref().expect("`prepare` has made it")
    }
}

/// A batch in device memory.
#[derive(Clone, Copy)]
pub(super) struct Matrices<'a> {
    device: &'a Buffer,
    widths: &'a Widths,
    layout: &'a Layout,
}

impl<'a> Matrices<'a> {
    pub(super) fn lookups(&self) -> Lookups<'a> {
        let tokens = self.layout.shape.tokens;
        let numbers = |part: usize| self.numbers(part * tokens, tokens);
        Lookups { ids: numbers(0), segments: numbers(1), positions: numbers(2) }
    }

    /// The first token of each sequence, and the end of the last.
    pub(super) fn starts(&self) -> View<'a, i32> {
        let Shape { tokens, sequences, .. } = self.layout.shape;
        self.numbers(3 * tokens, sequences + 1)
    }

    /// The tiles of attention.
    pub(super) fn tiles(&self) -> View<'a, i32> {
        let Shape { tokens, sequences, tiles } = self.layout.shape;
        self.numbers(3 * tokens + sequences + 1, TILE * tiles)
    }

    fn numbers(&self, from: usize, length: usize) -> View<'a, i32> {
        self.device.view(from * size_of::<i32>(), length)
    }

    /// A matrix of the encoder with so many columns.
    pub(super) fn at(&self, place: DevicePlace, columns: usize) -> Matrix<'a> {
        let (Layout { shape, .. }, Widths { hidden, .. }) = (self.layout, *self.widths);
        let (at, width) = match place {
            DevicePlace::Embedded => (self.layout.embedded, self.widths.embedded),
            DevicePlace::X => (self.layout.x, hidden),
            DevicePlace::Normed => (self.layout.normed, self.widths.normed),
            DevicePlace::Wide => (self.layout.wide, self.widths.wide),
            DevicePlace::Gated => (self.layout.gated, self.widths.gated),
            DevicePlace::Attended => (self.layout.attended, self.widths.attended),
            DevicePlace::Projected => (self.layout.projected, hidden),
        };
        assert!(columns <= width, "{place:?} is as wide as its widest step");
        self.device.matrix(at, shape.tokens, columns, self.widths.element)
    }

    /// The input of the next product of bytes.
    pub(super) fn quantized(&self, columns: usize) -> QuantizedMatrix<'a> {
        assert!(columns <= self.widths.quantized, "it is as wide as the widest input");
        let tokens = self.layout.shape.tokens;
        QuantizedMatrix {
            values: self.device.view(self.layout.values, tokens * QuantizedMatrix::stride(columns)),
            scales: self.device.view(self.layout.scales, tokens),
            zeros: self.device.view(self.layout.zeros, tokens),
            columns,
        }
    }

    /// One of the two matrices of the head, with so many rows and columns.
    pub(super) fn head(&self, which: usize, rows: usize, columns: usize) -> Matrix<'a> {
        let HeadWidths { widest, .. } = self.widths.head;
        let most = self.widths.head.rows_at_once(self.layout.shape);
        assert!(rows <= most && columns <= widest, "the head is as wide as its widest step");
        self.device.matrix(self.layout.head[which], rows, columns, Element::F32)
    }

    /// The last rows of some tokens of a sparse head.
    pub(super) fn words(&self, rows: usize) -> Matrix<'a> {
        assert!(rows <= MAX_SPARSE_ROWS, "some rows at a time");
        self.device.matrix(self.layout.words, rows, self.widths.head.outputs, Element::F32)
    }

    /// The answer.
    pub(super) fn out(&self) -> Matrix<'a> {
        let HeadWidths { outputs, .. } = self.widths.head;
        self.device.matrix(self.layout.out, self.widths.head.rows_out(self.layout.shape), outputs, Element::F32)
    }
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
    use crate::encoder::HeadFunction;
    use crate::encoder::cases::bert;
    use crate::pooling::Pooling;

    fn widths(spec: &EncoderSpec, int8: bool) -> Widths {
        Widths::new(spec, Element::F16, int8, 64)
    }

    #[test]
    fn parts_do_not_overlap_and_only_int8_has_room_for_bytes() {
        let spec = bert([64, 96, 2, 10, 10], 1);
        let shape = Shape::exact(&[5, 100], 64);
        let layout = Layout::new(&widths(&spec, true), shape);
        let Layout { x, embedded, normed, wide, gated, attended, projected, .. } = layout;
        let Layout { values, scales, zeros, head, words, out, bytes, .. } = layout;
        let starts = [0, x, embedded, normed, wide, gated, attended, projected, values, scales, zeros];
        let starts: Vec<usize> = starts.into_iter().chain(head).chain([words, out, bytes]).collect();
        let numbers = 4 * (3 * 105 + 3 + 3 * 3);
        let row = 105 * 64 * 2;
        let sizes = [numbers, row, 0, 0, 3 * row, 0, row, row, 105 * 128, 105 * 4, 105 * 4, 0, 0, 0, 2 * 64 * 4];
        assert_eq!(starts.len(), sizes.len() + 1);
        for ((start, end), size) in starts.iter().zip(&starts[1..]).zip(sizes) {
            assert!(start + size <= *end && end - (start + size) < ALIGNMENT, "{layout:?}");
        }
        let without = Layout::new(&widths(&spec, false), shape);
        assert_eq!((without.scales, without.zeros, without.head[0]), (without.values, without.values, without.values));
    }

    #[test]
    fn matrices_are_as_wide_as_the_widest_block_needs_them() {
        let mut spec = bert([64, 96, 2, 10, 10], 2);
        spec.embeddings.projected_from = Some(20);
        spec.blocks[1].order = NormOrder::Pre;
        spec.blocks[1].feed_forward.gated = true;
        (spec.blocks[1].attention.heads, spec.blocks[1].attention.head_size) = (6, 16);
        let Widths { embedded, normed, wide, gated, attended, quantized, .. } = widths(&spec, false);
        // Query and 2 heads of 16 each for key and value, or gates and ups of 96.
        assert_eq!([embedded, normed, wide, gated, attended, quantized], [20, 64, 192, 96, 96, 0]);
        let Widths { gated, quantized, .. } = widths(&spec, true);
        assert_eq!([gated, quantized], [0, 96], "int8 quantises gates and ups at once");
    }

    #[test]
    fn a_head_has_a_matrix_for_each_side_of_its_products() {
        let product = |outputs| HeadStep::Product { outputs, bias: true, function: HeadFunction::Identity };
        let of = |rows, steps: &[HeadStep]| {
            let head = HeadWidths::new(&HeadSpec { rows, steps: steps.to_vec() }, 8);
            (head.rows, head.widest, head.products, head.outputs)
        };
        let pooled = |count| HeadRows::Pooled(vec![Pooling::Mean; count]);
        assert_eq!(of(pooled(2), &[]), (RowsOf::Sequences, 0, 0, 16));
        assert_eq!(of(pooled(1), &[product(5)]), (RowsOf::Sequences, 8, 1, 5));
        assert_eq!(of(HeadRows::Tokens, &[product(20), product(3)]), (RowsOf::Tokens, 20, 2, 3));
        assert_eq!(of(HeadRows::Sparse, &[product(9)]), (RowsOf::SomeTokens, 8, 1, 9));
    }
}
