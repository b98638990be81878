//! Attention over packed sequences of different lengths, without padding or a mask.
//!
//! For each sequence and head, `O = softmax(Q·Kᵀ)·V` (Vaswani et al., arXiv:1706.03762; the `1/√d` is already in Q).
//! Keys come in blocks that fit the caches, with the running maximum and sum of the online softmax (Milakov and
//! Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135), so memory does not grow with the square of the
//! length. A sequence's result does not depend on the others, to the bit.

#[cfg(test)]
pub(crate) mod cases;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;
mod simd;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::aligned::Aligned;
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
        attend(Isa::best(), packed, heads, 0..heads, out, &mut Scratch::default());
    });
    Ok(())
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
}

impl Scratch {
    /// Makes room for sequences of at most `tokens` and heads of `size`.
    pub(crate) fn reserve(&mut self, isa: Isa, tokens: usize, size: usize) {
        isa.run(simd::Reserve { scratch: self, tokens, size });
    }
}

/// Some heads of one sequence, whose rows are `query_key_value`; `out` has the columns of these heads.
pub(crate) fn attend(
    isa: Isa,
    query_key_value: Rows<'_, f32>,
    heads: usize,
    which: Range<usize>,
    mut out: RowsMut<'_, f32>,
    scratch: &mut Scratch,
) {
    let (rows, hidden) = (query_key_value.rows(), query_key_value.columns() / 3);
    let size = hidden / heads;
    for (index, head) in which.enumerate() {
        let part = |which: usize| {
            let first = which * hidden + head * size;
            query_key_value.part(0..rows, first..first + size)
        };
        let out = out.part(0..rows, index * size..(index + 1) * size);
        isa.run(simd::AttendHead { query: part(0), key: part(1), value: part(2), out, scratch });
    }
}
