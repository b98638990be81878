use super::cases::{Case, cases};
use super::{Pooling, normalize, pool, reference, simd};
use crate::Isa;
use crate::encoder::rows_of;
use crate::rows::Rows;

#[test]
fn every_instruction_set_agrees_with_the_reference() {
    for Case { columns, lengths, tokens, pooling } in cases() {
        let rows = rows_of(&lengths);
        for (rows, isa) in rows.flat_map(|rows| Isa::available().iter().map(move |isa| (rows.clone(), isa))) {
            let values = &tokens[rows.start * columns..rows.end * columns];
            let expected = reference::pool(values, columns, pooling);
            let mut out = vec![f32::NAN; columns];
            isa.run(simd::Pool { tokens: Rows::new(values, rows.len(), columns, columns), pooling, out: &mut out });
            let near = out.iter().zip(&expected).all(|(got, expected)| (f64::from(*got) - expected).abs() < 2e-6);
            assert!(near, "{isa} {pooling:?} {rows:?}x{columns}");

            isa.run(simd::Normalize(&mut out));
            let length = out.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            assert!((length - 1.0).abs() < 1e-6, "{isa} {columns}: {length}");
        }
    }
}

#[test]
fn each_sequence_is_pooled_by_itself() {
    let tokens = [1.0, 10.0, 3.0, 30.0, 7.0, 70.0];
    let mut out = [0.0; 4];
    pool(&tokens, &[2, 1], 2, Pooling::Mean, &mut out).unwrap();
    assert!(out.iter().zip([2.0, 20.0, 7.0, 70.0]).all(|(got, expected)| (got - expected).abs() < 1e-6), "{out:?}");
    pool(&tokens, &[2, 1], 2, Pooling::Cls, &mut out).unwrap();
    assert_eq!(out.map(f32::to_bits), [1.0, 10.0, 7.0, 70.0].map(f32::to_bits));
    for lengths in [&[2][..], &[2, 1, 0], &[3, 0], &[2, 2]] {
        assert!(pool(&tokens, lengths, 2, Pooling::Mean, &mut out).is_err(), "{lengths:?}");
    }
}

#[test]
fn zeros_stay_zeros() {
    let mut zeros = [0.0; 20];
    normalize(&mut zeros);
    assert_eq!(zeros.map(f32::to_bits), [0; 20]);
}
