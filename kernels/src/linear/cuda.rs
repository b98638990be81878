//! Linear layers on a GPU: products of floats by cuBLAS, products of bytes by `linear.cu`.

use super::int8::{MAX_INPUTS, quantized, scale_of};
use crate::KernelError;
use crate::bias_gelu::cuda::bias_activate;
use crate::cuda::{Activation, Buffer, Element, Gpu, LaunchShape, Matrix, QuantizedMatrix, View, int, mismatch};

/// Rows and columns of y that a block computes.
const TILE: usize = 64;

/// A layer with its weights as floats.
#[derive(Debug)]
pub(crate) struct FloatLinear {
    weight: Buffer,
    bias: Buffer,
    inputs: usize,
    outputs: usize,
    element: Element,
}

impl FloatLinear {
    /// `weight` is `[outputs, inputs]`, with one bias per output.
    ///
    /// # Errors
    /// If the lengths do not fit together, or a weight is too large for the element.
    pub(crate) fn new(
        gpu: &Gpu,
        weight: &[f32],
        bias: &[f32],
        inputs: usize,
        element: Element,
    ) -> Result<Self, KernelError> {
        check(weight, bias, inputs)?;
        let (weight, outputs) = (gpu.upload_as(element, weight)?, bias.len());
        Ok(Self { weight, bias: gpu.upload(bias)?, inputs, outputs, element })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.bytes()
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(crate) fn bias(&self) -> View<'_, f32> {
        self.bias.view(0, self.outputs)
    }

    /// `y = x·Wᵀ`, without the bias: the kernel that reads y next adds it.
    pub(crate) fn times(&self, gpu: &Gpu, x: Matrix<'_>, y: Matrix<'_>) -> Result<(), KernelError> {
        gpu.blas()?.times(x, self.weight.matrix(0, self.outputs, self.inputs, self.element), y)
    }

    /// `y = activation(x·Wᵀ + b)`
    pub(crate) fn forward(
        &self,
        gpu: &Gpu,
        x: Matrix<'_>,
        y: Matrix<'_>,
        activation: Activation,
    ) -> Result<(), KernelError> {
        self.times(gpu, x, y)?;
        bias_activate(gpu, y, self.bias(), activation)
    }
}

/// Arithmetic by which bytes are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinearPath {
    /// `dp4a`: four bytes at a time in each thread.
    Dp4a,
    /// Tensor cores.
    Mma,
}

impl LinearPath {
    /// The fastest path that the device has.
    pub(crate) fn best(gpu: &Gpu) -> Self {
        if gpu.functions.linear_mma.is_some() { Self::Mma } else { Self::Dp4a }
    }
}

/// A layer with its weights as bytes: the numbers of [`super::int8`].
#[derive(Debug)]
pub(crate) struct Int8Linear {
    /// `[outputs, stride]`
    values: Buffer,
    scales: Buffer,
    sums: Buffer,
    bias: Buffer,
    inputs: usize,
    outputs: usize,
}

impl Int8Linear {
    /// `weight` is `[outputs, inputs]`, with one bias per output.
    ///
    /// # Errors
    /// If the lengths do not fit together, there are more than 65,536 inputs, or a weight is not finite.
    pub(crate) fn new(gpu: &Gpu, weight: &[f32], bias: &[f32], inputs: usize) -> Result<Self, KernelError> {
        check(weight, bias, inputs)?;
        if inputs > MAX_INPUTS {
            return Err(KernelError::TooManyInputs { inputs, max: MAX_INPUTS });
        }
        if let Some(at) = weight.iter().position(|weight| !weight.is_finite()) {
            return Err(KernelError::NotFinite { at, value: weight[at].to_string() });
        }
        let (outputs, stride) = (bias.len(), QuantizedMatrix::stride(inputs));
        let scales: Vec<f32> = weight.chunks_exact(inputs).map(scale_of).collect();
        let mut values = vec![0_i8; outputs * stride];
        for ((weights, scale), to) in weight.chunks_exact(inputs).zip(&scales).zip(values.chunks_exact_mut(stride)) {
            to.iter_mut().zip(weights).for_each(|(to, weight)| *to = quantized(*weight, *scale));
        }
        let sum = |values: &[i8]| values.iter().map(|value| i32::from(*value)).sum::<i32>();
        let sums: Vec<i32> = values.chunks_exact(stride).map(sum).collect();
        Ok(Self {
            values: gpu.upload(&values)?,
            scales: gpu.upload(&scales)?,
            sums: gpu.upload(&sums)?,
            bias: gpu.upload(bias)?,
            inputs,
            outputs,
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        [&self.values, &self.scales, &self.sums, &self.bias].map(Buffer::bytes).iter().sum()
    }

    /// `y = activation(x·Wᵀ + b)`
    ///
    /// # Errors
    /// If the shapes do not fit together, or the device has no such path.
    pub(crate) fn forward(
        &self,
        gpu: &Gpu,
        x: QuantizedMatrix<'_>,
        y: Matrix<'_>,
        activation: Activation,
        path: LinearPath,
    ) -> Result<(), KernelError> {
        let Self { inputs, outputs, .. } = *self;
        if !x.fits() || x.columns != inputs || (y.rows(), y.columns()) != (x.rows(), outputs) {
            return Err(mismatch(format!("an int8 layer from {inputs} to {outputs}: {x:?} into {y:?}")));
        }
        let (function, block) = match path {
            LinearPath::Dp4a => (gpu.functions.linear_dp4a, 256),
            LinearPath::Mma => {
                let missing = || mismatch("int8 by tensor cores on a device that has none".to_owned());
                (gpu.functions.linear_mma.ok_or_else(missing)?, 128)
            }
        };
        let stride = QuantizedMatrix::stride(inputs);
        let arguments = [
            x.values.pointer().into(),
            x.scales.pointer().into(),
            x.zeros.pointer().into(),
            self.values.view::<i8>(0, outputs * stride).pointer().into(),
            self.scales.view::<f32>(0, outputs).pointer().into(),
            self.sums.view::<i32>(0, outputs).pointer().into(),
            self.bias.view::<f32>(0, outputs).pointer().into(),
            y.pointer().into(),
            int(y.rows())?.into(),
            int(outputs)?.into(),
            int(stride)?.into(),
            (activation as i32).into(),
        ];
        let blocks = |count: usize| Ok(int(count.div_ceil(TILE))?.unsigned_abs());
        let shape = LaunchShape { grid: [blocks(outputs)?, blocks(y.rows())?], block, shared: 0 };
        // SAFETY: the parameters of `linear_int8_*`; x and the weights have rows of the same stride, a multiple of 64,
        // and y has a row for each of x and a column for each of the weights.
        unsafe { gpu.launch(function.of(y.element()), shape, arguments) }
    }
}

fn check(weight: &[f32], bias: &[f32], inputs: usize) -> Result<(), KernelError> {
    let outputs = bias.len();
    if inputs == 0 || outputs == 0 || Some(weight.len()) != inputs.checked_mul(outputs) {
        return Err(KernelError::WeightShape { weights: weight.len(), bias: bias.len(), inputs, outputs });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::tests::{QuantizedRoom, assert_near, assert_within, each_gpu, rounded, tolerance};
    use crate::linear::cases::{ACTIVATIONS, Case, cases, int8_cases};
    use crate::linear::reference;
    use crate::quantize::cuda::quantize;

    #[test]
    fn floats_agree_with_the_reference_in_every_element_and_activation() {
        each_gpu(|gpu| {
            for (case, element) in cases().flat_map(|case| Element::ALL.map(|element| (case.clone(), element))) {
                let Case { inputs, outputs, weight, bias, x } = case;
                let weight = rounded(element, &weight);
                let layer = FloatLinear::new(gpu, &weight, &bias, inputs, element).unwrap();
                for x in x {
                    let (rows, x) = (x.len() / inputs, rounded(element, &x));
                    let (on_x, y) = (gpu.upload_as(element, &x).unwrap(), gpu.room(rows, outputs, element));
                    let (from, to) = (on_x.matrix(0, rows, inputs, element), y.matrix(0, rows, outputs, element));
                    for activation in ACTIVATIONS {
                        layer.forward(gpu, from, to, activation.into()).unwrap();
                        let expected = reference::linear(&x, &weight, &bias, inputs, activation);
                        let case = (gpu, &layer, rows, activation);
                        // The product is rounded to the element before the bias is added.
                        let largest = expected.iter().fold(1.0, |largest: f64, y| largest.max(y.abs()));
                        assert_within(&gpu.download(to, &y), &expected, largest * tolerance(element), &case);
                    }
                }
            }
        });
    }

    #[test]
    fn bytes_agree_with_exact_sums_of_what_was_quantised_on_every_path() {
        each_gpu(|gpu| {
            for Case { inputs, outputs, weight, bias, x } in int8_cases() {
                let layer = Int8Linear::new(gpu, &weight, &bias, inputs).unwrap();
                for (x, path) in x.iter().flat_map(|x| [(x, LinearPath::Dp4a), (x, LinearPath::Mma)]) {
                    let rows = x.len() / inputs;
                    let quantized = QuantizedRoom::new(gpu, rows, inputs);
                    let on_x = gpu.upload(x).unwrap();
                    quantize(gpu, on_x.matrix(0, rows, inputs, Element::F32), None, quantized.matrix()).unwrap();
                    let y = gpu.room(rows, outputs, Element::F32);
                    let to = y.matrix(0, rows, outputs, Element::F32);
                    let ran = layer.forward(gpu, quantized.matrix(), to, Activation::Identity, path);
                    if path == LinearPath::Mma && !gpu.version().has_tensor_cores() {
                        assert!(ran.is_err());
                        continue;
                    }
                    ran.unwrap();
                    let expected = reference::linear_int8(x, &weight, &bias, inputs, 255);
                    let largest = expected.iter().fold(1.0, |largest: f64, y| largest.max(y.abs()));
                    for (at, (got, expected)) in gpu.download(to, &y).iter().zip(&expected).enumerate() {
                        let error = (f64::from(*got) - expected).abs();
                        let what = || format!("{gpu:?} {layer:?} {path:?} {rows} rows at {at}: {got} for {expected}");
                        assert!(error <= 1e-6 * largest, "{}", what());
                    }
                }
            }
        });
    }

    #[test]
    fn what_follows_a_product_of_bytes_comes_in_every_element() {
        each_gpu(|gpu| {
            let case = int8_cases().find(|case| case.inputs == 63).unwrap();
            let Case { inputs, outputs, weight, bias, x } = case;
            let (layer, x) = (Int8Linear::new(gpu, &weight, &bias, inputs).unwrap(), x.last().unwrap());
            let rows = x.len() / inputs;
            let (on_x, quantized) = (gpu.upload(x).unwrap(), QuantizedRoom::new(gpu, rows, inputs));
            quantize(gpu, on_x.matrix(0, rows, inputs, Element::F32), None, quantized.matrix()).unwrap();
            let plain = reference::linear_int8(x, &weight, &bias, inputs, 255);
            for (element, activation) in Element::ALL.into_iter().flat_map(|e| ACTIVATIONS.map(|a| (e, a))) {
                let expected: Vec<f64> = plain.iter().map(|y| reference::activate(*y, activation)).collect();
                let y = gpu.room(rows, outputs, element);
                let to = y.matrix(0, rows, outputs, element);
                layer.forward(gpu, quantized.matrix(), to, activation.into(), LinearPath::best(gpu)).unwrap();
                assert_near(&gpu.download(to, &y), &expected, element, &(gpu, activation));
            }
        });
    }

    #[test]
    fn shapes_that_do_not_fit_and_weights_that_are_not_finite_are_refused() {
        each_gpu(|gpu| {
            let refused = |weight: &[f32], bias: &[f32], inputs| Int8Linear::new(gpu, weight, bias, inputs).err();
            assert!(matches!(refused(&[1.0; 5], &[0.0; 3], 2), Some(KernelError::WeightShape { weights: 5, .. })));
            assert!(matches!(refused(&[f32::NAN; 6], &[0.0; 3], 2), Some(KernelError::NotFinite { at: 0, .. })));
            let wide = refused(&vec![0.0; 70_000], &[0.0], 70_000);
            assert_eq!(wide, Some(KernelError::TooManyInputs { inputs: 70_000, max: MAX_INPUTS }));
            let huge = FloatLinear::new(gpu, &[0.0, 1e6], &[0.0], 2, Element::F16).err();
            assert!(matches!(huge, Some(KernelError::TooLarge { at: 1, .. })), "{huge:?}");

            let layer = FloatLinear::new(gpu, &[0.0; 6], &[0.0; 3], 2, Element::F32).unwrap();
            let room = gpu.room(2, 4, Element::F32);
            let matrix = |columns| room.matrix(0, 2, columns, Element::F32);
            assert!(layer.times(gpu, matrix(3), matrix(3)).is_err() && layer.times(gpu, matrix(2), matrix(4)).is_err());
        });
    }
}
