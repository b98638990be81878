use super::cases::cases;
use super::{LayerNorm, reference};
use crate::Isa;
use crate::rows::{Rows, RowsMut};

fn run(isa: Isa, norm: &LayerNorm, x: &[f32], residual: &[f32]) -> Vec<f32> {
    let columns = norm.columns();
    let rows = x.len() / columns;
    let mut y = vec![f32::NAN; x.len()];
    let (x, residual) = (Rows::new(x, rows, columns, columns), Rows::new(residual, rows, columns, columns));
    norm.forward_rows(isa, x, residual, RowsMut::new(&mut y, rows, columns, columns));
    y
}

#[test]
fn every_instruction_set_agrees_with_the_reference_at_every_width() {
    for case in cases() {
        let (norm, expected) = (case.norm(), case.expected(&case.x, &case.residual));
        for isa in Isa::available() {
            let got = run(*isa, &norm, &case.x, &case.residual);
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let columns = case.columns();
                assert!((f64::from(*got) - expected).abs() < 1e-5, "{isa} {columns} at {at}: {got} for {expected}");
            }
        }
    }
}

#[test]
fn a_row_that_is_nearly_constant_and_far_from_zero_keeps_its_differences() {
    let x: Vec<f32> = (0..64).map(|at| 1000.0 + (at % 2) as f32 * 1e-3).collect();
    let norm = LayerNorm::new(vec![1.0; 64], vec![0.0; 64], 1e-12).unwrap();
    let expected = reference::residual_norm(&x, &[0.0; 64], &[1.0; 64], &[0.0; 64], 1e-12);
    for isa in Isa::available() {
        for (got, expected) in run(*isa, &norm, &x, &[0.0; 64]).iter().zip(&expected) {
            assert!((f64::from(*got) - expected).abs() < 0.02, "{isa}: {got} for {expected}");
        }
    }
}

#[test]
fn the_public_function_normalises_in_place_and_refuses_what_does_not_fit() {
    let norm = LayerNorm::new(vec![2.0; 2], vec![1.0; 2], 0.0).unwrap();
    let mut x = [1.0, 2.0, 5.0, 5.0];
    norm.forward(&mut x, &[0.0, 1.0, 2.0, 0.0]).unwrap();
    let expected = [-1.0, 3.0, 3.0, -1.0];
    assert!(x.iter().zip(expected).all(|(x, expected)| (x - expected).abs() < 1e-6), "{x:?}");
    assert!(norm.forward(&mut x[..3], &[0.0; 3]).is_err());
    assert!(norm.forward(&mut x, &[0.0; 2]).is_err());
    assert!(LayerNorm::new(vec![1.0], vec![], 0.0).is_err());
    assert!(LayerNorm::new(vec![], vec![], 0.0).is_err());
}
