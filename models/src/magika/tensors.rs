//! Magika as candle's operations, for devices that have no engine of their own.

use candle_core::{Device, Result, Tensor};
use sconce_kernels::bias_gelu::{GeluForm, bias_gelu_tensor};

use super::Config;
use crate::dense::DenseTensors;
use crate::norm::Norm;
use crate::{LoadError, TensorDevice, Weights};

pub(super) struct TensorMagika {
    /// The table of gelu(embedding + bias) for every symbol: `[symbols, embed_dim]`.
    table: Tensor,
    position_norm: Norm,
    /// `[conv_out, conv_kernel · channels]`
    convolution: Tensor,
    convolution_bias: Tensor,
    channel_norm: Norm,
    head: DenseTensors,
    positions: usize,
    kernel: usize,
    device: Device,
}

impl TensorMagika {
    pub(super) fn load(
        config: &Config,
        weights: &Weights,
        labels: usize,
        device: &TensorDevice,
    ) -> std::result::Result<Self, LoadError> {
        let weights = &weights.on(device);
        let (positions, channels) = (config.positions(), config.channels());
        let embedding = weights.tensor("embed.weight", &[config.vocab_size, config.embed_dim])?;
        let embedding_bias = weights.tensor("embed.bias", &[config.embed_dim])?;
        let kernel = weights.tensor("conv.weight", &[config.conv_out, channels, config.conv_kernel])?;
        let failed = |source| weights.error(source);
        Ok(Self {
            table: bias_gelu_tensor(embedding, &embedding_bias, GeluForm::Tanh).map_err(failed)?,
            position_norm: Norm::load(weights, "norm0", positions, config.layer_norm_eps)?,
            convolution: flatten_kernel(&kernel).map_err(failed)?,
            convolution_bias: weights.tensor("conv.bias", &[config.conv_out])?,
            channel_norm: Norm::load(weights, "norm1", config.conv_out, config.layer_norm_eps)?,
            head: DenseTensors::load(weights, "head", config.conv_out, labels)?,
            positions,
            kernel: config.conv_kernel,
            device: device.as_candle().clone(),
        })
    }

    /// Computes one row per item. All symbols must be within the table.
    ///
    /// The convolution takes one item at a time: its product is large enough to fill any device.
    pub(super) fn forward(&self, items: &[&[u16]]) -> Result<Vec<Vec<f32>>> {
        let strongest: Vec<Tensor> = items
            .iter()
            .map(|symbols| self.strongest(&self.convolve(&self.embed(symbols)?)?))
            .collect::<Result<_>>()?;
        self.head.forward(&self.channel_norm.forward(&Tensor::stack(&strongest, 0)?)?)?.to_vec2()
    }

    /// The embedded symbols, `[channels, positions]`, normalised over the positions.
    fn embed(&self, symbols: &[u16]) -> Result<Tensor> {
        let symbols: Vec<u32> = symbols.iter().copied().map(u32::from).collect();
        let embedded = self.table.index_select(&Tensor::new(symbols, &self.device)?, 0)?;
        let x = embedded.reshape((self.positions, ()))?.t()?.contiguous()?;
        // Long padding makes a row nearly constant. candle computes the variance as E[x²] - E[x]², which then cancels to
        // less than -eps and gives NaN, so the values are centred first.
        self.position_norm.forward(&x.broadcast_sub(&x.mean_keepdim(1)?)?)
    }

    /// Convolution without padding as one product: `[channels, positions]` → `[conv_out, windows]`.
    fn convolve(&self, x: &Tensor) -> Result<Tensor> {
        let windows = self.positions - self.kernel + 1;
        let shifted: Vec<Tensor> = (0..self.kernel).map(|tap| x.narrow(1, tap, windows)).collect::<Result<_>>()?;
        self.convolution.matmul(&Tensor::cat(&shifted, 0)?)
    }

    /// The maximum of gelu(x + bias) over the last dimension. Gelu falls, then rises, so it is largest at the smallest
    /// or the largest of its arguments: two evaluations in place of hundreds.
    fn strongest(&self, x: &Tensor) -> Result<Tensor> {
        let gelu = |extreme| bias_gelu_tensor(extreme, &self.convolution_bias, GeluForm::Tanh);
        gelu(x.max(1)?)?.maximum(&gelu(x.min(1)?)?)
    }
}

/// Reorders `[conv_out, channels, taps]` to `[conv_out, taps · channels]`.
fn flatten_kernel(kernel: &Tensor) -> Result<Tensor> {
    kernel.transpose(1, 2)?.contiguous()?.flatten_from(1)
}
