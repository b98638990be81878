#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Embeddings, Table, TableFormat};
use crate::Isa;
use crate::residual_norm::{LayerNorm, reference::residual_norm};
use crate::rows::RowsMut;

#[test]
fn every_instruction_set_adds_three_rows_and_normalises_them() {
    let mut random = StdRng::seed_from_u64(1);
    for (columns, format, bound) in [
        (1, TableFormat::F32, 1e-5),
        (20, TableFormat::F32, 1e-5),
        (384, TableFormat::F32, 1e-5),
        (37, TableFormat::Int8, 0.05),
    ] {
        let mut values =
            |rows: usize| -> Vec<f32> { (0..rows * columns).map(|_| random.random_range(-1.0..1.0)).collect() };
        let (words, positions, segments) = (values(9), values(5), values(2));
        let norm = LayerNorm::new(vec![1.0; columns], vec![0.5; columns], 1e-3).unwrap();
        let table = |values: &[f32]| Table::new(values.to_vec(), columns, format).unwrap();
        let embeddings = Embeddings::new(table(&words), table(&positions), table(&segments), norm).unwrap();
        let (ids, which) = ([8, 0, 8, 3], [0, 1, 1, 0]);
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; 4 * columns];
            embeddings.embed(*isa, &ids, &which, RowsMut::new(&mut out, 4, columns, columns));
            for (position, out) in out.chunks_exact(columns).enumerate() {
                let row = |values: &[f32], row: u32| values[row as usize * columns..][..columns].to_vec();
                let (word, segment) = (row(&words, ids[position]), row(&segments, which[position]));
                let rest: Vec<f32> = segment.iter().zip(row(&positions, position as u32)).map(|(a, b)| a + b).collect();
                let expected = residual_norm(&word, &rest, &vec![1.0; columns], &vec![0.5; columns], 1e-3);
                for (got, expected) in out.iter().zip(expected) {
                    assert!((f64::from(*got) - expected).abs() < bound, "{isa} {columns} {format:?}: {got} {expected}");
                }
            }
        }
    }
}

#[test]
fn numbers_beyond_a_table_are_named() {
    let table = |rows: usize| Table::new(vec![1.0; rows * 2], 2, TableFormat::F32).unwrap();
    let norm = || LayerNorm::new(vec![1.0; 2], vec![0.0; 2], 1e-3).unwrap();
    let embeddings = Embeddings::new(table(5), table(3), table(2), norm()).unwrap();
    let message = |ids: &[u32], segments: &[u32], lengths: &[usize]| {
        embeddings.check(ids, segments, lengths).map_err(|error| error.to_string())
    };
    assert_eq!(message(&[4, 0], &[1, 0], &[1, 1]), Ok(()));
    assert_eq!(message(&[5], &[0], &[1]), Err("token id 5; the table has 5".to_owned()));
    assert_eq!(message(&[0], &[2], &[1]), Err("segment 2; the table has 2".to_owned()));
    assert!(message(&[0; 4], &[0; 4], &[4]).is_err() && message(&[], &[], &[0]).is_err());
    assert!(
        Embeddings::new(table(5), Table::new(vec![1.0; 3], 3, TableFormat::F32).unwrap(), table(2), norm()).is_err()
    );
    assert!(Table::new(vec![1.0; 3], 2, TableFormat::F32).is_err());
    assert!(Table::new(vec![f32::INFINITY; 2], 2, TableFormat::Int8).is_err());
}

#[test]
fn a_table_in_int8_takes_a_quarter() {
    let bytes = |format| Table::new(vec![1.0; 1000 * 384], 384, format).unwrap().bytes() as f64;
    assert!(bytes(TableFormat::Int8) < 0.26 * bytes(TableFormat::F32));
}
