//! Attention over packed sequences of different lengths, without padding.
//!
//! For each sequence and head, `O = softmax(Q·Kᵀ + B)·V` (Vaswani et al., arXiv:1706.03762; the `1/√d` is already in Q),
//! with an optional bias `B` by the distance of query and key. Keys that a query does not see under its mask cost no
//! time, but for those beside the ones that its neighbours see. Queries and keys may be normalised by head and rotated
//! by their positions first; several heads of queries may share one of keys and values.
//!
//! Keys come in blocks that fit the caches, with the running maximum and sum of the online softmax (Milakov and
//! Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135), so memory does not grow with the square of the
//! length. A sequence's result does not depend on the others, to the bit.

#[cfg(test)]
pub(crate) mod cases;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod positions;
mod prepare;
pub mod reference;
mod simd;
#[cfg(test)]
mod tests;

use std::ops::Range;

use positions::PositionTables;

use crate::aligned::Aligned;
use crate::encoder::Mask;
use crate::residual_norm::RowNorm;
use crate::rows::{Rows, RowsMut};
use crate::simd::Isa;
use crate::{KernelError, Team};

/// Attention within each sequence of a batch.
///
/// `query_key_value` is `[tokens, 3, heads, head size]`, the tokens of all sequences end to end, their numbers in
/// `lengths`; `out` is `[tokens, heads, head size]`. Sequences are spread over the threads of `team`.
///
/// # Errors
/// If the lengths do not add up to the rows of both matrices, or the columns are not whole heads.
pub fn attention(
    team: &Team,
    query_key_value: &[f32],
    lengths: &[usize],
    heads: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let tokens: usize = lengths.iter().sum();
    let hidden = out.len().checked_div(tokens).unwrap_or(0);
    let fits = out.len() == tokens * hidden && query_key_value.len() == 3 * out.len();
    if !fits || heads == 0 || !hidden.is_multiple_of(heads) {
        let (packed, out) = (query_key_value.len(), out.len());
        let what = format!("attention of {heads} heads over {tokens} tokens from {packed} elements into {out}");
        return Err(KernelError::Mismatch { what });
    }
    let packed = Rows::new(query_key_value, tokens, 3 * hidden, 3 * hidden);
    let out = RowsMut::new(out, tokens, hidden, hidden).share();
    let ends: Vec<usize> =
        lengths.iter().scan(0, |end, length| Some(std::mem::replace(end, *end + length) + length)).collect();
    team.run(lengths.len(), &|sequence| {
        let rows = ends[sequence] - lengths[sequence]..ends[sequence];
        // SAFETY: each sequence is run once, and their rows do not overlap.
        let out = unsafe { out.part(rows.clone(), 0..hidden) };
        let packed = packed.part(rows, 0..3 * hidden);
        let (spec, tables) = (AttentionHeads::full(heads, hidden / heads), PositionTables::default());
        attend(Isa::best(), packed, &spec, &tables, 0..heads, out, &mut Scratch::default());
    });
    Ok(())
}

/// The heads of a block, and what their scores depend on.
#[derive(Debug, Clone)]
pub(crate) struct AttentionHeads {
    /// Number of heads of the queries.
    pub(crate) queries: usize,
    /// Number of heads of keys and values, which divides that of the queries.
    pub(crate) keys: usize,
    /// Number of elements of a head.
    pub(crate) size: usize,
    pub(crate) mask: Mask,
    /// Index of the bias in the tables.
    pub(crate) bias: Option<usize>,
    /// Index of the rotation in the tables.
    pub(crate) rotation: Option<usize>,
    /// The norms of each head's query and of each head's key.
    pub(crate) norms: Option<[RowNorm; 2]>,
}

impl AttentionHeads {
    /// Heads that see every key, without positions.
    pub(crate) fn full(heads: usize, size: usize) -> Self {
        Self { queries: heads, keys: heads, size, mask: Mask::Full, bias: None, rotation: None, norms: None }
    }

    /// Columns of query, key and value side by side.
    pub(crate) fn packed_columns(&self) -> usize {
        (self.queries + 2 * self.keys) * self.size
    }

    /// Columns of the output.
    pub(crate) fn columns(&self) -> usize {
        self.queries * self.size
    }

    /// True if queries and keys are changed after their product.
    fn prepares(&self) -> bool {
        self.rotation.is_some() || self.norms.is_some()
    }
}

/// Scratch memory for one head of one sequence.
#[derive(Default)]
pub(crate) struct Scratch {
    keys: Aligned<f32>,
    values: Aligned<f32>,
    scores: Aligned<f32>,
    mixed: Aligned<f32>,
    maxima: Vec<f32>,
    sums: Vec<f32>,
    /// Normalised and rotated queries and keys.
    query: Aligned<f32>,
    key: Aligned<f32>,
}

impl Scratch {
    /// Makes room for sequences of at most `tokens`.
    pub(crate) fn reserve(&mut self, isa: Isa, tokens: usize, heads: &AttentionHeads) {
        isa.run(simd::Reserve { scratch: self, tokens, size: heads.size });
        self.reserve_prepared(tokens, heads);
    }

    fn reserve_prepared(&mut self, tokens: usize, heads: &AttentionHeads) {
        if heads.prepares() {
            self.query.grow(tokens * prepared_stride(heads.size));
            self.key.grow(tokens * prepared_stride(heads.size));
        }
    }
}

/// Stride of a prepared row: a cache line more than its elements, so that rows do not fall onto the same cache sets.
fn prepared_stride(size: usize) -> usize {
    size.next_multiple_of(16) + 16
}

/// Some heads of one sequence, whose rows are `packed`: query, key and value of all heads side by side. `out` has the
/// columns of these heads.
pub(crate) fn attend(
    isa: Isa,
    packed: Rows<'_, f32>,
    heads: &AttentionHeads,
    tables: &PositionTables,
    which: Range<usize>,
    mut out: RowsMut<'_, f32>,
    scratch: &mut Scratch,
) {
    let (rows, size, group) = (packed.rows(), heads.size, heads.queries / heads.keys);
    scratch.reserve_prepared(rows, heads);
    let (mut query_room, mut key_room) = (std::mem::take(&mut scratch.query), std::mem::take(&mut scratch.key));
    let column = |head: usize| packed.part(0..rows, head * size..(head + 1) * size);
    let [query_norm, key_norm] = heads.norms.as_ref().map_or([None; 2], |norms| norms.each_ref().map(Some));
    let rotation = heads.rotation.map(|rotation| tables.rotation_of(rotation));
    let mut prepared_key = None;
    for (index, head) in which.enumerate() {
        let shared = head / group;
        let (mut query, mut key) = (column(head), column(heads.queries + shared));
        let value = column(heads.queries + heads.keys + shared);
        if heads.prepares() {
            let stride = prepared_stride(size);
            let to = RowsMut::new(&mut query_room, rows, size, stride);
            isa.run(prepare::PrepareHead { from: query, norm: query_norm, rotation, to });
            if prepared_key != Some(shared) {
                let to = RowsMut::new(&mut key_room, rows, size, stride);
                isa.run(prepare::PrepareHead { from: key, norm: key_norm, rotation, to });
                prepared_key = Some(shared);
            }
            query = Rows::new(&query_room, rows, size, stride);
            key = Rows::new(&key_room, rows, size, stride);
        }
        let bias = heads.bias.map(|bias| tables.head_bias(bias, head));
        let out = out.part(0..rows, index * size..(index + 1) * size);
        isa.run(simd::AttendHead { query, key, value, mask: heads.mask, bias, out, scratch });
    }
    (scratch.query, scratch.key) = (query_room, key_room);
}
