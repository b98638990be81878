//! Heads on the CPU: from token vectors to answers. Every engine that gives token vectors uses it, in f32 whatever its
//! precision: a head is small, and the answer depends on it most.

use std::ops::Range;
use std::sync::Arc;

use sconce_kernels::encoder::{HeadFunction, HeadRows, HeadStep, NormKind, NormSpec};
use sconce_kernels::linear::{Activation, Linear, WeightFormat};
use sconce_kernels::pooling::{Pooling, pool};
use sconce_kernels::{KernelError, Team};

use super::{EncoderPart, EncoderWeights};
use crate::LoadError;

/// Most rows of a sparse head at a time: a row has a number for each word of the vocabulary.
const SPARSE_ROWS: usize = 32;

pub(crate) struct RowHead {
    rows: HeadRows,
    steps: Vec<LoadedStep>,
    hidden: usize,
    team: Arc<Team>,
}

/// A function of one number.
type Scalar = fn(f32) -> f32;

enum LoadedStep {
    Product { linear: Linear, function: HeadFunction },
    Norm { weight: Vec<f32>, bias: Option<Vec<f32>>, spec: NormSpec },
}

impl RowHead {
    pub(crate) fn load(weights: &EncoderWeights<'_>, team: &Arc<Team>) -> Result<Self, LoadError> {
        let spec = weights.spec();
        let step = |(index, step): (usize, &HeadStep)| {
            let part = EncoderPart::Head(index);
            Ok(match step {
                HeadStep::Product { function, .. } => {
                    let dense = weights.dense(part)?;
                    let linear = weights.fits(dense.pack(weights.inputs(part), WeightFormat::F32))?;
                    LoadedStep::Product { linear, function: *function }
                }
                HeadStep::Norm(spec) => {
                    LoadedStep::Norm { weight: weights.weight(part)?, bias: weights.bias(part)?, spec: *spec }
                }
            })
        };
        let steps = spec.head.steps.iter().enumerate().map(step).collect::<Result<_, LoadError>>()?;
        Ok(Self { rows: spec.head.rows.clone(), steps, hidden: spec.hidden, team: Arc::clone(team) })
    }

    /// The answer for each text, whose tokens lie end to end in `tokens`, rows of `hidden`.
    pub(crate) fn forward(&self, tokens: &[f32], lengths: &[usize]) -> Result<Vec<Vec<f32>>, KernelError> {
        match &self.rows {
            HeadRows::Pooled(poolings) => {
                let rows = self.apply(self.pooled(tokens, lengths, poolings)?)?;
                Ok(rows.chunks_exact((rows.len() / lengths.len().max(1)).max(1)).map(<[f32]>::to_vec).collect())
            }
            HeadRows::Tokens => {
                let rows = self.apply(tokens.to_vec())?;
                let width = rows.len() / lengths.iter().sum::<usize>().max(1);
                Ok(texts(lengths).map(|text| rows[text.start * width..text.end * width].to_vec()).collect())
            }
            HeadRows::Sparse => texts(lengths)
                .map(|text| self.sparse(&tokens[text.start * self.hidden..text.end * self.hidden]))
                .collect(),
        }
    }

    /// The pooled vectors of each text, side by side.
    fn pooled(&self, tokens: &[f32], lengths: &[usize], poolings: &[Pooling]) -> Result<Vec<f32>, KernelError> {
        let mut rows = vec![0.0; lengths.len() * poolings.len() * self.hidden];
        if let [pooling] = poolings {
            pool(tokens, lengths, self.hidden, *pooling, &mut rows)?;
            return Ok(rows);
        }
        let mut pooled = vec![0.0; lengths.len() * self.hidden];
        for (at, pooling) in poolings.iter().enumerate() {
            pool(tokens, lengths, self.hidden, *pooling, &mut pooled)?;
            for (row, pooled) in rows.chunks_exact_mut(poolings.len() * self.hidden).zip(pooled.chunks(self.hidden)) {
                row[at * self.hidden..][..self.hidden].copy_from_slice(pooled);
            }
        }
        Ok(rows)
    }

    /// The columns that are above 0 in the answer for one text, each as its number and its value.
    fn sparse(&self, tokens: &[f32]) -> Result<Vec<f32>, KernelError> {
        let mut greatest: Vec<f32> = Vec::new();
        for tokens in tokens.chunks(SPARSE_ROWS * self.hidden) {
            let rows = self.apply(tokens.to_vec())?;
            let width = rows.len() / (tokens.len() / self.hidden);
            greatest.resize(width, 0.0);
            for row in rows.chunks_exact(width) {
                // Not `f32::max`, which skips NaN.
                for (most, x) in greatest.iter_mut().zip(row) {
                    if !most.is_nan() && (*x > *most || x.is_nan()) {
                        *most = *x;
                    }
                }
            }
        }
        Ok(positive(&greatest))
    }

    fn apply(&self, rows: Vec<f32>) -> Result<Vec<f32>, KernelError> {
        self.steps.iter().try_fold(rows, |rows, step| step.apply(&self.team, rows))
    }
}

/// The columns that are above 0, each as its number and the logarithm of 1 and its value.
pub(super) fn positive(greatest: &[f32]) -> Vec<f32> {
    let positive = greatest.iter().enumerate().filter(|(_, x)| **x > 0.0 || x.is_nan());
    positive.flat_map(|(column, x)| [column as f32, x.ln_1p()]).collect()
}

/// The tokens of each text.
pub(super) fn texts(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> {
    lengths.iter().scan(0, |start, length| {
        *start += length;
        Some(*start - length..*start)
    })
}

impl LoadedStep {
    fn apply(&self, team: &Team, mut rows: Vec<f32>) -> Result<Vec<f32>, KernelError> {
        match self {
            Self::Product { linear, function } => {
                let mut out = vec![0.0; rows.len() / linear.inputs() * linear.outputs()];
                let (fused, then): (Activation, Option<Scalar>) = match function {
                    HeadFunction::Identity => (Activation::Identity, None),
                    HeadFunction::Relu => (Activation::Relu, None),
                    HeadFunction::Gelu(form) => (Activation::Gelu(*form), None),
                    HeadFunction::Tanh => (Activation::Identity, Some(f32::tanh)),
                    HeadFunction::Silu => (Activation::Identity, Some(|x| x / (1.0 + (-x).exp()))),
                    HeadFunction::Sigmoid => (Activation::Identity, Some(|x| 1.0 / (1.0 + (-x).exp()))),
                };
                linear.forward(team, &rows, &mut out, fused)?;
                if let Some(then) = then {
                    for x in &mut out {
                        *x = then(*x);
                    }
                }
                Ok(out)
            }
            Self::Norm { weight, bias, spec } => {
                rows.chunks_exact_mut(weight.len()).for_each(|row| norm(row, weight, bias.as_deref(), *spec));
                Ok(rows)
            }
        }
    }
}

fn norm(row: &mut [f32], weight: &[f32], bias: Option<&[f32]>, spec: NormSpec) {
    let count = row.len() as f32;
    if let NormKind::Layer { .. } = spec.kind {
        let mean = row.iter().sum::<f32>() / count;
        for x in &mut *row {
            *x -= mean;
        }
    }
    let scale = (row.iter().map(|x| x * x).sum::<f32>() / count + spec.eps).sqrt().recip();
    row.iter_mut().zip(weight).for_each(|(x, weight)| *x *= scale * weight);
    if let Some(bias) = bias {
        row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_numbers_is_not_hidden_by_those_around_it() {
        let head = |rows| RowHead { rows, steps: Vec::new(), hidden: 2, team: Arc::new(Team::alone()) };
        let poolings = Pooling::ALL.into_iter().filter(|pooling| ![Pooling::Cls, Pooling::Last].contains(pooling));
        let pooled = poolings.map(|pooling| HeadRows::Pooled(vec![pooling]));
        for rows in pooled.chain([HeadRows::Tokens, HeadRows::Sparse]) {
            for hidden in [f32::NAN, f32::INFINITY] {
                let tokens = [1.0, 2.0, hidden, 3.0, 4.0, 5.0];
                let answer = head(rows.clone()).forward(&tokens, &[3]).unwrap().concat();
                assert!(answer.iter().any(|x| !x.is_finite()), "{rows:?} of {hidden}: {answer:?}");
            }
        }
    }
}
