use std::num::NonZeroUsize;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Scratch, attend, attention, reference};
use crate::rows::{Rows, RowsMut};
use crate::{Isa, Team};

fn numbers(seed: u64, count: usize, size: f32) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-size..size)).collect()
}

/// The columns of one part (query, key or value) and head.
fn columns(packed: &[f32], tokens: usize, heads: usize, size: usize, part: usize, head: usize) -> Vec<f32> {
    let first = (part * heads + head) * size;
    packed.chunks_exact(3 * heads * size).take(tokens).flat_map(|row| row[first..first + size].to_vec()).collect()
}

#[test]
fn every_instruction_set_agrees_with_the_reference_at_every_length_and_head_size() {
    let mut scratch = Scratch::default(); // used again with what earlier cases left in it
    for (tokens, heads, size) in [
        (1, 1, 1),
        (2, 3, 4),
        (7, 2, 32),
        (16, 2, 64),
        (33, 1, 33),
        (64, 12, 32),
        (255, 1, 8),
        (257, 2, 16),
        (520, 1, 64),
    ] {
        // Large enough that softmax picks out single keys.
        let packed = numbers(tokens as u64, tokens * 3 * heads * size, 2.0);
        for isa in Isa::available() {
            let hidden = heads * size;
            let mut out = vec![f32::NAN; tokens * hidden];
            let rows = Rows::new(&packed, tokens, 3 * hidden, 3 * hidden);
            attend(*isa, rows, heads, 0..heads, RowsMut::new(&mut out, tokens, hidden, hidden), &mut scratch);
            for head in 0..heads {
                let part = |part| columns(&packed, tokens, heads, size, part, head);
                let expected = reference::attention(&part(0), &part(1), &part(2), size);
                for token in 0..tokens {
                    for column in 0..size {
                        let (got, expected) =
                            (out[token * hidden + head * size + column], expected[token * size + column]);
                        let error = (f64::from(got) - expected).abs();
                        assert!(error < 2e-5, "{isa} {tokens}x{heads}x{size} at {token}, {column}: {got} {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn huge_scores_neither_overflow_nor_vanish() {
    // 300 keys in two blocks; the winner is in the second, 2,000 above the others.
    let tokens = 300;
    let mut packed = vec![0.0; tokens * 3 * 8];
    for (token, row) in packed.chunks_exact_mut(24).enumerate() {
        row[0] = 1000.0;
        row[8] = if token == 290 { 1.0 } else { -1.0 };
        row[16] = token as f32;
    }
    for isa in Isa::available() {
        let mut out = vec![f32::NAN; tokens * 8];
        let rows = Rows::new(&packed, tokens, 24, 24);
        attend(*isa, rows, 1, 0..1, RowsMut::new(&mut out, tokens, 8, 8), &mut Scratch::default());
        assert!(
            out.chunks_exact(8).all(|row| (row[0] - 290.0).abs() < 1e-3 && row[1] == 0.0),
            "{isa}: {:?}",
            &out[..8]
        );
    }
}

#[test]
fn a_sequence_gives_the_same_bits_alone_and_beside_others_on_any_number_of_threads() {
    let lengths = [5, 1, 40, 300, 17];
    let (heads, hidden) = (4, 64);
    let tokens: usize = lengths.iter().sum();
    let packed = numbers(3, tokens * 3 * hidden, 1.0);
    let mut alone = Vec::new();
    let mut first = 0;
    for length in lengths {
        let mut out = vec![f32::NAN; length * hidden];
        let rows = &packed[first * 3 * hidden..(first + length) * 3 * hidden];
        attention(&Team::alone(), rows, &[length], heads, &mut out).unwrap();
        alone.extend(out);
        first += length;
    }
    for threads in [1, 2, 5] {
        let team = Team::new(NonZeroUsize::new(threads).unwrap()).unwrap();
        let mut out = vec![f32::NAN; tokens * hidden];
        attention(&team, &packed, &lengths, heads, &mut out).unwrap();
        assert!(out.iter().zip(&alone).all(|(out, alone)| out.to_bits() == alone.to_bits()), "{threads} threads");
    }
}

#[test]
fn lengths_and_heads_that_do_not_fit_are_refused() {
    let team = Team::alone();
    let mut out = [0.0; 12];
    for (packed, lengths, heads) in [(36, &[2, 2][..], 2), (35, &[3], 2), (36, &[3], 0), (36, &[3], 3), (36, &[], 1)] {
        assert!(
            attention(&team, &vec![0.0; packed], lengths, heads, &mut out).is_err(),
            "{packed} {lengths:?} {heads}"
        );
    }
    attention(&team, &[0.0; 36], &[1, 2], 2, &mut out).unwrap();
    attention(&team, &[], &[], 2, &mut []).unwrap();
}
