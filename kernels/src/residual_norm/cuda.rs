//! The launch of `residual_norm.cu`.

use super::RowNorm;
use crate::KernelError;
use crate::cuda::{Argument, Buffer, Gpu, LaunchShape, Matrix, QuantizedMatrix, View, int, mismatch};

/// The parameters of a layer norm in a device's memory.
#[derive(Debug)]
pub(crate) struct DeviceNorm {
    weight: Buffer,
    bias: Buffer,
    columns: usize,
    eps: f32,
}

impl DeviceNorm {
    /// Copies a layer norm to the device.
    ///
    /// # Errors
    /// If it is another norm, or the device has no room.
    pub(crate) fn new(gpu: &Gpu, norm: &RowNorm) -> Result<Self, KernelError> {
        let RowNorm::Layer(norm) = norm else {
            return Err(mismatch("a GPU takes layer norms, not RMS norms".to_owned()));
        };
        let (weight, bias) = (gpu.upload(&norm.weight)?, gpu.upload(&norm.bias)?);
        Ok(Self { weight, bias, columns: norm.columns(), eps: norm.eps })
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.bytes()
    }

    /// Weight, bias and ε.
    pub(crate) fn arguments(&self) -> [Argument; 3] {
        let (weight, bias) = (self.weight.view::<f32>(0, self.columns), self.bias.view::<f32>(0, self.columns));
        [weight.pointer().into(), bias.pointer().into(), self.eps.into()]
    }

    /// `y = layer_norm(x + projection_bias + residual)`, and the same rows quantised if asked. `y` may be either input.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub(crate) fn forward(
        &self,
        gpu: &Gpu,
        [x, residual, y]: [Matrix<'_>; 3],
        projection_bias: Option<View<'_, f32>>,
        quantized: Option<QuantizedMatrix<'_>>,
    ) -> Result<(), KernelError> {
        let fits = x.columns() == self.columns && residual.shape() == x.shape() && y.shape() == x.shape();
        if !fits || projection_bias.is_some_and(|bias| bias.len() != self.columns) {
            let what = format!("layer norm of {} columns: {x:?}, {residual:?}, {y:?}", self.columns);
            return Err(mismatch(what));
        }
        let [values, scales, zeros, stride] = quantized_arguments(quantized, x)?;
        let [weight, bias, eps] = self.arguments();
        let projection_bias = projection_bias.map_or(0, |bias| bias.pointer()).into();
        let arguments = [
            x.pointer().into(),
            projection_bias,
            residual.pointer().into(),
            weight,
            bias,
            eps,
            y.pointer().into(),
            values,
            scales,
            zeros,
            stride,
            int(self.columns)?.into(),
        ];
        let shape = LaunchShape::row_by_row(x.rows(), self.columns)?;
        // SAFETY: the parameters of `residual_norm_*`; the matrices are of one shape, which the norm and the quantised
        // rows fit; a row of f32 is in shared memory.
        unsafe { gpu.launch(gpu.functions.residual_norm.of(x.element()), shape, arguments) }
    }
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
                    let matrices = [matrix(&on_x), matrix(&on_residual), matrix(&y)];
                    norm.forward(gpu, matrices, bias, Some(quantized.matrix())).unwrap();
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
    fn it_may_be_written_over_either_input_and_refuses_what_does_not_fit() {
        each_gpu(|gpu| {
            let case = cases().find(|case| case.columns() == 31).unwrap();
            let norm = DeviceNorm::new(gpu, &case.norm().into()).unwrap();
            let [x, residual] = [&case.x, &case.residual].map(|values| gpu.upload(values).unwrap());
            let matrix = |buffer, columns| Buffer::matrix(buffer, 0, ROWS, columns, Element::F32);
            let [x_31, residual_31] = [matrix(&x, 31), matrix(&residual, 31)];
            assert!(norm.forward(gpu, [x_31, residual_31, matrix(&x, 30)], None, None).is_err());
            assert!(norm.forward(gpu, [matrix(&x, 30); 3], None, None).is_err());
            let quantized = QuantizedRoom::new(gpu, ROWS, 30);
            assert!(norm.forward(gpu, [x_31, residual_31, x_31], None, Some(quantized.matrix())).is_err());
            norm.forward(gpu, [x_31, residual_31, residual_31], None, None).unwrap();
            let got = gpu.download(residual_31, &residual);
            assert_near(&got, &case.expected(&case.x, &case.residual), Element::F32, &"over the residual");
        });
    }

    #[test]
    fn rows_longer_than_shared_memory_are_refused() {
        assert!(LaunchShape::row_by_row(1, 12_000).is_ok() && LaunchShape::row_by_row(1, 12_100).is_err());
    }
}
