//! The head of an encoder on a GPU: rows from the token vectors, and steps that each apply to every row, all in f32.

use super::workspace::{MAX_SPARSE_ROWS, Matrices};
use crate::KernelError;
use crate::cuda::{Activation, Element, Gpu, Matrix, mismatch};
use crate::encoder::{Dense, HeadRows, HeadSpec, HeadStep};
use crate::linear::cuda::FloatLinear;
use crate::pooling::Pooling;
use crate::pooling::cuda::{Length, PoolMatrices, keep_greatest, pool};
use crate::residual_norm::RowNorm;
use crate::residual_norm::cuda::{DeviceNorm, NormMatrices, norm_of_sums};

/// The weights of a step of a head.
#[derive(Debug)]
pub enum HeadWeights {
    /// The weights of a product.
    Product(Dense),
    /// The weights of a norm.
    Norm(RowNorm),
}

/// A head in device memory.
pub(super) struct CudaHead {
    rows: HeadRows,
    steps: Vec<DeviceStep>,
    /// Number of products.
    products: usize,
    /// Number of elements of a row before the first step.
    inputs: usize,
}

enum DeviceStep {
    Product { linear: FloatLinear, function: Activation },
    Norm(DeviceNorm),
}

impl CudaHead {
    /// Copies a head to the device.
    ///
    /// # Errors
    /// [`KernelError::Mismatch`] names the first step that does not fit the spec.
    pub(super) fn new(gpu: &Gpu, spec: &HeadSpec, hidden: usize, weights: &[HeadWeights]) -> Result<Self, KernelError> {
        if weights.len() != spec.steps.len() {
            return Err(mismatch(format!("weights of {} steps for a head of {}", weights.len(), spec.steps.len())));
        }
        let mut head = Self { rows: spec.rows.clone(), steps: Vec::new(), products: 0, inputs: spec.inputs(hidden) };
        let mut width = head.inputs;
        for (index, step) in spec.steps.iter().zip(weights).enumerate() {
            head.steps.push(match step {
                (HeadStep::Product { outputs, function, .. }, HeadWeights::Product(dense)) => {
                    super::check_dense(&format!("step {index} of the head"), dense, width, *outputs)?;
                    let linear = FloatLinear::new(gpu, &dense.weight, &dense.bias, width, Element::F32)?;
                    width = *outputs;
                    head.products += 1;
                    DeviceStep::Product { linear, function: (*function).into() }
                }
                (HeadStep::Norm(_), HeadWeights::Norm(norm)) if norm.columns() == width => {
                    DeviceStep::Norm(DeviceNorm::new(gpu, norm)?)
                }
                (step, weights) => {
                    return Err(mismatch(format!("step {index} of the head is {step:?} of {width}, not {weights:?}")));
                }
            });
        }
        Ok(head)
    }

    pub(super) fn bytes(&self) -> usize {
        let of_step = |step: &DeviceStep| match step {
            DeviceStep::Product { linear, .. } => linear.bytes(),
            DeviceStep::Norm(norm) => norm.bytes(),
        };
        self.steps.iter().map(of_step).sum()
    }

    /// Queues the launches from the token vectors `x` to the answer.
    pub(super) fn queue(&self, gpu: &Gpu, x: Matrix<'_>, matrices: Matrices<'_>) -> Result<(), KernelError> {
        let (starts, out) = (matrices.starts(), matrices.out());
        // Each token as a sequence of its own: its vector in f32.
        let of_tokens =
            |tokens, out| pool(gpu, PoolMatrices { tokens, starts: None, out, place: 0 }, Pooling::Cls, Length::Kept);
        match &self.rows {
            HeadRows::Pooled(poolings) => {
                let to = self.first(matrices, out);
                for (place, pooling) in poolings.iter().enumerate() {
                    let matrices = PoolMatrices { tokens: x, starts: Some(starts), out: to, place };
                    pool(gpu, matrices, *pooling, Length::Kept)?;
                }
                self.apply(gpu, to, matrices, out)
            }
            HeadRows::Tokens => {
                let to = self.first(matrices, out);
                of_tokens(x, to)?;
                self.apply(gpu, to, matrices, out)
            }
            HeadRows::Sparse => {
                for first in (0..x.rows()).step_by(MAX_SPARSE_ROWS) {
                    let tokens = x.part(first..x.rows().min(first + MAX_SPARSE_ROWS));
                    let words = matrices.words(tokens.rows());
                    let to = self.first(matrices, words);
                    of_tokens(tokens, to)?;
                    self.apply(gpu, to, matrices, words)?;
                    keep_greatest(gpu, words, first, starts, out)?;
                }
                Ok(())
            }
        }
    }

    /// The matrix of the rows before the first step, as many as there are of the last.
    fn first<'a>(&self, matrices: Matrices<'a>, last: Matrix<'a>) -> Matrix<'a> {
        if self.products == 0 { last } else { matrices.head(0, last.rows(), self.inputs) }
    }

    /// Applies the steps to the rows, of which the last product makes `last`.
    fn apply<'a>(
        &self,
        gpu: &Gpu,
        mut rows: Matrix<'a>,
        matrices: Matrices<'a>,
        last: Matrix<'a>,
    ) -> Result<(), KernelError> {
        let mut made = 0;
        for step in &self.steps {
            match step {
                DeviceStep::Product { linear, function } => {
                    made += 1;
                    let is_last = made == self.products;
                    let to = if is_last { last } else { matrices.head(made % 2, rows.rows(), linear.outputs()) };
                    linear.forward(gpu, rows, to, *function)?;
                    rows = to;
                }
                DeviceStep::Norm(norm) => {
                    let in_place = NormMatrices { x: rows, residual: None, sums: None, y: rows };
                    norm_of_sums(gpu, Some(norm), in_place, None, None)?;
                }
            }
        }
        Ok(())
    }
}
