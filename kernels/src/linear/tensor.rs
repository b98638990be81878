//! A layer as one operation on candle's tensors.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::{Activation, Linear};
use crate::Team;

/// `activation(x·Wᵀ + b)` over the last dimension of a contiguous f32 tensor on the CPU.
///
/// # Errors
/// If `x` is elsewhere, of another type, not contiguous, or its last dimension is not `layer.inputs()`.
pub fn linear_tensor(layer: &Arc<Linear>, team: &Arc<Team>, x: &Tensor, activation: Activation) -> Result<Tensor> {
    x.apply_op1_no_bwd(&LinearOp { layer: Arc::clone(layer), team: Arc::clone(team), activation })
}

struct LinearOp {
    layer: Arc<Linear>,
    team: Arc<Team>,
    activation: Activation,
}

impl CustomOp1 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (inputs, outputs) = (self.layer.inputs(), self.layer.outputs());
        let (CpuStorage::F32(x), Some((from, to))) = (x, layout.contiguous_offsets()) else {
            bail!("linear: x must be contiguous and f32");
        };
        let mut shape = layout.dims().to_vec();
        match shape.last_mut() {
            Some(columns) if *columns == inputs => *columns = outputs,
            _ => bail!("linear: x of shape {:?} has no last dimension of {inputs}", layout.dims()),
        }
        let shape = Shape::from(shape);
        let mut y = vec![0.0; shape.elem_count()];
        self.layer.forward(&self.team, &x[from..to], &mut y, self.activation).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(y), shape))
    }
}
