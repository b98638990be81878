//! The launch of `quantize.cu`.

use crate::KernelError;
use crate::cuda::{Activation, Gpu, LaunchShape, Matrix, QuantizedMatrix, int, mismatch};

/// Quantises each row of `x` to bytes with a scale and a zero point. With a `gate`, each row of `x` holds gates and ups side
/// by side, and `gate(gates)·ups` is quantised.
///
/// # Errors
/// If `to` has other rows or columns.
pub(crate) fn quantize(
    gpu: &Gpu,
    x: Matrix<'_>,
    gate: Option<Activation>,
    to: QuantizedMatrix<'_>,
) -> Result<(), KernelError> {
    let (rows, columns, each) = (x.rows(), to.columns, if gate.is_some() { 2 } else { 1 });
    if !to.fits() || (to.rows(), each * columns) != (rows, x.columns()) {
        return Err(mismatch(format!("{x:?} with gate {gate:?} into quantised rows {to:?}")));
    }
    let arguments = [
        x.pointer().into(),
        to.values.pointer().into(),
        to.scales.pointer().into(),
        to.zeros.pointer().into(),
        int(QuantizedMatrix::stride(columns))?.into(),
        int(columns)?.into(),
        gate.map_or(-1, |gate| gate as i32).into(),
    ];
    let shape = LaunchShape::row_by_row(rows, columns)?;
    // SAFETY: the parameters of `quantize_*`; both sides hold the same rows; a row of f32 is in shared memory.
    unsafe { gpu.launch(gpu.functions.quantize.of(x.element()), shape, arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Element;
    use crate::cuda::tests::{QuantizedRoom, each_gpu, rounded};
    use crate::quantize::cases::{Case, cases};

    #[test]
    fn every_version_and_element_gives_the_bytes_of_the_reference() {
        each_gpu(|gpu| {
            for (case, element) in cases().flat_map(|case| Element::ALL.map(|element| (case.clone(), element))) {
                let Case { columns, x } = case;
                if element == Element::F16 && x.iter().any(|x| x.abs() > 65504.0) {
                    assert!(matches!(gpu.upload_as(element, &x), Err(KernelError::TooLarge { at: 0, .. })));
                    continue;
                }
                let (x, rows) = (rounded(element, &x), x.len() / columns);
                let (on_x, quantized) = (gpu.upload_as(element, &x).unwrap(), QuantizedRoom::new(gpu, rows, columns));
                quantize(gpu, on_x.matrix(0, rows, columns, element), None, quantized.matrix()).unwrap();
                quantized.assert_holds(gpu, &x, true, &(gpu, columns, element));
                assert!(quantize(gpu, on_x.matrix(0, 1, columns - 1, element), None, quantized.matrix()).is_err());
            }
        });
    }

    #[test]
    fn gated_rows_are_multiplied_first() {
        each_gpu(|gpu| {
            for columns in [1, 8, 100, 300] {
                let x: Vec<f32> = (0..2 * 2 * columns).map(|at| (at * 37 % 101) as f32 / 25.0 - 2.0).collect();
                let gated = x.chunks_exact(2 * columns).flat_map(|row| {
                    (0..columns).map(|at| if row[at] > 0.0 { row[at] * row[columns + at] } else { 0.0 })
                });
                let gated: Vec<f32> = gated.collect();
                let (on_x, quantized) = (gpu.upload(&x).unwrap(), QuantizedRoom::new(gpu, 2, columns));
                let matrix = on_x.matrix(0, 2, 2 * columns, Element::F32);
                quantize(gpu, matrix, Some(Activation::Relu), quantized.matrix()).unwrap();
                quantized.assert_holds(gpu, &gated, true, &(gpu, columns));
                assert!(quantize(gpu, matrix, None, quantized.matrix()).is_err());
            }
        });
    }
}
