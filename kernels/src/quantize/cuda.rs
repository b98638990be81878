//! The launch of `quantize.cu`.

use crate::KernelError;
use crate::cuda::{Gpu, LaunchShape, Matrix, QuantizedMatrix, int};
use crate::residual_norm::cuda::quantized_arguments;

/// Quantises each row of `x` to bytes with a scale and a zero point.
///
/// # Errors
/// If `to` has other rows or columns.
pub(crate) fn quantize(gpu: &Gpu, x: Matrix<'_>, to: QuantizedMatrix<'_>) -> Result<(), KernelError> {
    let [values, scales, zeros, stride] = quantized_arguments(Some(to), x)?;
    let arguments = [x.pointer().into(), values, scales, zeros, stride, int(x.columns())?.into()];
    let shape = LaunchShape::row_by_row(x.rows(), x.columns())?;
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
                quantize(gpu, on_x.matrix(0, rows, columns, element), quantized.matrix()).unwrap();
                quantized.assert_holds(gpu, &x, true, &(gpu, columns, element));
                assert!(quantize(gpu, on_x.matrix(0, 1, columns - 1, element), quantized.matrix()).is_err());
            }
        });
    }
}
