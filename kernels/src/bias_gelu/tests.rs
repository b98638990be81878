use candle_core::{Device, Tensor};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::cases::{Case, LIMITS, cases};
use super::{GeluForm, bias_gelu, bias_gelu_tensor, reference, simd};
use crate::{Isa, KernelError};

const FORMS: [GeluForm; 2] = [GeluForm::Erf, GeluForm::Tanh];
/// Allowed error as a part of the larger of 1 and |x|; the module's documentation states it.
const TOLERANCE: f64 = 1.5e-7;

/// Runs the kernel on one instruction set.
fn run(isa: Isa, values: &mut [f32], bias: &[f32], form: GeluForm) {
    isa.run(simd::BiasGelu { values, bias, form });
}

fn relative_error(got: f32, expected: f64, x: f32) -> f64 {
    (f64::from(got) - expected).abs() / f64::from(x.abs()).max(1.0)
}

#[test]
fn every_implementation_agrees_with_the_reference_at_every_size() {
    for Case { rows, columns, values, bias } in cases() {
        for (form, isa) in FORMS.into_iter().flat_map(|form| Isa::available().iter().map(move |isa| (form, isa))) {
            let expected = reference::bias_gelu(&values, &bias, form);
            let mut got = values.clone();
            run(*isa, &mut got, &bias, form);
            for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
                let error = relative_error(*got, *expected, values[at] + bias[at % columns]);
                assert!(error <= TOLERANCE, "{isa} {form:?} {rows}x{columns} at {at}: {got} for {expected}");
            }
        }
    }
}

#[test]
fn the_error_stays_within_the_documented_bound_on_a_dense_grid() {
    let grid: Vec<f32> = (-2_000_000_i32..=2_000_000).map(|step| step as f32 * 1e-5).collect();
    for form in FORMS {
        for isa in Isa::available() {
            let mut got = grid.clone();
            run(*isa, &mut got, &[0.0], form);
            let (worst, at) = grid
                .iter()
                .zip(&got)
                .map(|(x, y)| (relative_error(*y, reference::gelu(f64::from(*x), form), *x), *x))
                .fold((0.0, 0.0), |worst, next| if next.0 > worst.0 { next } else { worst });
            println!("{isa} {form:?}: largest error {worst:.2e} at {at}");
            assert!(worst <= TOLERANCE, "{isa} {form:?}: error {worst:.2e} at {at}");
        }
    }
}

#[test]
fn infinities_zeros_huge_and_tiny_values_have_their_limits_and_nan_stays_nan() {
    for form in FORMS {
        for isa in Isa::available() {
            for (x, limit) in LIMITS {
                // In every lane of a vector and in the rest after it.
                let mut row = vec![x; 19];
                run(*isa, &mut row, &[0.0; 19], form);
                // Infinities are compared by their bits: their difference is NaN.
                let near = |y: f32| y.to_bits() == limit.to_bits() || (y - limit).abs() <= 1e-36;
                assert!(row.iter().all(|y| near(*y)), "{isa} {form:?} gelu({x}) = {row:?}, not {limit}");
            }
            let mut row = vec![f32::NAN; 19];
            run(*isa, &mut row, &[0.0; 19], form);
            assert!(row.iter().all(|y| y.is_nan()), "{isa} {form:?} lost a NaN: {row:?}");
        }
    }
}

#[test]
fn an_element_gives_the_same_bits_at_every_position() {
    let mut random = StdRng::seed_from_u64(2);
    let values: Vec<f32> = (0..64).map(|_| random.random_range(-6.0..6.0)).collect();
    for form in FORMS {
        for isa in Isa::available() {
            let mut whole = values.clone();
            run(*isa, &mut whole, &[0.25; 64], form);
            for (at, x) in values.iter().enumerate() {
                let mut alone = [*x];
                run(*isa, &mut alone, &[0.25], form);
                assert_eq!(alone[0].to_bits(), whole[at].to_bits(), "{isa} {form:?} at {at}");
            }
        }
    }
}

#[test]
fn values_that_are_not_whole_rows_are_refused_and_left_alone() {
    let mut values = [1.0; 5];
    let refused = bias_gelu(&mut values, &[0.0; 2], GeluForm::Erf);
    assert_eq!(refused, Err(KernelError::RowLength { values: 5, bias: 2 }));
    assert_eq!(bias_gelu(&mut values, &[], GeluForm::Erf), Err(KernelError::RowLength { values: 5, bias: 0 }));
    assert_eq!(values.map(f32::to_bits), [1.0_f32.to_bits(); 5]);
    assert_eq!(bias_gelu(&mut [], &[], GeluForm::Tanh), Ok(()));
    assert_eq!(bias_gelu(&mut [], &[1.0], GeluForm::Tanh), Ok(()));
}

#[test]
fn a_tensor_gives_the_same_through_the_kernel_and_through_candle() {
    let device = Device::Cpu;
    let values = Tensor::randn(0.0_f32, 2.0, (3, 5, 33), &device).unwrap();
    let bias = Tensor::randn(0.0_f32, 1.0, 33, &device).unwrap();
    for form in FORMS {
        let sum = values.broadcast_add(&bias).unwrap();
        let expected = if form == GeluForm::Erf { sum.gelu_erf() } else { sum.gelu() }.unwrap();
        // In place; through a view that is not contiguous; in another dtype.
        let in_place = bias_gelu_tensor(values.copy().unwrap(), &bias, form).unwrap();
        let strided = bias_gelu_tensor(values.transpose(0, 1).unwrap(), &bias, form).unwrap().transpose(0, 1).unwrap();
        let double = bias_gelu_tensor(
            values.to_dtype(candle_core::DType::F64).unwrap(),
            &bias.to_dtype(candle_core::DType::F64).unwrap(),
            form,
        );
        let double = double.unwrap().to_dtype(candle_core::DType::F32).unwrap();
        for got in [in_place, strided, double] {
            let gap = (got - &expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(gap < 2e-6, "{form:?}: {gap}");
        }
    }
}

#[test]
fn a_view_into_a_larger_tensor_changes_only_its_own_part() {
    let whole = Tensor::ones((4, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
    let bias = Tensor::zeros(8, candle_core::DType::F32, &Device::Cpu).unwrap();
    bias_gelu_tensor(whole.narrow(0, 1, 2).unwrap(), &bias, GeluForm::Erf).unwrap();
    let rows = whole.to_vec2::<f32>().unwrap();
    assert_eq!((rows[0][0], rows[3][7]), (1.0, 1.0));
    assert!((rows[1][0] - 0.841_345).abs() < 1e-6 && (rows[2][7] - 0.841_345).abs() < 1e-6);
}

#[test]
fn a_bias_of_another_shape_is_refused() {
    let values = Tensor::zeros((2, 6), candle_core::DType::F32, &Device::Cpu).unwrap();
    for shape in [&[3][..], &[1], &[1, 6], &[7]] {
        let bias = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        let refused = bias_gelu_tensor(values.clone(), &bias, GeluForm::Erf).unwrap_err();
        assert!(refused.to_string().contains("does not fit"), "{refused}");
    }
}
