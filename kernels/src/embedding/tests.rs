use super::cases::{Case, IDS, SEGMENTS, cases};
use super::{Embeddings, Table, TableFormat};
use crate::Isa;
use crate::residual_norm::LayerNorm;
use crate::rows::RowsMut;

#[test]
fn every_instruction_set_adds_three_rows_and_normalises_them() {
    for case in cases() {
        let (embeddings, expected) = (case.embeddings(), case.expected(&case.tables));
        let Case { columns, format, tolerance, .. } = case;
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; IDS.len() * columns];
            embeddings.embed(*isa, &IDS, &SEGMENTS, RowsMut::new(&mut out, IDS.len(), columns, columns));
            for (got, expected) in out.iter().zip(&expected) {
                assert!((f64::from(*got) - expected).abs() < tolerance, "{isa} {columns} {format:?}: {got} {expected}");
            }
        }
    }
}

#[test]
fn numbers_beyond_a_table_are_named() {
    let table = |rows: usize| Table::new(vec![1.0; rows * 2], 2, TableFormat::F32).unwrap();
    let norm = || Some(LayerNorm::new(vec![1.0; 2], vec![0.0; 2], 1e-3).unwrap().into());
    let embeddings = Embeddings::new(table(5), Some(table(3)), Some(table(2)), norm()).unwrap();
    let message = |ids: &[u32], segments: &[u32], lengths: &[usize]| {
        embeddings.bounds().check(ids, segments, lengths).map_err(|error| error.to_string())
    };
    assert_eq!(message(&[4, 0], &[1, 0], &[1, 1]), Ok(()));
    assert_eq!(message(&[5], &[0], &[1]), Err("token id 5; the table has 5".to_owned()));
    assert_eq!(message(&[0], &[2], &[1]), Err("segment 2; the table has 2".to_owned()));
    assert!(message(&[0; 4], &[0; 4], &[4]).is_err() && message(&[], &[], &[0]).is_err());
    let wide = Table::new(vec![1.0; 3], 3, TableFormat::F32).unwrap();
    assert!(Embeddings::new(table(5), Some(wide), Some(table(2)), norm()).is_err());
    assert!(Table::new(vec![1.0; 3], 2, TableFormat::F32).is_err());
    assert!(Table::new(vec![f32::INFINITY; 2], 2, TableFormat::Int8).is_err());
}

#[test]
fn a_table_in_int8_takes_a_quarter() {
    let bytes = |format| Table::new(vec![1.0; 1000 * 384], 384, format).unwrap().bytes() as f64;
    assert!(bytes(TableFormat::Int8) < 0.26 * bytes(TableFormat::F32));
}

#[test]
fn all_but_the_words_may_be_absent() {
    let words = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let embeddings = Embeddings::new(Table::new(words, 3, TableFormat::F32).unwrap(), None, None, None).unwrap();
    for isa in Isa::available() {
        let mut out = [f32::NAN; 9];
        embeddings.embed(*isa, &[1, 0, 1], &[0; 3], RowsMut::new(&mut out, 3, 3, 3));
        assert_eq!(out.map(f32::to_bits), [4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0].map(f32::to_bits), "{isa}");
    }
    let check = |segments: &[u32], length| embeddings.bounds().check(&[1], segments, &[length]);
    assert_eq!(check(&[0], 1_000_000), Ok(()));
    assert!(check(&[1], 1).is_err() && check(&[0], 0).is_err());
}
