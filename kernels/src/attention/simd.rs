//! One head of one sequence, for all instruction sets.

use std::ops::Range;

use super::Scratch;
use super::positions::HeadBias;
use crate::encoder::Mask;
use crate::linear::tile::times_panel;
use crate::linear::{Activation, ProductEnd};
use crate::rows::{Rows, RowsMut};
use crate::simd::math::exp;
use crate::simd::{Kernel, Simd, Times, map};

/// Keys whose scores are held at once: 24 rows of them are 24 KiB.
const KEY_BLOCK: usize = 256;
/// Queries whose scores are held at once.
const QUERY_BLOCK: usize = 24;
const END: ProductEnd = ProductEnd::Activation(Activation::Identity);

/// Attention of one head of one sequence. All matrices are `[tokens, head size]`.
pub(super) struct AttendHead<'a> {
    pub(super) query: Rows<'a, f32>,
    pub(super) key: Rows<'a, f32>,
    pub(super) value: Rows<'a, f32>,
    pub(super) mask: Mask,
    pub(super) bias: Option<HeadBias<'a>>,
    pub(super) out: RowsMut<'a, f32>,
    pub(super) scratch: &'a mut Scratch,
}

impl Kernel for AttendHead<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { query, key, value, mask, bias, mut out, scratch } = self;
        let (tokens, size) = (query.rows(), query.columns());
        reserve(simd, scratch, tokens, size);
        for from in (0..tokens).step_by(KEY_BLOCK) {
            let keys = from..tokens.min(from + KEY_BLOCK);
            pack_keys(simd, key, keys.clone(), &mut scratch.keys);
            pack_values(simd, value, keys.clone(), &mut scratch.values);
            for first in (0..tokens).step_by(QUERY_BLOCK) {
                let queries = first..tokens.min(first + QUERY_BLOCK);
                let seen = seen_keys(mask, &queries, tokens);
                let (from, to) = (seen.start.max(keys.start), seen.end.min(keys.end));
                if from < to {
                    let first = keys.contains(&seen.start);
                    let block = KeyBlock { packed: keys.clone(), seen: from..to, first, mask, bias };
                    attend_block(simd, query, queries, block, out.reborrow(), scratch);
                }
            }
        }
        for row in 0..tokens {
            scale(simd, out.row(row), scratch.sums[row].recip());
        }
    }
}

/// Grows the scratch memory without computing.
pub(super) struct Reserve<'a> {
    pub(super) scratch: &'a mut Scratch,
    pub(super) tokens: usize,
    pub(super) size: usize,
}

impl Kernel for Reserve<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        reserve(simd, self.scratch, self.tokens, self.size);
    }
}

#[inline(always)]
fn reserve<S: Simd>(_: S, scratch: &mut Scratch, tokens: usize, size: usize) {
    let keys = tokens.min(KEY_BLOCK);
    scratch.keys.grow(keys.next_multiple_of(S::PANEL) * size);
    scratch.values.grow(keys * size.next_multiple_of(S::PANEL));
    scratch.scores.grow(QUERY_BLOCK * score_stride::<S>(keys));
    scratch.mixed.grow(QUERY_BLOCK * size);
    scratch.maxima.clear();
    scratch.maxima.resize(tokens, f32::MIN);
    scratch.sums.clear();
    scratch.sums.resize(tokens, 0.0);
}

/// Stride of a row of scores: whole panels and one cache line more, so that rows do not fall onto the same cache sets.
#[inline(always)]
fn score_stride<S: Simd>(keys: usize) -> usize {
    keys.next_multiple_of(S::PANEL) + 16
}

/// Transposes keys into panels; a last panel that is not full is padded with 0.
#[inline(always)]
fn pack_keys<S: Simd>(_: S, key: Rows<'_, f32>, keys: Range<usize>, panels: &mut [f32]) {
    let size = key.columns();
    for (first, panel) in keys.clone().step_by(S::PANEL).zip(panels.chunks_exact_mut(S::PANEL * size)) {
        let count = S::PANEL.min(keys.end - first);
        if count < S::PANEL {
            panel.fill(0.0);
        }
        for column in 0..count {
            for (slot, value) in panel[column..].iter_mut().step_by(S::PANEL).zip(key.row(first + column)) {
                *slot = *value;
            }
        }
    }
}

/// Copies values into panels of the head's columns; a last panel that is not full is padded with 0.
#[inline(always)]
fn pack_values<S: Simd>(_: S, value: Rows<'_, f32>, keys: Range<usize>, panels: &mut [f32]) {
    let size = value.columns();
    for (first, panel) in (0..size).step_by(S::PANEL).zip(panels.chunks_exact_mut(S::PANEL * keys.len())) {
        let count = S::PANEL.min(size - first);
        for (to, row) in panel.chunks_exact_mut(S::PANEL).zip(keys.clone()) {
            to[..count].copy_from_slice(&value.row(row)[first..first + count]);
            to[count..].fill(0.0);
        }
    }
}

/// The keys that at least one of the queries sees.
#[inline(always)]
fn seen_keys(mask: Mask, queries: &Range<usize>, tokens: usize) -> Range<usize> {
    match mask {
        Mask::Full => 0..tokens,
        Mask::Causal => 0..queries.end,
        Mask::Window(most) => queries.start.saturating_sub(most)..(queries.end.saturating_add(most)).min(tokens),
    }
}

/// A block of keys, as some queries see it.
struct KeyBlock<'a> {
    /// All its keys, as they are packed.
    packed: Range<usize>,
    /// The keys that at least one of the queries sees.
    seen: Range<usize>,
    /// True if the queries have seen no key before.
    first: bool,
    mask: Mask,
    bias: Option<HeadBias<'a>>,
}

/// Some queries against one block of keys: scores, online softmax, and the weighted values added to `out`.
#[inline(always)]
fn attend_block<S: Simd>(
    simd: S,
    query: Rows<'_, f32>,
    queries: Range<usize>,
    block: KeyBlock<'_>,
    mut out: RowsMut<'_, f32>,
    scratch: &mut Scratch,
) {
    let KeyBlock { packed, seen, first, mask, bias } = block;
    // Keys are taken by whole panels.
    let from = (seen.start - packed.start) / S::PANEL * S::PANEL;
    let keys = packed.start + from..seen.end;
    let (size, stride, rows) = (query.columns(), score_stride::<S>(keys.len()), queries.len());
    let padded = keys.len().next_multiple_of(S::PANEL);
    let nothing = [simd.splat(0.0); 2];
    let query = query.part(queries.clone(), 0..size);
    let mut scores = RowsMut::new(&mut scratch.scores, rows, padded, stride);
    let panels = scratch.keys.chunks_exact(S::PANEL * size).skip(from / S::PANEL).take(padded / S::PANEL);
    for (index, panel) in panels.enumerate() {
        let columns = index * S::PANEL..(index + 1) * S::PANEL;
        times_panel(simd, query, panel, nothing, scores.part(0..rows, columns), END);
    }
    for row in 0..rows {
        let token = queries.start + row;
        let (maximum, sum) = (&mut scratch.maxima[token], &mut scratch.sums[token]);
        let scores = scores.row(row);
        if let Some(bias) = bias {
            add(simd, &mut scores[..keys.len()], bias.of(token, keys.clone()));
        }
        scores[keys.len()..].fill(f32::MIN);
        hide(mask, token, &keys, scores);
        let before = *maximum;
        *maximum = largest(simd, scores, before);
        let fade = if first { 0.0 } else { (before - *maximum).exp() };
        *sum = *sum * fade + exponentials(simd, scores, *maximum);
        if !first {
            scale(simd, out.row(token), fade);
        }
    }
    let scores = scores.as_rows().part(0..rows, 0..keys.len());
    let panels = scratch.values.chunks_exact(S::PANEL * packed.len()).take(size.div_ceil(S::PANEL));
    for (index, panel) in panels.enumerate() {
        let (columns, panel) = (index * S::PANEL..size.min((index + 1) * S::PANEL), &panel[from * S::PANEL..]);
        if first {
            times_panel(simd, scores, panel, nothing, out.part(queries.clone(), columns), END);
            continue;
        }
        let mut mixed = RowsMut::new(&mut scratch.mixed, rows, columns.len(), size);
        times_panel(simd, scores, panel, nothing, mixed.reborrow(), END);
        for row in 0..rows {
            let out = &mut out.row(queries.start + row)[columns.clone()];
            out.iter_mut().zip(mixed.row(row)).for_each(|(out, mixed)| *out += *mixed);
        }
    }
}

/// Gives keys that the query does not see the least score. A query that sees none of these keys counts them alike; the
/// first key that it does see makes them vanish.
#[inline(always)]
fn hide(mask: Mask, query: usize, keys: &Range<usize>, scores: &mut [f32]) {
    let seen = match mask {
        Mask::Full => return,
        Mask::Causal => 0..query + 1,
        Mask::Window(most) => query.saturating_sub(most)..query.saturating_add(most).saturating_add(1),
    };
    let within = |key: usize| key.clamp(keys.start, keys.end) - keys.start;
    scores[..within(seen.start)].fill(f32::MIN);
    scores[within(seen.end)..keys.len()].fill(f32::MIN);
}

/// `scores += bias`
#[inline(always)]
fn add<S: Simd>(simd: S, scores: &mut [f32], bias: &[f32]) {
    let (mut scores, mut biases) = (scores.chunks_exact_mut(S::LANES), bias.chunks_exact(S::LANES));
    for (score, bias) in (&mut scores).zip(&mut biases) {
        simd.store(simd.add(simd.load(score), simd.load(bias)), score);
    }
    let (score, bias) = (scores.into_remainder(), biases.remainder());
    simd.store_partial(simd.add(simd.load_partial(score), simd.load_partial(bias)), score);
}

/// The largest of `least` and the scores, which are whole vectors.
#[inline(always)]
fn largest<S: Simd>(simd: S, scores: &[f32], least: f32) -> f32 {
    let mut largest = simd.splat(least);
    for vector in scores.chunks_exact(S::LANES) {
        largest = simd.max(simd.load(vector), largest);
    }
    simd.max_lane(largest)
}

/// Replaces each score with `exp(score - maximum)` and returns their sum.
#[inline(always)]
fn exponentials<S: Simd>(simd: S, scores: &mut [f32], maximum: f32) -> f32 {
    let (mut sum, maximum) = (simd.splat(0.0), simd.splat(maximum));
    for vector in scores.chunks_exact_mut(S::LANES) {
        let value = exp(simd, simd.sub(simd.load(vector), maximum));
        sum = simd.add(sum, value);
        simd.store(value, vector);
    }
    simd.sum(sum)
}

#[inline(always)]
fn scale<S: Simd>(simd: S, row: &mut [f32], factor: f32) {
    map(simd, row, Times(factor));
}
