//! Tables of what attention adds to scores by distance, and of the angles that rotate queries and keys.
//!
//! The tables of a batch reach to its longest sequence, and grow with it. An entry depends on its position alone, so
//! that a score does not depend on the other sequences.

use crate::aligned::Aligned;
use crate::encoder::{RelativeBias, Rotary, alibi_slope};

/// A sum of biases that scores get by the distance of query and key, the same in all blocks that have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DistanceBias {
    /// Number of heads.
    pub(crate) heads: usize,
    /// True for the learned bias of the encoder.
    pub(crate) relative: bool,
    /// True for ALiBi.
    pub(crate) alibi: bool,
}

/// Rotations of heads of one size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HeadRotation {
    pub(crate) rotary: Rotary,
    pub(crate) head_size: usize,
}

/// The kinds of tables that an encoder needs, each once.
#[derive(Debug, Default)]
pub(crate) struct PositionKinds {
    pub(crate) biases: Vec<DistanceBias>,
    pub(crate) rotations: Vec<HeadRotation>,
    /// The learned bias, `[buckets, heads]`.
    pub(crate) relative: Option<(RelativeBias, Vec<f32>)>,
}

impl PositionKinds {
    /// The index of a kind in the list, added if it is new.
    pub(crate) fn index_of<T: PartialEq>(kinds: &mut Vec<T>, kind: T) -> usize {
        kinds.iter().position(|other| *other == kind).unwrap_or_else(|| {
            kinds.push(kind);
            kinds.len() - 1
        })
    }
}

/// The tables for sequences of at most `tokens` tokens.
#[derive(Default)]
pub(crate) struct PositionTables {
    tokens: usize,
    /// For each bias `[heads, 2·tokens - 1]`: the distance 0 is in the middle of a row, keys after the query follow.
    biases: Vec<Aligned<f32>>,
    /// For each rotation `[tokens, head size]`: the cosines of half the elements, then the sines.
    rotations: Vec<Aligned<f32>>,
}

/// The biases of one head by distance.
#[derive(Clone, Copy)]
pub(super) struct HeadBias<'a> {
    by_distance: &'a [f32],
}

impl<'a> HeadBias<'a> {
    /// The biases of a query's scores with `keys`.
    #[inline(always)]
    pub(super) fn of(self, query: usize, keys: std::ops::Range<usize>) -> &'a [f32] {
        let middle = self.by_distance.len() / 2;
        &self.by_distance[middle + keys.start - query..middle + keys.end - query]
    }
}

impl PositionTables {
    /// Makes the tables reach to sequences of `tokens`; nothing happens if they do.
    pub(crate) fn reach(&mut self, kinds: &PositionKinds, tokens: usize) {
        if tokens <= self.tokens || (kinds.biases.is_empty() && kinds.rotations.is_empty()) {
            return;
        }
        self.tokens = tokens.next_power_of_two();
        self.biases = kinds.biases.iter().map(|bias| self.bias(*bias, kinds)).collect();
        self.rotations = kinds.rotations.iter().map(|rotation| self.rotation(*rotation)).collect();
    }

    /// For each bias `[heads, 2·tokens - 1]`: the distance 0 is in the middle of a row, keys after the query follow.
    #[cfg(feature = "cuda")]
    pub(crate) fn biases(&self) -> &[Aligned<f32>] {
        &self.biases
    }

    /// For each rotation `[tokens, head size]`: the cosines of half the elements, then the sines.
    #[cfg(feature = "cuda")]
    pub(crate) fn rotations(&self) -> &[Aligned<f32>] {
        &self.rotations
    }

    /// Number of tokens that the tables reach to.
    #[cfg(feature = "cuda")]
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(super) fn head_bias(&self, bias: usize, head: usize) -> HeadBias<'_> {
        let row = 2 * self.tokens - 1;
        HeadBias { by_distance: &self.biases[bias][head * row..(head + 1) * row] }
    }

    pub(super) fn rotation_of(&self, rotation: usize) -> &[f32] {
        &self.rotations[rotation]
    }

    fn bias(&self, bias: DistanceBias, kinds: &PositionKinds) -> Aligned<f32> {
        let row = 2 * self.tokens - 1;
        let mut table = Aligned::zeros(bias.heads * row);
        for (head, row) in table.chunks_exact_mut(row).enumerate() {
            let slope = if bias.alibi { alibi_slope(head, bias.heads) } else { 0.0 };
            for (at, value) in row.iter_mut().enumerate() {
                let distance = at.cast_signed() - (self.tokens - 1).cast_signed();
                *value = -slope * distance.unsigned_abs() as f32;
                if let (true, Some((relative, learned))) = (bias.relative, &kinds.relative) {
                    *value += learned[relative.bucket(distance) * bias.heads + head];
                }
            }
        }
        table
    }

    /// Angles are computed in f64, so that far positions keep their precision.
    fn rotation(&self, rotation: HeadRotation) -> Aligned<f32> {
        let HeadRotation { rotary, head_size: size } = rotation;
        let mut table = Aligned::zeros(self.tokens * size);
        for (position, row) in table.chunks_exact_mut(size).enumerate() {
            let (cosines, sines) = row.split_at_mut(size / 2);
            for (at, (cosine, sine)) in cosines.iter_mut().zip(sines).enumerate() {
                let (exact_sine, exact_cosine) = rotary.angle(position, at, size).sin_cos();
                #[expect(clippy::cast_possible_truncation, reason = "a table in f32")]
                {
                    (*cosine, *sine) = (exact_cosine as f32, exact_sine as f32);
                }
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_same_entries_for_longer_sequences() {
        let relative = RelativeBias { buckets: 8, max_distance: 20 };
        let learned = (0..16).map(|at| at as f32).collect();
        let kinds = PositionKinds {
            biases: vec![DistanceBias { heads: 2, relative: true, alibi: true }],
            rotations: vec![HeadRotation { rotary: Rotary { base: 10_000.0, divisor: 1.0 }, head_size: 6 }],
            relative: Some((relative, learned)),
        };
        let [mut short, mut long] = [(); 2].map(|()| PositionTables::default());
        short.reach(&kinds, 5);
        long.reach(&kinds, 100);
        for (head, query) in [0, 1].into_iter().flat_map(|head| (0..5).map(move |query| (head, query))) {
            assert_eq!(short.head_bias(0, head).of(query, 0..5), long.head_bias(0, head).of(query, 0..5));
        }
        assert_eq!(short.rotation_of(0)[..5 * 6], long.rotation_of(0)[..5 * 6]);
        // One key before the query, the query itself, one key after it; head 1 has the slope 1/256.
        assert_eq!(short.head_bias(0, 1).of(1, 0..3), [3.0 - 1.0 / 256.0, 1.0, 11.0 - 1.0 / 256.0]);
    }
}
