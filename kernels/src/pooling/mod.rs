//! One vector per sequence from the vectors of its tokens.
//!
//! The ways of pooling are those of sentence-transformers (Reimers and Gurevych, Sentence-BERT, arXiv:1908.10084); the
//! vector is optionally divided by its Euclidean length.

#[cfg(test)]
pub(crate) mod cases;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;
mod simd;
#[cfg(test)]
mod tests;

use crate::KernelError;
use crate::rows::Rows;
use crate::simd::Isa;

/// Reduction of the vectors of a sequence's tokens to one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// `Σ xᵢ / n`
    Mean,
    /// The first token's vector.
    Cls,
    /// The greatest of each column.
    Max,
    /// The last token's vector.
    Last,
    /// `Σ i·xᵢ / Σ i`, with `i` from 1 (SGPT, Muennighoff, arXiv:2202.08904).
    WeightedMean,
    /// `Σ xᵢ / √n`
    MeanSqrtLength,
}

impl Pooling {
    /// All ways, the default first.
    pub const ALL: [Self; 6] = [Self::Mean, Self::Cls, Self::Max, Self::Last, Self::WeightedMean, Self::MeanSqrtLength];
}

/// Pools each of the sequences that lie end to end in `tokens`, rows of `columns`, into a row of `out`.
///
/// # Errors
/// If a length is 0, or the lengths do not add up to the rows of `tokens` or their number to those of `out`.
pub fn pool(
    tokens: &[f32],
    lengths: &[usize],
    columns: usize,
    pooling: Pooling,
    out: &mut [f32],
) -> Result<(), KernelError> {
    let total: usize = lengths.iter().sum();
    if columns == 0 || lengths.contains(&0) || tokens.len() != total * columns || out.len() != lengths.len() * columns {
        let (sequences, tokens, out) = (lengths.len(), tokens.len(), out.len());
        let what = format!("pooling of {sequences} sequences, {total} tokens of {columns}: {tokens} elements to {out}");
        return Err(KernelError::Mismatch { what });
    }
    let all = Rows::new(tokens, total, columns, columns);
    let mut first = 0;
    for (length, out) in lengths.iter().zip(out.chunks_exact_mut(columns)) {
        Isa::best().run(simd::Pool { tokens: all.part(first..first + length, 0..columns), pooling, out });
        first += length;
    }
    Ok(())
}

/// Divides a vector by its Euclidean length; zeros stay zeros.
pub fn normalize(vector: &mut [f32]) {
    Isa::best().run(simd::Normalize(vector));
}
