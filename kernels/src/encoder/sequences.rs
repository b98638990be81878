//! The plan for many sequences: each part of whole sequences goes through all layers on one thread.

use std::ops::Range;

use super::plan::Part;
use super::scratch::{PartScratch, Scratch};
use super::{Encoder, EncoderLayer, PackedTokens};
use crate::linear::{Activation, Linear, LinearInput};
use crate::rows::{Rows, RowsMut};
use crate::{Team, attention};

/// Rows that pass through the feed-forward half at once, so that its inner matrix stays in the second-level cache.
const ROW_BLOCK: usize = 96;

pub(super) fn forward(
    encoder: &Encoder,
    team: &Team,
    scratch: &mut Scratch,
    tokens: PackedTokens<'_>,
    out: RowsMut<'_, f32>,
) {
    let Scratch { parts, free, .. } = scratch;
    // All buffers are made large enough for the largest part first, so that no part allocates, whichever buffers it
    // takes.
    let all = free.get_mut().expect("nothing panics while it is locked");
    all.resize_with(all.len().max(team.threads().get().min(parts.len())), PartScratch::default);
    let most = parts.iter().map(|part| part.tokens.len()).max().unwrap_or(0);
    let longest = tokens.lengths.iter().copied().max().unwrap_or(0);
    for scratch in all.iter_mut() {
        scratch.reserve(encoder, most, longest);
    }
    let (out, free) = (out.share(), &*free);
    let lock = || free.lock().expect("nothing panics while it is locked");
    team.run(parts.len(), &|part| {
        let part = &parts[part];
        // SAFETY: each part is run once, and the tokens of different parts do not overlap.
        let out = unsafe { out.part(part.tokens.clone(), 0..encoder.hidden) };
        let mut scratch = lock().pop().unwrap_or_default();
        encoder.forward_part(tokens, part, &mut scratch, out);
        lock().push(scratch);
    });
}

impl Encoder {
    fn forward_part(
        &self,
        tokens: PackedTokens<'_>,
        part: &Part,
        scratch: &mut PartScratch,
        mut out: RowsMut<'_, f32>,
    ) {
        let count = part.tokens.len();
        scratch.shape(self, count);
        let lengths = &tokens.lengths[part.sequences.clone()];
        let (ids, segments) = (&tokens.ids[part.tokens.clone()], &tokens.segments[part.tokens.clone()]);
        for rows in rows_of(lengths) {
            let x = scratch.x.rows_mut(count).into_rows(rows.clone());
            self.embeddings.embed(self.isa, &ids[rows.clone()], &segments[rows], x);
        }
        for layer in &self.layers {
            self.attention(layer, lengths, scratch, count);
            for first in (0..count).step_by(ROW_BLOCK) {
                self.feed_forward(layer, first..count.min(first + ROW_BLOCK), scratch, count);
            }
        }
        let x = scratch.x.rows(count);
        for row in 0..count {
            out.row(row).copy_from_slice(x.row(row));
        }
    }

    /// Computes attention, from `x` to `attended`.
    fn attention(&self, layer: &EncoderLayer, lengths: &[usize], scratch: &mut PartScratch, count: usize) {
        let PartScratch { x, query_key_value, attended, quantized, head, weights, .. } = scratch;
        let linear = &layer.query_key_value;
        let input = self.input(linear, x.rows(count), quantized);
        let packed = query_key_value.rows_mut(count);
        linear.forward_panels(input, 0..linear.panels(), packed, Activation::Identity, weights);
        for rows in rows_of(lengths) {
            let packed = query_key_value.rows(count).part(rows.clone(), 0..3 * self.hidden);
            let attended = attended.rows_mut(count).into_rows(rows);
            attention::attend(self.isa, packed, self.heads, 0..self.heads, attended, head);
        }
    }

    /// Computes the rest of a layer for some rows, from `attended` to the next `x`.
    fn feed_forward(&self, layer: &EncoderLayer, rows: Range<usize>, scratch: &mut PartScratch, count: usize) {
        let PartScratch { x, attended, projected, middle, inner, quantized, weights, .. } = scratch;
        let block = rows.len();
        let columns = 0..self.hidden;

        let linear = &layer.attention_output;
        let input = self.input(linear, attended.rows(count).part(rows.clone(), columns.clone()), quantized);
        let all = 0..linear.panels();
        linear.forward_panels(input, all, projected.rows_mut(block), Activation::Identity, weights);
        let residual = x.rows(count).part(rows.clone(), columns.clone());
        layer.attention_norm.forward_rows(self.isa, projected.rows(block), residual, middle.rows_mut(block));

        let input = self.input(&layer.up, middle.rows(block), quantized);
        let all = 0..layer.up.panels();
        layer.up.forward_panels(input, all, inner.rows_mut(block), layer.activation, weights);
        let input = self.input(&layer.down, inner.rows(block), quantized);
        let all = 0..layer.down.panels();
        layer.down.forward_panels(input, all, projected.rows_mut(block), Activation::Identity, weights);
        let x = x.rows_mut(count).into_rows(rows);
        layer.output_norm.forward_rows(self.isa, projected.rows(block), middle.rows(block), x);
    }

    /// The input of `linear`: `values`, quantised as well if its weights need it.
    pub(super) fn input<'a>(
        &self,
        linear: &Linear,
        values: Rows<'a, f32>,
        quantized: &'a mut crate::quantize::Quantized,
    ) -> LinearInput<'a> {
        let (rows, columns) = (values.rows(), values.columns());
        let quantized = linear.wants_quantized().then(|| {
            quantized.resize(rows, columns);
            quantized.quantize(self.isa, values, 0..rows);
            quantized.rows(0..rows, columns)
        });
        LinearInput { values, quantized }
    }
}

impl PartScratch {
    /// Makes room for parts of at most `tokens` tokens, in sequences of at most `longest`.
    fn reserve(&mut self, encoder: &Encoder, tokens: usize, longest: usize) {
        self.shape(encoder, tokens);
        self.head.reserve(encoder.isa, longest, encoder.hidden / encoder.heads);
        for layer in &encoder.layers {
            for linear in [&layer.query_key_value, &layer.attention_output, &layer.up, &layer.down] {
                self.weights.grow(linear.scratch());
                if linear.wants_quantized() {
                    let rows = if linear.inputs() == encoder.hidden { tokens } else { tokens.min(ROW_BLOCK) };
                    self.quantized.resize(rows, linear.inputs());
                }
            }
        }
    }

    /// Shapes the matrices for a part of `tokens` tokens.
    fn shape(&mut self, encoder: &Encoder, tokens: usize) {
        let (hidden, inner, block) = (encoder.hidden, encoder.inner, tokens.min(ROW_BLOCK));
        self.x.resize(tokens, hidden);
        self.query_key_value.resize(tokens, 3 * hidden);
        self.attended.resize(tokens, hidden);
        self.projected.resize(block, hidden);
        self.middle.resize(block, hidden);
        self.inner.resize(block, inner);
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
