//! The launch of `bias_gelu.cu`.

use crate::KernelError;
use crate::cuda::{Activation, Gpu, LaunchShape, Matrix, View, int, mismatch};

/// Columns per block.
const COLUMNS: usize = 512;

/// `values = activation(values + bias)`
///
/// # Errors
/// [`KernelError::RowLength`] if the bias has another number of columns.
pub(crate) fn bias_activate(
    gpu: &Gpu,
    values: Matrix<'_>,
    bias: View<'_, f32>,
    activation: Activation,
) -> Result<(), KernelError> {
    if bias.len() != values.columns() {
        return Err(KernelError::RowLength { values: values.rows() * values.columns(), bias: bias.len() });
    }
    let shape = shape_of(values)?;
    let arguments =
        [values.pointer().into(), bias.pointer().into(), int(values.columns())?.into(), (activation as i32).into()];
    // SAFETY: the parameters of `bias_gelu_*`; one bias per column of the matrix.
    unsafe { gpu.launch(gpu.functions.bias_gelu.of(values.element()), shape, arguments) }
}

/// `y = activation(gates + bias)·(ups + bias)`, where each row of `values` holds gates and ups side by side, and `bias`
/// those of both.
///
/// # Errors
/// If the shapes do not fit together.
pub(crate) fn gate(
    gpu: &Gpu,
    values: Matrix<'_>,
    bias: View<'_, f32>,
    activation: Activation,
    y: Matrix<'_>,
) -> Result<(), KernelError> {
    let (rows, columns, element) = y.shape();
    if values.shape() != (rows, 2 * columns, element) || bias.len() != 2 * columns {
        return Err(mismatch(format!("a gate of {values:?} with {} biases into {y:?}", bias.len())));
    }
    let arguments = [
        values.pointer().into(),
        bias.pointer().into(),
        y.pointer().into(),
        int(columns)?.into(),
        (activation as i32).into(),
    ];
    // SAFETY: the parameters of `gate_*`; y has as many rows as the values and half their columns, which have a bias each.
    unsafe { gpu.launch(gpu.functions.gate.of(element), shape_of(y)?, arguments) }
}

/// A block for some columns of a row.
fn shape_of(y: Matrix<'_>) -> Result<LaunchShape, KernelError> {
    let grid = [int(y.rows())?.unsigned_abs(), int(y.columns().div_ceil(COLUMNS))?.unsigned_abs()];
    Ok(LaunchShape { grid, block: 128, shared: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bias_gelu::cases::{Case, LIMITS, cases};
    use crate::bias_gelu::{GeluForm, reference};
    use crate::cuda::Element;
    use crate::cuda::tests::{assert_near, each_gpu, rounded};

    fn run(gpu: &Gpu, element: Element, values: &[f32], bias: &[f32], activation: Activation) -> Vec<f32> {
        let (rows, columns) = (values.len() / bias.len(), bias.len());
        let (buffer, on_bias) = (gpu.upload_as(element, values).unwrap(), gpu.upload(bias).unwrap());
        let matrix = buffer.matrix(0, rows, columns, element);
        bias_activate(gpu, matrix, on_bias.view(0, columns), activation).unwrap();
        gpu.download(matrix, &buffer)
    }

    #[test]
    fn every_version_and_element_agrees_with_the_reference_at_every_size() {
        each_gpu(|gpu| {
            for (case, element) in cases().flat_map(|case| Element::ALL.map(|element| (case.clone(), element))) {
                let Case { values, bias, .. } = &case;
                let values = rounded(element, values);
                let sums: Vec<f32> = values.iter().enumerate().map(|(at, x)| x + bias[at % bias.len()]).collect();
                let erf = reference::bias_gelu(&values, bias, GeluForm::Erf);
                let tanh = reference::bias_gelu(&values, bias, GeluForm::Tanh);
                let each = |f: fn(f64) -> f64| sums.iter().map(|x| f(f64::from(*x))).collect::<Vec<f64>>();
                for (activation, expected) in [
                    (Activation::Identity, each(|x| x)),
                    (Activation::Relu, each(|x| x.max(0.0))),
                    (Activation::GeluErf, erf),
                    (Activation::GeluTanh, tanh),
                    (Activation::Tanh, each(f64::tanh)),
                    (Activation::Silu, each(|x| x / (1.0 + (-x).exp()))),
                    (Activation::Sigmoid, each(|x| 1.0 / (1.0 + (-x).exp()))),
                ] {
                    let got = run(gpu, element, &values, bias, activation);
                    assert_near(&got, &expected, element, &(gpu, case.rows, case.columns, activation));
                }
            }
        });
    }

    #[test]
    fn infinities_zeros_huge_and_tiny_values_have_their_limits_and_nan_stays_nan() {
        each_gpu(|gpu| {
            for activation in [Activation::GeluErf, Activation::GeluTanh] {
                for (x, limit) in LIMITS {
                    // A width whose columns are read four at once, and one whose columns are not.
                    for columns in [8, 7] {
                        let row = run(gpu, Element::F32, &vec![x; columns], &vec![0.0; columns], activation);
                        let near = |y: &f32| y.to_bits() == limit.to_bits() || (y - limit).abs() <= 1e-36;
                        assert!(row.iter().all(near), "{gpu:?} {activation:?}({x}) = {row:?}, not {limit}");
                    }
                }
                let row = run(gpu, Element::F32, &[f32::NAN; 8], &[0.0; 8], activation);
                assert!(row.iter().all(|y| y.is_nan()), "{gpu:?} {activation:?} lost a NaN: {row:?}");
            }
        });
    }

    #[test]
    fn a_gate_multiplies_what_lies_beside_it() {
        each_gpu(|gpu| {
            // Columns that are read four at once, and columns that are not; more than a block takes.
            for (columns, element) in [1, 7, 8, 516].into_iter().flat_map(|columns| Element::ALL.map(|e| (columns, e)))
            {
                let values: Vec<f32> = (0..3 * 2 * columns).map(|at| (at * 37 % 101) as f32 / 25.0 - 2.0).collect();
                let bias: Vec<f32> = (0..2 * columns).map(|at| (at % 5) as f32 / 4.0 - 0.5).collect();
                let values = rounded(element, &values);
                let expected = values.chunks_exact(2 * columns).flat_map(|row| {
                    let bias = &bias;
                    let sum = move |at: usize| f64::from(row[at] + bias[at]);
                    (0..columns).map(move |at| sum(at) / (1.0 + (-sum(at)).exp()) * sum(columns + at))
                });
                let (from, on_bias) = (gpu.upload_as(element, &values).unwrap(), gpu.upload(&bias).unwrap());
                let to = gpu.room(3, columns, element);
                let (from, y) = (from.matrix(0, 3, 2 * columns, element), to.matrix(0, 3, columns, element));
                gate(gpu, from, on_bias.view(0, 2 * columns), Activation::Silu, y).unwrap();
                assert_near(&gpu.download(y, &to), &expected.collect::<Vec<_>>(), element, &(gpu, columns));
                assert!(gate(gpu, from, on_bias.view(0, columns), Activation::Silu, y).is_err());
                assert!(gate(gpu, y, on_bias.view(0, 2 * columns), Activation::Silu, y).is_err());
            }
        });
    }

    #[test]
    fn a_bias_of_another_length_is_refused() {
        each_gpu(|gpu| {
            let (values, bias) = (gpu.upload(&[0.0_f32; 8]).unwrap(), gpu.upload(&[0.0_f32; 3]).unwrap());
            let matrix = values.matrix(0, 2, 4, Element::F32);
            let refused = bias_activate(gpu, matrix, bias.view(0, 3), Activation::Relu);
            assert_eq!(refused, Err(KernelError::RowLength { values: 8, bias: 3 }));
        });
    }
}
