//! The formulas of a spec in f64, one token after the other: plain code that the engines are compared with.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sconce_kernels::pooling::Pooling;

use super::{BlockPart, EncoderPart, EncoderWeights, HeadTensors, TensorNames, Tokens};
use crate::{
    AttentionPositions, AttentionSpec, EncoderSpec, GeluForm, HeadFunction, HeadRows, HeadStep, InnerFunction, Mask,
    NormKind, NormOrder, Weights,
};

const NAMES: TensorNames = TensorNames {
    optional_prefix: "model.",
    words: "words",
    positions: "positions",
    segments: "segments",
    embedding_norm: "embedding_norm",
    embedding_projection: "embedding_projection",
    relative_bias: "relative_bias",
    blocks: "blocks",
    query: "query",
    key: "key",
    value: "value",
    query_norm: "query_norm",
    key_norm: "key_norm",
    attention_output: "attention_output",
    attention_norm: "attention_norm",
    gate: "gate",
    up: "up",
    down: "down",
    output_norm: "output_norm",
    final_norm: "final_norm",
    ..TensorNames::NONE
};

/// The names of as many steps of a head as a spec has.
pub(super) fn head_names(spec: &EncoderSpec) -> Vec<HeadTensors> {
    (0..spec.head.steps.len()).map(|step| HeadTensors::Named(format!("head.{step}").into())).collect()
}

/// A file of random weights for a spec, and the names in it. It holds the parts of the spec and nothing else.
pub(super) fn random_weights(spec: &EncoderSpec) -> (Weights, &'static TensorNames, Vec<HeadTensors>) {
    let mut random = StdRng::seed_from_u64(7);
    let empty = Weights::new("empty".into(), safetensors::serialize([("a", view())], None).unwrap()).unwrap();
    let head = head_names(spec);
    let shapes = EncoderWeights::new(spec, &empty, &NAMES, &head);
    let mut tensors = HashMap::new();
    for part in parts(spec) {
        let is_norm = shapes.norm(part).is_some();
        let mut add = |ending: &str, shape: &[usize], around: f32| {
            let count = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|_| around + random.random_range(-0.3..0.3)).collect();
            let name = match part {
                EncoderPart::Head(step) => format!("head.{step}.{ending}"),
                part => format!("{}{}.{ending}", NAMES.optional_prefix, NAMES.of(part, |_| 0).name),
            };
            tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
        };
        add("weight", &shapes.shape(part), if is_norm { 1.0 } else { 0.0 });
        if shapes.has_bias(part) {
            add("bias", &shapes.shape(part)[..1], 0.0);
        }
    }
    (Weights::new("random".into(), safetensors::serialize(tensors, None).unwrap()).unwrap(), &NAMES, head)
}

fn view() -> Tensor {
    Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu).unwrap()
}

fn parts(spec: &EncoderSpec) -> Vec<EncoderPart> {
    let EncoderSpec { embeddings, blocks, final_norm, head, relative_bias, .. } = spec;
    let mut parts = vec![(EncoderPart::Words, true)];
    parts.push((EncoderPart::Positions, embeddings.positions.is_some()));
    parts.push((EncoderPart::Segments, embeddings.segments > 0));
    parts.push((EncoderPart::EmbeddingNorm, embeddings.norm.is_some()));
    parts.push((EncoderPart::EmbeddingProjection, embeddings.projected_from.is_some()));
    parts.push((EncoderPart::RelativeBias, relative_bias.is_some()));
    for (index, block) in blocks.iter().enumerate() {
        use BlockPart::{
            AttentionNorm, AttentionOutput, Down, Gate, Key, KeyNorm, OutputNorm, Query, QueryNorm, Up, Value,
        };
        let has_head_norm = block.attention.head_norm.is_some();
        let of_block = [
            (Query, true),
            (Key, true),
            (Value, true),
            (QueryNorm, has_head_norm),
            (KeyNorm, has_head_norm),
            (AttentionOutput, true),
            (AttentionNorm, block.attention_norm.is_some()),
            (Gate, block.feed_forward.gated),
            (Up, true),
            (Down, true),
            (OutputNorm, block.output_norm.is_some()),
        ];
        parts.extend(of_block.map(|(part, has)| (EncoderPart::Block(index, part), has)));
    }
    parts.push((EncoderPart::FinalNorm, final_norm.is_some()));
    parts.extend((0..head.steps.len()).map(|step| (EncoderPart::Head(step), true)));
    parts.into_iter().filter(|(_, has)| *has).map(|(part, _)| part).collect()
}

/// A vector for each token.
type Vectors = Vec<Vec<f64>>;

/// The row that an engine must give for a text.
pub(super) fn reference(weights: &EncoderWeights<'_>, text: Tokens<'_>) -> Vec<f32> {
    let model = Reference { weights };
    let spec = weights.spec();
    let mut x = model.embed(text);
    for index in 0..spec.blocks.len() {
        for _ in 0..spec.block_runs {
            x = model.block(index, x);
        }
    }
    if spec.final_norm.is_some() {
        x = model.norm(EncoderPart::FinalNorm, &x);
    }
    #[expect(clippy::cast_possible_truncation, reason = "rows are f32")]
    let rounded = model.head(&x).into_iter().map(|x| x as f32).collect();
    rounded
}

fn pooled(x: &Vectors, pooling: Pooling) -> Vec<f64> {
    let count = x.len() as f64;
    let of_column = |at: usize| {
        let column: Vec<f64> = x.iter().map(|token| token[at]).collect();
        match pooling {
            Pooling::Cls => column[0],
            Pooling::Last => column[column.len() - 1],
            Pooling::Max => column.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Pooling::Mean => column.iter().sum::<f64>() / count,
            Pooling::MeanSqrtLength => column.iter().sum::<f64>() / count.sqrt(),
            Pooling::WeightedMean => {
                let weighted = column.iter().zip(1..).map(|(x, weight)| x * f64::from(weight)).sum::<f64>();
                weighted * 2.0 / (count * (count + 1.0))
            }
        }
    };
    (0..x[0].len()).map(of_column).collect()
}

struct Reference<'a> {
    weights: &'a EncoderWeights<'a>,
}

impl Reference<'_> {
    fn embed(&self, Tokens { ids, segments }: Tokens<'_>) -> Vectors {
        let spec = self.weights.spec();
        let (embeddings, columns) = (&spec.embeddings, spec.embedding_size());
        let row = |part, row: usize| self.weights.weight(part).unwrap()[row * columns..][..columns].to_vec();
        let embed = |(at, (id, segment)): (usize, (&u32, &u32))| {
            let mut rows = vec![row(EncoderPart::Words, *id as usize)];
            rows.extend(embeddings.positions.map(|table| row(EncoderPart::Positions, table.first + at)));
            rows.extend((embeddings.segments > 0).then(|| row(EncoderPart::Segments, *segment as usize)));
            (0..columns).map(|at| rows.iter().map(|row| f64::from(row[at])).sum()).collect()
        };
        let x: Vectors = ids.iter().zip(segments).enumerate().map(embed).collect();
        let x = if embeddings.norm.is_some() { self.norm(EncoderPart::EmbeddingNorm, &x) } else { x };
        if embeddings.projected_from.is_some() { self.product(EncoderPart::EmbeddingProjection, &x) } else { x }
    }

    fn head(&self, x: &Vectors) -> Vec<f64> {
        let head = &self.weights.spec().head;
        let mut rows = match &head.rows {
            HeadRows::Pooled(poolings) => vec![poolings.iter().flat_map(|pooling| pooled(x, *pooling)).collect()],
            HeadRows::Tokens | HeadRows::Sparse => x.clone(),
        };
        for (index, step) in head.steps.iter().enumerate() {
            let part = EncoderPart::Head(index);
            rows = match step {
                HeadStep::Norm(_) => self.norm(part, &rows),
                HeadStep::Product { function, .. } => {
                    let mut rows = self.product(part, &rows);
                    rows.iter_mut().flatten().for_each(|x| *x = of_head(*function, *x));
                    rows
                }
            };
        }
        if head.rows == HeadRows::Sparse {
            let most = |at: usize| rows.iter().map(|row| row[at]).fold(f64::NEG_INFINITY, f64::max);
            let positive = (0..rows[0].len()).map(|at| (at, most(at))).filter(|(_, x)| *x > 0.0);
            return positive.flat_map(|(at, x)| [at as f64, x.ln_1p()]).collect();
        }
        rows.concat()
    }

    fn block(&self, index: usize, x: Vectors) -> Vectors {
        let norm = |part, x: Vectors| {
            let part = EncoderPart::Block(index, part);
            if self.weights.norm(part).is_some() { self.norm(part, &x) } else { x }
        };
        match self.weights.spec().blocks[index].order {
            NormOrder::Post => {
                let x = norm(BlockPart::AttentionNorm, sum(self.attend(index, &x), x));
                norm(BlockPart::OutputNorm, sum(self.feed_forward(index, &x), x))
            }
            NormOrder::Pre => {
                let x = sum(self.attend(index, &norm(BlockPart::AttentionNorm, x.clone())), x);
                sum(self.feed_forward(index, &norm(BlockPart::OutputNorm, x.clone())), x)
            }
        }
    }

    fn attend(&self, index: usize, x: &Vectors) -> Vectors {
        let spec = self.weights.spec().blocks[index].attention;
        let AttentionSpec { heads, key_value_heads, head_size: size, mask, positions, .. } = spec;
        let product = |part| self.product(EncoderPart::Block(index, part), x);
        let (query, key, value) = (product(BlockPart::Query), product(BlockPart::Key), product(BlockPart::Value));
        let head = |vectors: &Vectors, token: usize, head: usize, norm: BlockPart| {
            let vector = vectors[token][head * size..][..size].to_vec();
            let part = EncoderPart::Block(index, norm);
            let vector = if spec.head_norm.is_some() { self.norm(part, &[vector]).remove(0) } else { vector };
            match positions {
                AttentionPositions::Rotary(rotary) => rotated(&vector, |i| rotary.angle(token, i, size)),
                AttentionPositions::None | AttentionPositions::Alibi => vector,
            }
        };
        let relative = self
            .weights
            .spec()
            .relative_bias
            .map(|bias| (bias, self.weights.weight(EncoderPart::RelativeBias).unwrap()));
        let bias = |at: usize, query: usize, key: usize| {
            let of_table = relative.as_ref().map_or(0.0, |(bias, table)| {
                f64::from(table[bias.bucket(key.cast_signed() - query.cast_signed()) * heads + at])
            });
            let slope = if positions == AttentionPositions::Alibi { f64::from(spec.alibi_slope(at)) } else { 0.0 };
            of_table - slope * query.abs_diff(key) as f64
        };
        let sees = |query: usize, key: usize| match mask {
            Mask::Full => true,
            Mask::Causal => key <= query,
            Mask::Window(most) => query.abs_diff(key) <= most,
        };
        let mut attended = vec![Vec::new(); x.len()];
        for (token, mixed) in attended.iter_mut().enumerate() {
            for at in 0..heads {
                let shared = at * key_value_heads / heads;
                let query = head(&query, token, at, BlockPart::QueryNorm);
                let keys: Vec<usize> = (0..x.len()).filter(|key| sees(token, *key)).collect();
                let score = |other: &usize| {
                    let key = head(&key, *other, shared, BlockPart::KeyNorm);
                    dot(&query, &key) / (size as f64).sqrt() + bias(at, token, *other)
                };
                let weights: Vec<f64> = keys.iter().map(|other| score(other).exp()).collect();
                let total: f64 = weights.iter().sum();
                mixed.extend((0..size).map(|element| {
                    let parts = keys.iter().zip(&weights);
                    parts.map(|(other, weight)| weight / total * value[*other][shared * size + element]).sum::<f64>()
                }));
            }
        }
        self.product(EncoderPart::Block(index, BlockPart::AttentionOutput), &attended)
    }

    fn feed_forward(&self, index: usize, x: &Vectors) -> Vectors {
        let spec = self.weights.spec().blocks[index].feed_forward;
        let function = |x: f64| match spec.function {
            InnerFunction::Gelu(form) => gelu(form, x),
            InnerFunction::Relu => x.max(0.0),
            InnerFunction::Silu => x / (1.0 + (-x).exp()),
        };
        let mut inner = self.product(EncoderPart::Block(index, BlockPart::Up), x);
        if spec.gated {
            let gate = self.product(EncoderPart::Block(index, BlockPart::Gate), x);
            for (inner, gate) in inner.iter_mut().flatten().zip(gate.into_iter().flatten()) {
                *inner *= function(gate);
            }
        } else {
            inner.iter_mut().flatten().for_each(|x| *x = function(*x));
        }
        self.product(EncoderPart::Block(index, BlockPart::Down), &inner)
    }

    fn product(&self, part: EncoderPart, x: &[Vec<f64>]) -> Vectors {
        let weight: Vec<f64> = self.weights.weight(part).unwrap().into_iter().map(f64::from).collect();
        let bias = self.weights.bias(part).unwrap();
        let outputs = weight.len() / self.weights.inputs(part);
        let bias = bias.unwrap_or_else(|| vec![0.0; outputs]);
        let row = |x: &Vec<f64>| {
            let rows = weight.chunks_exact(x.len()).zip(&bias);
            rows.map(|(weight, bias)| dot(weight, x) + f64::from(*bias)).collect()
        };
        x.iter().map(row).collect()
    }

    fn norm(&self, part: EncoderPart, x: &[Vec<f64>]) -> Vectors {
        let spec = self.weights.norm(part).unwrap();
        let (weight, bias) = (self.weights.weight(part).unwrap(), self.weights.bias(part).unwrap());
        let bias = bias.unwrap_or_else(|| vec![0.0; weight.len()]);
        let row = |x: &Vec<f64>| {
            let mean = match spec.kind {
                NormKind::Layer { .. } => x.iter().sum::<f64>() / x.len() as f64,
                NormKind::Rms => 0.0,
            };
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (variance + f64::from(spec.eps)).sqrt();
            let parts = x.iter().zip(weight.iter().zip(&bias));
            parts.map(|(x, (weight, bias))| (x - mean) * scale * f64::from(*weight) + f64::from(*bias)).collect()
        };
        x.iter().map(row).collect()
    }
}

fn sum(mut x: Vectors, other: Vectors) -> Vectors {
    x.iter_mut().flatten().zip(other.into_iter().flatten()).for_each(|(x, other)| *x += other);
    x
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Rotates each pair of elements `i` and `i + size / 2` by `angle(i)` (pairs as in Hugging Face).
fn rotated(x: &[f64], angle: impl Fn(usize) -> f64) -> Vec<f64> {
    let half = x.len() / 2;
    let mut turned = vec![0.0; x.len()];
    for i in 0..half {
        let (sin, cos) = angle(i).sin_cos();
        turned[i] = x[i] * cos - x[i + half] * sin;
        turned[i + half] = x[i] * sin + x[i + half] * cos;
    }
    turned
}

fn gelu(form: GeluForm, x: f64) -> f64 {
    match form {
        GeluForm::Erf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        GeluForm::Tanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
    }
}

fn of_head(function: HeadFunction, x: f64) -> f64 {
    match function {
        HeadFunction::Identity => x,
        HeadFunction::Tanh => x.tanh(),
        HeadFunction::Relu => x.max(0.0),
        HeadFunction::Gelu(form) => gelu(form, x),
        HeadFunction::Silu => x / (1.0 + (-x).exp()),
        HeadFunction::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// The error function by its series (Abramowitz and Stegun 7.1.5), with enough terms for |x| < 6.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.5 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        let n = f64::from(n);
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    2.0 / std::f64::consts::PI.sqrt() * sum
}
