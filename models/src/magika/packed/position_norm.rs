//! Layer norm over the positions, for each channel by itself.

/// `y[p][c] = (x[p][c] - mean(x[·][c])) / √(var(x[·][c]) + ε) · γ[p] + β[p]`, with the variance of the population.
///
/// Long padding makes a channel nearly constant, and ε is small: what rounding leaves of the mean would be divided by
/// nearly nothing. So the mean of the centred values is taken away too, in the variance and in the result: the corrected
/// two-pass algorithm of Chan, Golub and LeVeque (1983).
pub(super) struct PositionNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
    /// One element per channel each.
    mean: Vec<f32>,
    rest: Vec<f32>,
    factor: Vec<f32>,
}

impl PositionNorm {
    /// `weight` (γ) and `bias` (β) have one element per position.
    pub(super) fn new(weight: Vec<f32>, bias: Vec<f32>, eps: f32, channels: usize) -> Self {
        let zeros = vec![0.0; channels];
        Self { weight, bias, eps, mean: zeros.clone(), rest: zeros.clone(), factor: zeros }
    }

    /// Replaces `x`, `[positions, channels]`. Channels lie side by side in every loop, so that vectors hold several.
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
