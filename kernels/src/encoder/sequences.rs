//! The plan for many sequences: each part of whole sequences goes through all steps on one thread.

use std::ops::Range;

use super::plan::Part;
use super::scratch::{Matrix, PartScratch, Scratch, StepMatrices};
use super::steps::{EncoderStep, StepMatrix};
use super::{Encoder, PackedTokens};
use crate::attention::positions::PositionTables;
use crate::linear::{Linear, LinearInput};
use crate::quantize::Quantized;
use crate::residual_norm::norm_rows;
use crate::rows::{Rows, RowsMut};
use crate::{Team, attention};

/// Rows that pass through the second half of a block at once, so that its inner matrix stays in the second-level cache.
const ROW_BLOCK: usize = 96;

pub(super) fn forward(
    encoder: &Encoder,
    team: &Team,
    scratch: &mut Scratch,
    tokens: PackedTokens<'_>,
    out: RowsMut<'_, f32>,
) {
    let Scratch { parts, free, positions, .. } = scratch;
    // All buffers are made large enough for the largest part first, so that no part allocates, whichever buffers it
    // takes.
    let all = free.get_mut().expect("nothing panics while it is locked");
    all.resize_with(all.len().max(team.threads().get().min(parts.len())), PartScratch::default);
    let most = parts.iter().map(|part| part.tokens.len()).max().unwrap_or(0);
    let longest = tokens.lengths.iter().copied().max().unwrap_or(0);
    for scratch in all.iter_mut() {
        scratch.reserve(encoder, most, longest);
    }
    let (out, free, positions) = (out.share(), &*free, &*positions);
    let lock = || free.lock().expect("nothing panics while it is locked");
    team.run(parts.len(), &|part| {
        let part = &parts[part];
        // SAFETY: each part is run once, and the tokens of different parts do not overlap.
        let out = unsafe { out.part(part.tokens.clone(), 0..encoder.hidden()) };
        let mut scratch = lock().pop().unwrap_or_default();
        PartRun::new(encoder, positions, tokens, part).forward(&mut scratch, out);
        lock().push(scratch);
    });
}

/// One part on its way through the steps.
struct PartRun<'a> {
    encoder: &'a Encoder,
    positions: &'a PositionTables,
    /// The part's own tokens.
    tokens: PackedTokens<'a>,
    count: usize,
}

impl<'a> PartRun<'a> {
    fn new(encoder: &'a Encoder, positions: &'a PositionTables, batch: PackedTokens<'a>, part: &Part) -> Self {
        let tokens = PackedTokens {
            ids: &batch.ids[part.tokens.clone()],
            segments: &batch.segments[part.tokens.clone()],
            lengths: &batch.lengths[part.sequences.clone()],
        };
        Self { encoder, positions, tokens, count: part.tokens.len() }
    }

    fn forward(&self, scratch: &mut PartScratch, out: RowsMut<'_, f32>) {
        let Encoder { steps, .. } = self.encoder;
        for run in &steps.runs {
            let at_once = if run.by_rows { ROW_BLOCK } else { self.count.max(1) };
            for first in (0..self.count).step_by(at_once) {
                let rows = first..self.count.min(first + at_once);
                for step in &steps.list[run.steps.clone()] {
                    self.step(*step, rows.clone(), scratch);
                }
            }
        }
        let x = scratch.matrices[StepMatrix::X].rows(self.count, self.encoder.hidden());
        self.encoder.finish(x, out);
    }

    /// Computes some rows of a step.
    fn step(&self, step: EncoderStep, rows: Range<usize>, scratch: &mut PartScratch) {
        let (PartScratch { matrices, work }, encoder) = (scratch, self.encoder);
        let (place, columns) = (step.to(), encoder.parts.columns_of(step));
        // Taken out, so that the others can be read.
        let mut taken = std::mem::take(&mut matrices[place]);
        let mut to = self.rows_mut(&mut taken, place, rows.clone(), columns);
        match step {
            EncoderStep::Embed { .. } => encoder.embed(self.tokens, to),
            EncoderStep::Norm { x, residual, norm, .. } => {
                let of = |matrix| self.rows(matrices, matrix, rows.clone(), columns);
                encoder.norm(norm, of(x), residual.map(of), to);
            }
            EncoderStep::Product { x, linear, activation, .. } => {
                let linear = &encoder.parts.linears[linear];
                let x = self.rows(matrices, x, rows, linear.inputs());
                let input = encoder.input(linear, x, &mut work.quantized);
                linear.forward_panels(input, 0..linear.panels(), to, activation, &mut work.weights);
            }
            EncoderStep::Attend { heads } => {
                let heads = &encoder.parts.heads[heads];
                let packed_columns = heads.packed_columns();
                let packed = self.rows(matrices, StepMatrix::QueryKeyValue, rows, packed_columns);
                for rows in rows_of(self.tokens.lengths) {
                    let packed = packed.part(rows.clone(), 0..packed_columns);
                    let out = to.part(rows, 0..columns);
                    let all = 0..heads.queries;
                    attention::attend(encoder.isa, packed, heads, self.positions, all, out, &mut work.head);
                }
            }
        }
        matrices[place] = taken;
    }

    fn rows<'m>(
        &self,
        matrices: &'m StepMatrices,
        place: StepMatrix,
        rows: Range<usize>,
        columns: usize,
    ) -> Rows<'m, f32> {
        let matrix = &matrices[place];
        if place.is_by_rows() {
            matrix.rows(rows.len(), columns)
        } else {
            matrix.rows(self.count, columns).part(rows, 0..columns)
        }
    }

    fn rows_mut<'m>(
        &self,
        matrix: &'m mut Matrix,
        place: StepMatrix,
        rows: Range<usize>,
        columns: usize,
    ) -> RowsMut<'m, f32> {
        if place.is_by_rows() {
            matrix.rows_mut(rows.len(), columns)
        } else {
            matrix.rows_mut(self.count, columns).into_rows(rows)
        }
    }
}

impl Encoder {
    /// Computes the embeddings of all sequences.
    pub(super) fn embed(&self, tokens: PackedTokens<'_>, mut to: RowsMut<'_, f32>) {
        let embeddings = &self.parts.embeddings;
        for rows in rows_of(tokens.lengths) {
            let (ids, segments) = (&tokens.ids[rows.clone()], &tokens.segments[rows.clone()]);
            embeddings.embed(self.isa, ids, segments, to.part(rows, 0..embeddings.columns()));
        }
    }

    pub(super) fn norm(
        &self,
        norm: Option<usize>,
        x: Rows<'_, f32>,
        residual: Option<Rows<'_, f32>>,
        to: RowsMut<'_, f32>,
    ) {
        norm_rows(self.isa, norm.map(|norm| &self.parts.norms[norm]), x, residual, to);
    }

    /// The input of `linear`: `values`, quantised as well if its weights need it.
    pub(super) fn input<'a>(
        &self,
        linear: &Linear,
        values: Rows<'a, f32>,
        quantized: &'a mut Quantized,
    ) -> LinearInput<'a> {
        let (rows, columns) = (values.rows(), values.columns());
        let quantized = linear.wants_quantized().then(|| {
            quantized.resize(rows, columns);
            quantized.quantize(self.isa, values, 0..rows);
            quantized.rows(0..rows, columns)
        });
        LinearInput { values, quantized }
    }

    /// Computes the output from the last block's.
    pub(super) fn finish(&self, x: Rows<'_, f32>, out: RowsMut<'_, f32>) {
        norm_rows(self.isa, self.parts.final_norm.as_ref(), x, None, out);
    }
}

impl PartScratch {
    /// Makes room for parts of at most `tokens` tokens, in sequences of at most `longest`.
    fn reserve(&mut self, encoder: &Encoder, tokens: usize, longest: usize) {
        let (parts, steps, block) = (&encoder.parts, &encoder.steps, tokens.min(ROW_BLOCK));
        let rows = |matrix: StepMatrix| if matrix.is_by_rows() { block } else { tokens };
        self.matrices.reserve(parts, steps, |matrix| Some(rows(matrix)));
        for heads in &parts.heads {
            self.work.head.reserve(encoder.isa, longest, heads);
        }
        for run in &steps.runs {
            for step in &steps.list[run.steps.clone()] {
                if let EncoderStep::Product { linear, .. } = step {
                    let linear = &parts.linears[*linear];
                    self.work.weights.grow(linear.scratch());
                    if linear.wants_quantized() {
                        self.work.quantized.resize(if run.by_rows { block } else { tokens }, linear.inputs());
                    }
                }
            }
        }
    }
}

/// The rows of each sequence, one after the other.
pub(crate) fn rows_of(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> + '_ {
    lengths.iter().scan(0, |end, length| {
        let start = *end;
        *end += length;
        Some(start..*end)
    })
}
