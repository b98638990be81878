//! Convolution → relu → max pool over square images with their channels last.

use sconce_kernels::linear::{Activation, Linear, WeightFormat};
use sconce_kernels::{KernelError, Team};

use super::Config;
use crate::dense::fits;
use crate::{LoadError, Weights};

/// A convolution as one product of rows, one row per window (im2col), and its pool.
pub(super) struct PackedConvolution {
    linear: Linear,
    /// Channels of the image.
    inputs: usize,
    /// Side of the image, in pixels.
    side: usize,
    kernel: usize,
    padding: usize,
    pool: usize,
    /// One row per window. Elements beyond the edges of an image are 0 from the start and never written, since they are
    /// at the same places in every batch.
    windows: Vec<f32>,
    y: Vec<f32>,
    pooled: Vec<f32>,
}

impl PackedConvolution {
    pub(super) fn load(
        weights: &Weights,
        name: &str,
        config: &Config,
        side: usize,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self, LoadError> {
        let Config { kernel, padding, pool, .. } = *config;
        let weight = weights.values(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel])?;
        let bias = weights.values(&format!("{name}.bias"), &[outputs])?;
        let window = inputs * kernel * kernel;
        let weight: Vec<f32> = weight.chunks_exact(window).flat_map(|weight| channels_last(weight, inputs)).collect();
        let linear = fits(weights, Linear::new(&weight, Some(&bias), window, outputs, WeightFormat::F32))?;
        let (windows, y, pooled) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { linear, inputs, side, kernel, padding, pool, windows, y, pooled })
    }

    /// Convolves and pools the images of `x`.
    pub(super) fn forward(&mut self, team: &Team, x: &[f32], images: usize) -> Result<&[f32], KernelError> {
        let (given, pooled) = (self.given(), self.given() / self.pool);
        let outputs = self.linear.outputs();
        self.windows.resize(images * given * given * self.linear.inputs(), 0.0);
        self.y.resize(images * given * given * outputs, 0.0);
        self.pooled.resize(images * pooled * pooled * outputs, 0.0);
        self.unfold(x);
        self.linear.forward(team, &self.windows, &mut self.y, Activation::Relu)?;
        self.pool();
        Ok(&self.pooled)
    }

    /// Side of the image after the convolution, before the pool.
    fn given(&self) -> usize {
        self.side + 2 * self.padding + 1 - self.kernel
    }

    /// Writes the pixels of each window into its row.
    fn unfold(&mut self, x: &[f32]) {
        let given = self.given();
        let Self { inputs, side, kernel, padding, .. } = *self;
        let images = x.chunks_exact(side * side * inputs);
        let blocks = self.windows.chunks_exact_mut(given * given * kernel * kernel * inputs);
        for (image, windows) in images.zip(blocks) {
            for (index, window) in windows.chunks_exact_mut(kernel * kernel * inputs).enumerate() {
                let (top, left) = (index / given, index % given);
                // The taps within the image; the first window begins `padding` pixels before it.
                let taps = |start: usize| padding.saturating_sub(start)..kernel.min(side + padding - start);
                let across = taps(left);
                for down in taps(top) {
                    let from = ((top + down - padding) * side + left + across.start - padding) * inputs;
                    let to = (down * kernel + across.start) * inputs;
                    let length = across.len() * inputs;
                    window[to..to + length].copy_from_slice(&image[from..from + length]);
                }
            }
        }
    }

    /// Takes the maximum of each square of `pool` × `pool` pixels; incomplete squares at the right and the bottom are
    /// left out.
    fn pool(&mut self) {
        let (given, pool, outputs) = (self.given(), self.pool, self.linear.outputs());
        let side = given / pool;
        let images = self.y.chunks_exact(given * given * outputs);
        for (image, pooled) in images.zip(self.pooled.chunks_exact_mut(side * side * outputs)) {
            for (index, highest) in pooled.chunks_exact_mut(outputs).enumerate() {
                let (top, left) = (index / side * pool, index % side * pool);
                let pixels = (0..pool * pool).map(|at| (top + at / pool) * given + left + at % pool);
                for (at, pixel) in pixels.enumerate() {
                    let pixel = &image[pixel * outputs..][..outputs];
                    if at == 0 {
                        highest.copy_from_slice(pixel);
                    }
                    for (highest, pixel) in highest.iter_mut().zip(pixel) {
                        *highest = if *pixel > *highest { *pixel } else { *highest };
                    }
                }
            }
        }
    }
}

/// Reorders `[channels, pixels]` to `[pixels, channels]`.
pub(super) fn channels_last(values: &[f32], channels: usize) -> impl Iterator<Item = f32> {
    let pixels = values.len() / channels;
    (0..pixels).flat_map(move |pixel| values.iter().skip(pixel).step_by(pixels).copied())
}
