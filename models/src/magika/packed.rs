//! Magika on the CPU: the kernels of `sconce-kernels`, without candle.

mod position_norm;

use std::sync::Arc;

use sconce_kernels::bias_gelu::{GeluForm, bias_gelu};
use sconce_kernels::linear::{Activation, Linear, WeightFormat};
use sconce_kernels::residual_norm::LayerNorm;
use sconce_kernels::{KernelError, Team};

use position_norm::PositionNorm;

use super::Config;
use crate::dense::{fits, packed_linear};
use crate::{LoadError, Weights};

/// The network and the buffers that it works in.
pub(super) struct PackedMagika {
    table: SymbolTable,
    position_norm: PositionNorm,
    convolution: Convolution1d,
    channel_norm: LayerNorm,
    head: Linear,
    team: Arc<Team>,
    /// The current item: one vector of channels per position.
    x: Vec<f32>,
}

impl PackedMagika {
    pub(super) fn load(config: &Config, weights: &Weights, labels: usize, team: &Arc<Team>) -> Result<Self, LoadError> {
        let (positions, channels) = (config.positions(), config.channels());
        let channel_norm = LayerNorm::new(
            weights.values("norm1.weight", &[config.conv_out])?,
            weights.values("norm1.bias", &[config.conv_out])?,
            config.layer_norm_eps,
        );
        // First, because it refuses sizes that do not fit the file before memory is allocated for them.
        let convolution = Convolution1d::load(config, weights)?;
        Ok(Self {
            table: SymbolTable::load(config, weights)?,
            position_norm: PositionNorm::new(
                weights.values("norm0.weight", &[positions])?,
                weights.values("norm0.bias", &[positions])?,
                config.layer_norm_eps,
                channels,
            ),
            convolution,
            channel_norm: fits(weights, channel_norm)?,
            head: packed_linear(weights, "head", config.conv_out, labels)?,
            team: Arc::clone(team),
            x: vec![0.0; positions * channels],
        })
    }

    /// Computes one row per item. All symbols must be within the table.
    ///
    /// The convolution takes one item at a time: its product is large enough for all threads, and its windows stay in
    /// the cache.
    pub(super) fn forward(&mut self, items: &[&[u16]]) -> Result<Vec<Vec<f32>>, KernelError> {
        let channels = self.channel_norm.columns();
        let mut strongest = vec![0.0; items.len() * channels];
        for (symbols, strongest) in items.iter().zip(strongest.chunks_exact_mut(channels)) {
            self.table.look_up(symbols, &mut self.x);
            self.position_norm.forward(&mut self.x);
            self.convolution.strongest(&self.team, &self.x, strongest)?;
        }
        self.channel_norm.forward(&mut strongest, &vec![0.0; items.len() * channels])?;
        let mut logits = vec![0.0; items.len() * self.head.outputs()];
        self.head.forward(&self.team, &strongest, &mut logits, Activation::Identity)?;
        Ok(logits.chunks_exact(self.head.outputs()).map(<[f32]>::to_vec).collect())
    }
}

/// A table of gelu(embedding + bias) for every symbol.
struct SymbolTable {
    values: Vec<f32>,
    columns: usize,
}

impl SymbolTable {
    fn load(config: &Config, weights: &Weights) -> Result<Self, LoadError> {
        let columns = config.embed_dim;
        let mut values = weights.values("embed.weight", &[config.vocab_size, columns])?;
        let bias = weights.values("embed.bias", &[columns])?;
        fits(weights, bias_gelu(&mut values, &bias, GeluForm::Tanh))?;
        Ok(Self { values, columns })
    }

    /// Writes the vectors of all symbols end to end, so that the symbols of a position are side by side.
    fn look_up(&self, symbols: &[u16], x: &mut [f32]) {
        for (symbol, x) in symbols.iter().zip(x.chunks_exact_mut(self.columns)) {
            x.copy_from_slice(&self.values[usize::from(*symbol) * self.columns..][..self.columns]);
        }
    }
}

/// A convolution without padding over positions, followed by the maximum over its windows.
struct Convolution1d {
    windows: Linear,
    bias: Vec<f32>,
    /// Number of elements in one position.
    channels: usize,
    /// The current item: one row per window.
    y: Vec<f32>,
    /// The smallest value of each output.
    lowest: Vec<f32>,
}

impl Convolution1d {
    fn load(config: &Config, weights: &Weights) -> Result<Self, LoadError> {
        let (channels, taps, outputs) = (config.channels(), config.conv_kernel, config.conv_out);
        let kernel = weights.values("conv.weight", &[outputs, channels, taps])?;
        // A window holds the channels of its first position, then those of the next one.
        let kernel: Vec<f32> = kernel
            .chunks_exact(channels * taps)
            .flat_map(|kernel| (0..taps).flat_map(|tap| kernel.iter().skip(tap).step_by(taps).copied()))
            .collect();
        Ok(Self {
            windows: fits(weights, Linear::new(&kernel, None, taps * channels, outputs, WeightFormat::F32))?,
            bias: weights.values("conv.bias", &[outputs])?,
            channels,
            y: vec![0.0; (config.positions() - taps + 1) * outputs],
            lowest: vec![0.0; outputs],
        })
    }

    /// Computes the maximum of gelu(y + bias) over all windows, per output. Gelu falls, then rises, so it is largest at
    /// the smallest or the largest of its arguments: two evaluations in place of hundreds.
    fn strongest(&mut self, team: &Team, x: &[f32], highest: &mut [f32]) -> Result<(), KernelError> {
        let Self { windows, bias, channels, y, lowest } = self;
        windows.forward_windows(team, x, *channels, y, Activation::Identity)?;
        extremes(y, lowest, highest);
        bias_gelu(lowest, bias, GeluForm::Tanh)?;
        bias_gelu(highest, bias, GeluForm::Tanh)?;
        for (highest, lowest) in highest.iter_mut().zip(lowest) {
            *highest = if *lowest > *highest { *lowest } else { *highest };
        }
        Ok(())
    }
}

/// Finds the smallest and the largest value of each column.
fn extremes(y: &[f32], lowest: &mut [f32], highest: &mut [f32]) {
    let columns = lowest.len();
    // Start with the first row, not with infinities: a column of NaN must stay NaN.
    lowest.copy_from_slice(&y[..columns]);
    highest.copy_from_slice(&y[..columns]);
    for row in y.chunks_exact(columns) {
        for ((y, lowest), highest) in row.iter().zip(&mut *lowest).zip(&mut *highest) {
            *lowest = if *y < *lowest { *y } else { *lowest };
            *highest = if *y > *highest { *y } else { *highest };
        }
    }
}
