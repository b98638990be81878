use super::cases::cases;
use super::{LayerNorm, RmsNorm, RowNorm, norm_rows, reference};
use crate::Isa;
use crate::rows::{Rows, RowsMut};

fn run(isa: Isa, norm: &LayerNorm, x: &[f32], residual: &[f32]) -> Vec<f32> {
    let columns = norm.columns();
    let rows = x.len() / columns;
    let mut y = vec![f32::NAN; x.len()];
    let (x, residual) = (Rows::new(x, rows, columns, columns), Rows::new(residual, rows, columns, columns));
    let norm = RowNorm::Layer(norm.clone());
    norm_rows(isa, Some(&norm), x, Some(residual), RowsMut::new(&mut y, rows, columns, columns));
    y
}

#[test]
fn rows_are_divided_by_their_root_mean_square_and_each_of_norm_and_residual_may_be_absent() {
    for case in cases() {
        let (columns, rows) = (case.columns(), case.x.len() / case.columns());
        let rms = RowNorm::Rms(RmsNorm::new(case.weight.clone(), case.eps).unwrap());
        let layer = RowNorm::Layer(case.norm());
        let sums: Vec<f32> = case.x.iter().zip(&case.residual).map(|(x, r)| x + r).collect();
        let of_rows =
            |x: &[f32], of: &dyn Fn(&[f32]) -> Vec<f64>| -> Vec<f64> { x.chunks_exact(columns).flat_map(of).collect() };
        let rms_of = |x: &[f32]| of_rows(x, &|row| reference::rms_norm(row, &case.weight, case.eps));
        let exact = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let x = Rows::new(&case.x, rows, columns, columns);
        let residual = Rows::new(&case.residual, rows, columns, columns);
        for isa in Isa::available() {
            for (norm, residual, expected) in [
                (Some(&rms), Some(residual), rms_of(&sums)),
                (Some(&rms), None, rms_of(&case.x)),
                (Some(&layer), None, case.expected(&case.x, &vec![0.0; case.x.len()])),
                (None, Some(residual), exact(&sums)),
                (None, None, exact(&case.x)),
            ] {
                let mut y = vec![f32::NAN; case.x.len()];
                norm_rows(*isa, norm, x, residual, RowsMut::new(&mut y, rows, columns, columns));
                for (got, expected) in y.iter().zip(&expected) {
                    assert!((f64::from(*got) - expected).abs() < 1e-5, "{isa} {columns} {norm:?}: {got} {expected}");
                }
            }
        }
    }
    assert!(RmsNorm::new(vec![], 0.0).is_err());
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
