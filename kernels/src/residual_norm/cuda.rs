//! The launch of `residual_norm.cu`.

use super::RowNorm;
use crate::KernelError;
use crate::cuda::{Argument, Buffer, Gpu, LaunchShape, Matrix, QuantizedMatrix, View, int, mismatch};

/// The parameters of a norm in a device's memory.
#[derive(Debug)]
pub(crate) struct DeviceNorm {
    kind: DeviceNormKind,
    weight: Buffer,
    /// A bias of a layer norm.
    bias: Option<Buffer>,
    columns: usize,
    eps: f32,
}

/// The formula of a norm, numbered as in `row.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum DeviceNormKind {
    None = 0,
    Layer = 1,
    Rms = 2,
}

impl DeviceNorm {
    /// Copies a norm to the device.
    ///
    /// # Errors
    /// If the device has no room.
    pub(crate) fn new(gpu: &Gpu, norm: &RowNorm) -> Result<Self, KernelError> {
        let (kind, weight, bias, eps) = match norm {
            RowNorm::Layer(norm) => (DeviceNormKind::Layer, &norm.weight, Some(&norm.bias), norm.eps),
            RowNorm::Rms(norm) => (DeviceNormKind::Rms, &norm.weight, None, norm.eps),
        };
        let bias = bias.map(|bias| gpu.upload(bias)).transpose()?;
        Ok(Self { kind, weight: gpu.upload(weight)?, bias, columns: norm.columns(), eps })
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.as_ref().map_or(0, Buffer::bytes)
    }

    /// The number of the formula.
    pub(crate) fn kind(&self) -> Argument {
        (self.kind as i32).into()
    }

    /// Weight, bias and ε.
    pub(crate) fn numbers(&self) -> [Argument; 3] {
        let of = |buffer: &Buffer| buffer.view::<f32>(0, self.columns).pointer();
        [of(&self.weight).into(), self.bias.as_ref().map_or(0, of).into(), self.eps.into()]
    }
}

/// The fields of `Norm` in `row.cuh`.
pub(crate) fn norm_arguments(norm: Option<&DeviceNorm>) -> [Argument; 4] {
    let none = || (Argument::from(DeviceNormKind::None as i32), [0_u64.into(), 0_u64.into(), 0.0_f32.into()]);
    let (kind, [weight, bias, eps]) = norm.map_or_else(none, |norm| (norm.kind(), norm.numbers()));
    [kind, weight, bias, eps]
}

/// The matrices of a norm of sums, all of one shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormMatrices<'a> {
    pub(crate) x: Matrix<'a>,
    /// Added to `x`.
    pub(crate) residual: Option<Matrix<'a>>,
    /// Destination of the sums before the norm; may be `x` or `residual`.
    pub(crate) sums: Option<Matrix<'a>>,
    /// Destination of the norm; may be `x` or `residual`.
    pub(crate) y: Matrix<'a>,
}

/// `sums = x + projection_bias + residual`, `y = norm(sums)`, and the rows of y quantised if asked.
///
/// # Errors
/// If the shapes do not fit together.
pub(crate) fn norm_of_sums(
    gpu: &Gpu,
    norm: Option<&DeviceNorm>,
    matrices: NormMatrices<'_>,
    projection_bias: Option<View<'_, f32>>,
    quantized: Option<QuantizedMatrix<'_>>,
) -> Result<(), KernelError> {
    let NormMatrices { x, residual, sums, y } = matrices;
    let columns = x.columns();
    let like_x = |matrix: Option<Matrix<'_>>| matrix.is_none_or(|matrix| matrix.shape() == x.shape());
    let bias_fits = projection_bias.is_none_or(|bias| bias.len() == columns);
    let norm_fits = norm.is_none_or(|norm| norm.columns == columns);
    if !(like_x(residual) && like_x(sums) && like_x(Some(y)) && bias_fits && norm_fits) {
        let norm = norm.map_or(columns, DeviceNorm::columns);
        return Err(mismatch(format!("a norm of {norm} columns, bias {projection_bias:?}: {matrices:?}")));
    }
    let pointer = |matrix: Option<Matrix<'_>>| Argument::from(matrix.map_or(0, |matrix| matrix.pointer()));
    let [values, scales, zeros, stride] = quantized_arguments(quantized, x)?;
    let [kind, weight, bias, eps] = norm_arguments(norm);
    let arguments = [
        pointer(Some(x)),
        projection_bias.map_or(0, |bias| bias.pointer()).into(),
        pointer(residual),
        pointer(sums),
        kind,
        weight,
        bias,
        eps,
        pointer(Some(y)),
        values,
        scales,
        zeros,
        stride,
        int(columns)?.into(),
    ];
    let shape = LaunchShape::row_by_row(x.rows(), columns)?;
    // SAFETY: the parameters of `residual_norm_*`; the matrices are of one shape, which the norm and the quantised rows
    // fit; a row of f32 is in shared memory.
    unsafe { gpu.launch(gpu.functions.residual_norm.of(x.element()), shape, arguments) }
}

/// The fields of `QuantizedRows` in `row.cuh`; all 0 for `None`.
pub(crate) fn quantized_arguments(
    quantized: Option<QuantizedMatrix<'_>>,
    rows_of: Matrix<'_>,
) -> Result<[Argument; 4], KernelError> {
    let Some(quantized) = quantized else {
        return Ok([0_u64.into(), 0_u64.into(), 0_u64.into(), 0_i32.into()]);
    };
    if !quantized.fits() || (quantized.rows(), quantized.columns) != (rows_of.rows(), rows_of.columns()) {
        return Err(mismatch(format!("quantised rows {quantized:?} for {rows_of:?}")));
    }
    let stride = int(QuantizedMatrix::stride(quantized.columns))?;
    Ok([
        quantized.values.pointer().into(),
        quantized.scales.pointer().into(),
        quantized.zeros.pointer().into(),
        stride.into(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Element;
    use crate::cuda::tests::{QuantizedRoom, assert_near, each_gpu, rounded};
    use crate::residual_norm::cases::{ROWS, cases};
    use crate::residual_norm::{RmsNorm, reference};

    #[test]
    fn every_version_and_element_agrees_with_the_reference_at_every_width() {
        each_gpu(|gpu| {
            for (case, element) in cases().flat_map(|case| Element::ALL.map(|element| (case.clone(), element))) {
                let columns = case.columns();
                let (x, residual) = (rounded(element, &case.x), rounded(element, &case.residual));
                let norm = DeviceNorm::new(gpu, &case.norm().into()).unwrap();
                let [on_x, on_residual] = [&x, &residual].map(|values| gpu.upload_as(element, values).unwrap());
                // Without a projection's bias, and with one, which the reference gets added to x.
                let projection: Vec<f32> = (0..columns).map(|at| (at % 3) as f32 - 1.0).collect();
                let on_projection = gpu.upload(&projection).unwrap();
                let plus: Vec<f32> = x.iter().enumerate().map(|(at, x)| x + projection[at % columns]).collect();
                for (bias, x) in [(None, &x), (Some(on_projection.view(0, columns)), &plus)] {
                    let y = gpu.room(ROWS, columns, element);
                    let quantized = QuantizedRoom::new(gpu, ROWS, columns);
                    let matrix = |buffer| Buffer::matrix(buffer, 0, ROWS, columns, element);
                    let matrices = NormMatrices {
                        x: matrix(&on_x),
                        residual: Some(matrix(&on_residual)),
                        sums: None,
                        y: matrix(&y),
                    };
                    norm_of_sums(gpu, Some(&norm), matrices, bias, Some(quantized.matrix())).unwrap();
                    let (got, expected) = (gpu.download(matrix(&y), &y), case.expected(x, &residual));
                    assert_near(&got, &expected, element, &(gpu, columns, bias));
                    if element == Element::F32 {
                        quantized.assert_holds(gpu, &got, true, &(gpu, columns));
                    }
                }
            }
        });
    }

    #[test]
    fn the_sums_are_kept_beside_either_norm_or_none_and_a_residual_may_be_absent() {
        each_gpu(|gpu| {
            let case = cases().find(|case| case.columns() == 31).unwrap();
            let rms = RmsNorm::new(case.norm().weight, 1e-5).unwrap();
            for (element, has_residual) in
                Element::ALL.into_iter().flat_map(|element| [(element, false), (element, true)])
            {
                let (x, residual) = (rounded(element, &case.x), rounded(element, &case.residual));
                let added = |(x, residual): (&f32, &f32)| if has_residual { x + residual } else { *x };
                let sums: Vec<f32> = x.iter().zip(&residual).map(added).collect();
                let plain: Vec<f64> = sums.iter().map(|sum| f64::from(*sum)).collect();
                let layer = case.expected(&sums, &vec![0.0; sums.len()]);
                let of_rows = sums.chunks_exact(31).flat_map(|row| reference::rms_norm(row, &rms.weight, rms.eps));
                let norms: [(Option<RowNorm>, Vec<f64>); 3] = [
                    (None, plain.clone()),
                    (Some(case.norm().into()), layer),
                    (Some(RowNorm::Rms(rms.clone())), of_rows.collect()),
                ];
                for (norm, expected) in norms {
                    let norm = norm.map(|norm| DeviceNorm::new(gpu, &norm).unwrap());
                    let [on_x, on_residual] = [&x, &residual].map(|values| gpu.upload_as(element, values).unwrap());
                    let y = gpu.room(ROWS, 31, element);
                    let matrix = |buffer| Buffer::matrix(buffer, 0, ROWS, 31, element);
                    // Over x, as a residual connection without a norm is kept.
                    let sums = Some(matrix(&on_x));
                    let residual = has_residual.then(|| matrix(&on_residual));
                    let matrices = NormMatrices { x: matrix(&on_x), residual, sums, y: matrix(&y) };
                    norm_of_sums(gpu, norm.as_ref(), matrices, None, None).unwrap();
                    assert_near(&gpu.download(matrix(&y), &y), &expected, element, &(gpu, &norm, has_residual));
                    assert_near(&gpu.download(matrix(&on_x), &on_x), &plain, element, &(gpu, &norm, "sums"));
                }
            }
        });
    }

    #[test]
    fn it_may_be_written_over_either_input_and_refuses_what_does_not_fit() {
        each_gpu(|gpu| {
            let case = cases().find(|case| case.columns() == 31).unwrap();
            let norm = DeviceNorm::new(gpu, &case.norm().into()).unwrap();
            let [x, residual] = [&case.x, &case.residual].map(|values| gpu.upload(values).unwrap());
            let matrix = |buffer, columns| Buffer::matrix(buffer, 0, ROWS, columns, Element::F32);
            let run = |x, residual, y, quantized| {
                let matrices = NormMatrices { x, residual: Some(residual), sums: None, y };
                norm_of_sums(gpu, Some(&norm), matrices, None, quantized)
            };
            let [x_31, residual_31] = [matrix(&x, 31), matrix(&residual, 31)];
            assert!(run(x_31, residual_31, matrix(&x, 30), None).is_err());
            assert!(run(x_31, matrix(&residual, 30), x_31, None).is_err());
            assert!(run(matrix(&x, 30), matrix(&x, 30), matrix(&x, 30), None).is_err());
            let quantized = QuantizedRoom::new(gpu, ROWS, 30);
            assert!(run(x_31, residual_31, x_31, Some(quantized.matrix())).is_err());
            run(x_31, residual_31, residual_31, None).unwrap();
            let got = gpu.download(residual_31, &residual);
            assert_near(&got, &case.expected(&case.x, &case.residual), Element::F32, &"over the residual");
        });
    }

    #[test]
    fn rows_longer_than_shared_memory_are_refused() {
        assert!(LaunchShape::row_by_row(1, 12_000).is_ok() && LaunchShape::row_by_row(1, 12_100).is_err());
    }
}
