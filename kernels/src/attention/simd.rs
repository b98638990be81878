//! One head of one sequence, for all instruction sets.

use std::ops::Range;

use super::Scratch;
use crate::linear::tile::times_panel;
use crate::rows::{Rows, RowsMut};
use crate::simd::math::exp;
use crate::simd::{Kernel, Simd, Times, map};

/// Keys whose scores are held at once: 24 rows of them are 24 KiB.
const KEY_BLOCK: usize = 256;
/// Queries whose scores are held at once.
const QUERY_BLOCK: usize = 24;

/// Attention of one head of one sequence. All matrices are `[tokens, head size]`.
pub(super) struct AttendHead<'a> {
    pub(super) query: Rows<'a, f32>,
    pub(super) key: Rows<'a, f32>,
    pub(super) value: Rows<'a, f32>,
    pub(super) out: RowsMut<'a, f32>,
    pub(super) scratch: &'a mut Scratch,
}

impl Kernel for AttendHead<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { query, key, value, mut out, scratch } = self;
        let (tokens, size) = (query.rows(), query.columns());
        reserve(simd, scratch, tokens, size);
        for from in (0..tokens).step_by(KEY_BLOCK) {
            let keys = from..tokens.min(from + KEY_BLOCK);
            pack_keys(simd, key, keys.clone(), &mut scratch.keys);
            pack_values(simd, value, keys.clone(), &mut scratch.values);
            for first in (0..tokens).step_by(QUERY_BLOCK) {
                let queries = first..tokens.min(first + QUERY_BLOCK);
                block(simd, query, queries, keys.clone(), out.reborrow(), scratch);
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

/// Some queries against one block of keys: scores, online softmax, and the weighted values added to `out`.
#[inline(always)]
fn block<S: Simd>(
    simd: S,
    query: Rows<'_, f32>,
    queries: Range<usize>,
    keys: Range<usize>,
    mut out: RowsMut<'_, f32>,
    scratch: &mut Scratch,
) {
    let (size, stride, rows) = (query.columns(), score_stride::<S>(keys.len()), queries.len());
    let padded = keys.len().next_multiple_of(S::PANEL);
    let nothing = [simd.splat(0.0); 2];
    let query = query.part(queries.clone(), 0..size);
    let mut scores = RowsMut::new(&mut scratch.scores, rows, padded, stride);
    for (index, panel) in scratch.keys.chunks_exact(S::PANEL * size).take(padded / S::PANEL).enumerate() {
        times_panel(simd, query, panel, nothing, scores.part(0..rows, index * S::PANEL..(index + 1) * S::PANEL));
    }
    for row in 0..rows {
        let (maximum, sum) = (&mut scratch.maxima[queries.start + row], &mut scratch.sums[queries.start + row]);
        let scores = scores.row(row);
        scores[keys.len()..].fill(f32::MIN);
        let before = *maximum;
        *maximum = largest(simd, scores, before);
        let fade = if keys.start == 0 { 0.0 } else { (before - *maximum).exp() };
        *sum = *sum * fade + exponentials(simd, scores, *maximum);
        if keys.start > 0 {
            scale(simd, out.row(queries.start + row), fade);
        }
    }
    let scores = scores.as_rows().part(0..rows, 0..keys.len());
    for (index, panel) in scratch.values.chunks_exact(S::PANEL * keys.len()).take(size.div_ceil(S::PANEL)).enumerate() {
        let columns = index * S::PANEL..size.min((index + 1) * S::PANEL);
        if keys.start == 0 {
            times_panel(simd, scores, panel, nothing, out.part(queries.clone(), columns));
            continue;
        }
        let mut mixed = RowsMut::new(&mut scratch.mixed, rows, columns.len(), size);
        times_panel(simd, scores, panel, nothing, mixed.reborrow());
        for row in 0..rows {
            let out = &mut out.row(queries.start + row)[columns.clone()];
            out.iter_mut().zip(mixed.row(row)).for_each(|(out, mixed)| *out += *mixed);
        }
    }
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
