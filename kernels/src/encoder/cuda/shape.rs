//! The shape of a batch on the device: its numbers of tokens, sequences and tiles of attention, and the numbers that
//! describe it to the device.
//!
//! Without graphs, a batch has its exact shape. With graphs, it is padded to a bucket: the added tokens are a sequence
//! of their own, which reads nothing of the others, and the added sequences and tiles are empty.

use crate::KernelError;
use crate::attention::cuda::{TILE, tiles};
use crate::cuda::int;
use crate::encoder::PackedTokens;

/// Tokens of the smallest bucket.
const MIN_TOKENS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) tokens: usize,
    pub(super) sequences: usize,
    pub(super) tiles: usize,
}

impl Shape {
    pub(super) fn exact(lengths: &[usize], queries: usize) -> Self {
        Self { tokens: lengths.iter().sum(), sequences: lengths.len(), tiles: tiles(lengths, queries).count() }
    }

    /// The bucket of a batch: tokens rounded up to a power of two or one and a half times one, sequences to a power of
    /// two.
    pub(super) fn bucket(lengths: &[usize], queries: usize) -> Self {
        let count = lengths.iter().sum::<usize>().max(MIN_TOKENS);
        let power = count.next_power_of_two();
        let tokens = if count <= power / 4 * 3 { power / 4 * 3 } else { power };
        // One more sequence, for the added tokens.
        let sequences = (lengths.len() + 1).next_power_of_two();
        // Each sequence has at most one incomplete tile.
        Self { tokens, sequences, tiles: tokens / queries + sequences }
    }

    /// Count of the input numbers: ids, segments and positions of the tokens, starts of the sequences, tiles.
    pub(super) fn inputs(&self) -> usize {
        3 * self.tokens + self.sequences + 1 + TILE * self.tiles
    }

    /// Writes the input numbers of a batch that has this shape or fits into it. Ids and segments were checked against
    /// their tables before.
    pub(super) fn write(&self, to: &mut [i32], queries: usize, batch: PackedTokens<'_>) -> Result<(), KernelError> {
        let (ids_to, rest) = to.split_at_mut(self.tokens);
        let (segments_to, rest) = rest.split_at_mut(self.tokens);
        let (positions_to, rest) = rest.split_at_mut(self.tokens);
        let (starts_to, tiles_to) = rest.split_at_mut(self.sequences + 1);

        let missing = self.tokens - batch.ids.len();
        let lengths = || batch.lengths.iter().copied().chain((missing > 0).then_some(missing));
        let starts = lengths().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        let all: Vec<usize> = lengths().collect();
        write(ids_to, batch.ids.iter().map(|id| *id as usize), 0)?;
        write(segments_to, batch.segments.iter().map(|segment| *segment as usize), 0)?;
        write(positions_to, batch.lengths.iter().flat_map(|length| 0..*length), 0)?;
        write(starts_to, std::iter::once(0).chain(starts), self.tokens)?;
        write(tiles_to, tiles(&all, queries).flatten(), 0)
    }
}

/// Writes the numbers, and `rest` into the elements after them.
fn write(to: &mut [i32], numbers: impl Iterator<Item = usize>, rest: usize) -> Result<(), KernelError> {
    let mut to = to.iter_mut();
    for number in numbers {
        *to.next().expect("a batch fits into its shape") = int(number)?;
    }
    let rest = int(rest)?;
    to.for_each(|to| *to = rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: PackedTokens<'_> = PackedTokens { ids: &[7, 8, 9], segments: &[0, 1, 0], lengths: &[2, 1] };

    #[test]
    fn the_numbers_of_a_batch_go_in_together() {
        let shape = Shape::exact(BATCH.lengths, 64);
        let mut numbers = [-1; 18];
        assert_eq!(shape.inputs(), numbers.len());
        shape.write(&mut numbers, 64, BATCH).unwrap();
        assert_eq!(numbers, [7, 8, 9, 0, 1, 0, 0, 1, 0, 0, 2, 3, 0, 2, 0, 2, 1, 0]);
    }

    #[test]
    fn what_a_bucket_has_beyond_a_batch_is_a_sequence_and_nothing() {
        let shape = Shape { tokens: 6, sequences: 4, tiles: 5 };
        let mut numbers = vec![-1; shape.inputs()];
        shape.write(&mut numbers, 64, BATCH).unwrap();
        let (tokens, rest) = numbers.split_at(18);
        assert_eq!(tokens, [7, 8, 9, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        let (starts, tiles) = rest.split_at(5);
        assert_eq!(starts, [0, 2, 3, 6, 6]);
        assert_eq!(tiles, [0, 2, 0, 2, 1, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn every_batch_fits_into_its_bucket_and_fills_two_thirds_of_its_tokens() {
        for queries in [16, 64] {
            for lengths in [&[1][..], &[16], &[17], &[24, 1], &[33; 7], &[64, 64], &[1; 31], &[512; 32], &[65, 129, 3]]
            {
                let (exact, bucket) = (Shape::exact(lengths, queries), Shape::bucket(lengths, queries));
                let missing = bucket.tokens - exact.tokens;
                let all: Vec<usize> = lengths.iter().copied().chain((missing > 0).then_some(missing)).collect();
                let padded = Shape::exact(&all, queries);
                assert_eq!(padded.tokens, bucket.tokens);
                assert!(padded.sequences <= bucket.sequences && padded.tiles <= bucket.tiles, "{lengths:?} {bucket:?}");
                assert!(3 * exact.tokens.max(MIN_TOKENS) > 2 * bucket.tokens, "{lengths:?} {bucket:?}");
            }
        }
    }
}
