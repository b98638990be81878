use std::num::NonZeroUsize;

use super::cases::{Case, TOLERANCE, cases, huge_scores, numbers};
use super::{Scratch, attend, attention};
use crate::encoder::rows_of;
use crate::rows::{Rows, RowsMut};
use crate::{Isa, Team};

#[test]
fn every_instruction_set_agrees_with_the_reference_at_every_length_and_head_size() {
    let mut scratch = Scratch::default(); // used again with what earlier cases left in it
    for case in cases() {
        let expected = case.expected(&case.packed);
        for isa in Isa::available() {
            let got = run(*isa, &case, &mut scratch);
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let Case { lengths, heads, size, .. } = &case;
                let error = (f64::from(*got) - expected).abs();
                assert!(error < TOLERANCE, "{isa} {lengths:?}x{heads}x{size} at {at}: {got} {expected}");
            }
        }
    }
}

/// Runs each sequence by itself.
fn run(isa: Isa, case: &Case, scratch: &mut Scratch) -> Vec<f32> {
    let (tokens, heads, hidden) = (case.tokens(), case.heads, case.hidden());
    let mut out = vec![f32::NAN; tokens * hidden];
    let packed = Rows::new(&case.packed, tokens, 3 * hidden, 3 * hidden);
    let mut to = RowsMut::new(&mut out, tokens, hidden, hidden);
    for rows in rows_of(&case.lengths) {
        let out = to.part(rows.clone(), 0..hidden);
        attend(isa, packed.part(rows, 0..3 * hidden), heads, 0..heads, out, scratch);
    }
    out
}

#[test]
fn huge_scores_neither_overflow_nor_vanish() {
    for isa in Isa::available() {
        let out = run(*isa, &huge_scores(), &mut Scratch::default());
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
