//! Layer norm over the positions, separately for each channel.

/// `y[p][c] = (x[p][c] - mean(x[·][c])) / √(var(x[·][c]) + ε) · γ[p] + β[p]`, with the variance of the population.
///
/// Long padding makes a channel nearly constant, and ε is small, so the rounding error of the mean would be divided by
/// nearly zero. Therefore the mean of the centred values is subtracted as well, in the variance and in the result: the
/// corrected two-pass algorithm of Chan, Golub and LeVeque (1983).
pub(super) struct PositionNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
    /// Buffers of one element per channel: this one and the two below.
    mean: Vec<f32>,
    rest: Vec<f32>,
    factor: Vec<f32>,
}

impl PositionNorm {
    /// A norm whose `weight` (γ) and `bias` (β) have one element per position.
    pub(super) fn new(weight: Vec<f32>, bias: Vec<f32>, eps: f32, channels: usize) -> Self {
        let zeros = vec![0.0; channels];
        Self { weight, bias, eps, mean: zeros.clone(), rest: zeros.clone(), factor: zeros }
    }

    /// Normalises `x`, `[positions, channels]`, in place. Each loop runs over neighbouring channels, so that the
    /// compiler can use vector instructions.
    pub(super) fn forward(&mut self, x: &mut [f32]) {
        let Self { weight, bias, eps, mean, rest, factor } = self;
        let (channels, positions) = (mean.len(), weight.len() as f32);
        mean.fill(0.0);
        for row in x.chunks_exact(channels) {
            for (sum, x) in mean.iter_mut().zip(row) {
                *sum += x;
            }
        }
        for sum in &mut *mean {
            *sum /= positions;
        }

        let squares = &mut *factor;
        rest.fill(0.0);
        squares.fill(0.0);
        for row in x.chunks_exact_mut(channels) {
            for (((x, mean), sum), squares) in row.iter_mut().zip(&*mean).zip(&mut *rest).zip(&mut *squares) {
                *x -= mean;
                *sum += *x;
                *squares += *x * *x;
            }
        }
        for (rest, factor) in rest.iter_mut().zip(&mut *factor) {
            let sum = *rest;
            *rest = sum / positions;
            *factor = ((*factor - sum * *rest) / positions + *eps).sqrt().recip();
        }

        for ((row, weight), bias) in x.chunks_exact_mut(channels).zip(weight).zip(bias) {
            for ((x, rest), factor) in row.iter_mut().zip(&*rest).zip(&*factor) {
                *x = (*x - rest) * factor * *weight + *bias;
            }
        }
    }
}
