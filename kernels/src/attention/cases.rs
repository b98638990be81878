//! The cases that every implementation is checked with.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::reference;

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) lengths: Vec<usize>,
    pub(crate) heads: usize,
    pub(crate) size: usize,
    /// `[tokens, 3, heads, size]`
    pub(crate) packed: Vec<f32>,
}

/// Allowed error in f32: scores of some tens are rounded before they become exponents.
pub(crate) const TOLERANCE: f64 = 2e-5;

/// Sequences from one token to several blocks of keys of every implementation, alone and together; heads of many sizes.
pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let shapes: [(&[usize], usize, usize); 11] = [
        (&[1], 1, 1),
        (&[2], 3, 4),
        (&[7], 2, 32),
        (&[16], 2, 64),
        (&[33], 1, 33),
        (&[64], 12, 32),
        (&[255], 1, 8),
        (&[257], 2, 16),
        (&[520], 1, 64),
        (&[5, 1, 40, 17, 65], 2, 32),
        (&[18, 66], 2, 128),
    ];
    shapes.into_iter().map(|(lengths, heads, size)| {
        let tokens: usize = lengths.iter().sum();
        // Large enough that softmax picks out single keys.
        let packed = numbers(tokens as u64, tokens * 3 * heads * size, 2.0);
        Case { lengths: lengths.to_vec(), heads, size, packed }
    })
}

/// 300 keys in several blocks. One of them, not in the first block, scores 2,000 above the others: the output is 290 in
/// the first column and 0 in the others.
pub(crate) fn huge_scores() -> Case {
    let tokens = 300;
    let mut packed = vec![0.0; tokens * 3 * 8];
    for (token, row) in packed.chunks_exact_mut(24).enumerate() {
        row[0] = 1000.0;
        row[8] = if token == 290 { 1.0 } else { -1.0 };
        row[16] = token as f32;
    }
    Case { lengths: vec![tokens], heads: 1, size: 8, packed }
}

pub(crate) fn numbers(seed: u64, count: usize, size: f32) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-size..size)).collect()
}

impl Case {
    pub(crate) fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    pub(crate) fn hidden(&self) -> usize {
        self.heads * self.size
    }

    /// The expected output for `packed`, which may be the case's numbers rounded: `[tokens, heads, size]`.
    pub(crate) fn expected(&self, packed: &[f32]) -> Vec<f64> {
        let hidden = self.hidden();
        let mut out = vec![0.0; self.tokens() * hidden];
        let mut first = 0;
        for length in &self.lengths {
            let rows = &packed[first * 3 * hidden..(first + length) * 3 * hidden];
            for head in 0..self.heads {
                let part = |part: usize| -> Vec<f32> {
                    let from = (part * self.heads + head) * self.size;
                    rows.chunks_exact(3 * hidden).flat_map(|row| row[from..from + self.size].to_vec()).collect()
                };
                let mixed = reference::attention(&part(0), &part(1), &part(2), self.size);
                for (token, mixed) in mixed.chunks_exact(self.size).enumerate() {
                    out[(first + token) * hidden + head * self.size..][..self.size].copy_from_slice(mixed);
                }
            }
            first += length;
        }
        out
    }
}
