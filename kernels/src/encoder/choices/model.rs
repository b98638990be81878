//! Random weights of any spec, and its formulas in f64.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::attention::reference::biased_attention;
use crate::embedding::{Embeddings, Table, TableFormat};
use crate::encoder::{
    AttentionPositions, AttentionSpec, BlockSpec, Dense, Encoder, EncoderSpec, InnerFunction, LayerWeights, Mask,
    NormKind, NormOrder, NormSpec, PackedParts,
};
#[cfg(feature = "cuda")]
use crate::encoder::{
    HeadRows, HeadSpec,
    cuda::{CudaEncoder, CudaPrecision, OuterWeights},
};
use crate::linear::reference::linear;
use crate::linear::{Activation, WeightFormat};
use crate::residual_norm::{LayerNorm, RmsNorm, RowNorm, reference};

/// A norm's weight and bias.
type NormNumbers = (Vec<f32>, Vec<f32>);

/// Random weights of a spec.
pub(in crate::encoder) struct Model {
    pub(in crate::encoder) spec: EncoderSpec,
    words: Vec<f32>,
    positions: Vec<f32>,
    segments: Vec<f32>,
    embedding_norm: NormNumbers,
    projection: Dense,
    relative: Vec<f32>,
    layers: Vec<Layer>,
    final_norm: NormNumbers,
}

struct Layer {
    query: Dense,
    key: Dense,
    value: Dense,
    query_norm: NormNumbers,
    key_norm: NormNumbers,
    output: Dense,
    attention_norm: NormNumbers,
    gate: Dense,
    up: Dense,
    down: Dense,
    output_norm: NormNumbers,
}

impl Model {
    pub(in crate::encoder) fn new(spec: EncoderSpec) -> Self {
        let mut random = StdRng::seed_from_u64(11);
        let mut numbers = |count: usize, around: f32| -> Vec<f32> {
            (0..count).map(|_| around + random.random_range(-0.3..0.3)).collect()
        };
        let mut dense = |inputs: usize, outputs: usize, bias: bool| Dense {
            weight: numbers(inputs * outputs, 0.0),
            bias: if bias { numbers(outputs, 0.0) } else { vec![0.0; outputs] },
        };
        let (hidden, narrow) = (spec.hidden, spec.embedding_size());
        let mut norm = |columns: usize, spec: Option<NormSpec>| {
            let has_bias = spec.is_some_and(|spec| spec.kind == NormKind::Layer { bias: true });
            let Dense { weight, bias } = dense(columns, 1, false);
            let weight: Vec<f32> = weight.into_iter().map(|x| x + 1.0).collect();
            let bias =
                if has_bias { weight.iter().map(|x| x - 1.1).collect() } else { vec![0.0; bias.len().max(columns)] };
            (weight, bias)
        };
        let embedding_norm = norm(narrow, spec.embeddings.norm);
        let final_norm = norm(hidden, spec.final_norm);
        let norms: Vec<_> = spec
            .blocks
            .iter()
            .map(|block| {
                let size = block.attention.head_size;
                let head = block.attention.head_norm;
                [(hidden, block.attention_norm), (hidden, block.output_norm), (size, head), (size, head)]
                    .map(|(columns, spec)| norm(columns, spec))
            })
            .collect();
        let layers = spec.blocks.iter().zip(norms).map(|(block, norms)| {
            let [attention_norm, output_norm, query_norm, key_norm] = norms;
            let BlockSpec { attention, feed_forward, .. } = block;
            let (queries, keys) = (attention.heads, attention.key_value_heads);
            let mut head = |heads: usize| dense(hidden, heads * attention.head_size, attention.bias);
            let (query, key, value) = (head(queries), head(keys), head(keys));
            Layer {
                query,
                key,
                value,
                query_norm,
                key_norm,
                output: dense(queries * attention.head_size, hidden, attention.output_bias),
                attention_norm,
                gate: dense(hidden, feed_forward.inner, feed_forward.bias),
                up: dense(hidden, feed_forward.inner, feed_forward.bias),
                down: dense(feed_forward.inner, hidden, feed_forward.output_bias),
                output_norm,
            }
        });
        let layers = layers.collect();
        let heads = spec.blocks.first().map_or(0, |block| block.attention.heads);
        let mut table = |rows: usize, columns: usize| dense(rows, columns, false).weight;
        Self {
            words: table(spec.embeddings.words, narrow),
            positions: table(spec.embeddings.positions.map_or(0, |table| table.rows), narrow),
            segments: table(spec.embeddings.segments, narrow),
            embedding_norm,
            projection: dense(narrow, hidden, true),
            relative: dense(spec.relative_bias.map_or(0, |bias| bias.buckets), heads, false).weight,
            layers,
            final_norm,
            spec,
        }
    }

    fn embeddings(&self, table: TableFormat) -> Embeddings {
        let (spec, narrow) = (&self.spec.embeddings, self.spec.embedding_size());
        let rows = |values: &[f32], from: usize| {
            let values = values[from * narrow..].to_vec();
            (!values.is_empty()).then(|| Table::new(values, narrow, table).unwrap())
        };
        let first = spec.positions.map_or(0, |table| table.first);
        let (positions, segments) = (rows(&self.positions, first), rows(&self.segments, 0));
        let norm = row_norm(&self.embedding_norm, spec.norm);
        Embeddings::new(rows(&self.words, 0).unwrap(), positions, segments, norm).unwrap()
    }

    /// The encoder on a GPU, with a head that gives the vector of each token.
    #[cfg(feature = "cuda")]
    pub(in crate::encoder) fn on(&self, gpu: crate::cuda::Gpu, precision: CudaPrecision) -> CudaEncoder {
        let head = HeadSpec { rows: HeadRows::Tokens, steps: Vec::new() };
        let spec = EncoderSpec { head, ..self.spec.clone() };
        let weights = OuterWeights {
            embeddings: self.embeddings(TableFormat::F32),
            embedding_projection: spec.embeddings.projected_from.map(|_| self.projection.clone()),
            relative_bias: spec.relative_bias.map(|_| self.relative.clone()),
            final_norm: row_norm(&self.final_norm, spec.final_norm),
            head: Vec::new(),
        };
        let mut encoder = CudaEncoder::new(gpu, precision, &spec, weights).unwrap();
        for (block, layer) in spec.blocks.iter().zip(&self.layers) {
            encoder.push(&layer.weights(block)).unwrap();
        }
        encoder
    }

    pub(in crate::encoder) fn encoder(&self, format: WeightFormat, table: TableFormat) -> Encoder {
        let spec = &self.spec;
        let layer = |(block, layer): (&BlockSpec, &Layer)| layer.weights(block).pack(format).unwrap();
        let parts = PackedParts {
            embeddings: self.embeddings(table),
            embedding_projection: spec
                .embeddings
                .projected_from
                .map(|from| self.projection.pack(from, format).unwrap()),
            relative_bias: spec.relative_bias.map(|_| self.relative.clone()),
            layers: spec.blocks.iter().zip(&self.layers).map(layer).collect(),
            final_norm: row_norm(&self.final_norm, spec.final_norm),
        };
        Encoder::new(spec, parts).unwrap()
    }

    /// The formulas of the spec, one sequence, each step in f64 and rounded after it.
    pub(in crate::encoder) fn reference(&self, ids: &[u32], segments: &[u32]) -> Vec<f32> {
        let (spec, narrow) = (&self.spec, self.spec.embedding_size());
        let row = |table: &[f32], row: usize| table.get(row * narrow..(row + 1) * narrow).unwrap_or(&[]).to_vec();
        let embed = |(position, (id, segment)): (usize, (&u32, &u32))| {
            let first = spec.embeddings.positions.map_or(0, |table| table.first);
            let rows = [
                row(&self.words, *id as usize),
                row(&self.positions, first + position),
                row(&self.segments, *segment as usize),
            ];
            (0..narrow).map(|at| rows.iter().filter_map(|row| row.get(at)).sum()).collect::<Vec<f32>>()
        };
        let mut x: Vec<f32> = ids.iter().zip(segments).enumerate().flat_map(embed).collect();
        x = normed(&x, &self.embedding_norm, spec.embeddings.norm);
        if let Some(from) = spec.embeddings.projected_from {
            x = product(&x, &self.projection, from, Activation::Identity);
        }
        for (block, layer) in spec.blocks.iter().zip(&self.layers) {
            for _ in 0..spec.block_runs {
                x = match block.order {
                    NormOrder::Post => {
                        let a = normed(
                            &sum(&x, &self.attend(block, layer, &x)),
                            &layer.attention_norm,
                            block.attention_norm,
                        );
                        normed(&sum(&a, &feed_forward(block, layer, &a)), &layer.output_norm, block.output_norm)
                    }
                    NormOrder::Pre => {
                        let a = normed(&x, &layer.attention_norm, block.attention_norm);
                        let x = sum(&x, &self.attend(block, layer, &a));
                        let a = normed(&x, &layer.output_norm, block.output_norm);
                        sum(&x, &feed_forward(block, layer, &a))
                    }
                };
            }
        }
        normed(&x, &self.final_norm, spec.final_norm)
    }

    fn attend(&self, block: &BlockSpec, layer: &Layer, x: &[f32]) -> Vec<f32> {
        let AttentionSpec { heads, key_value_heads, head_size: size, mask, positions, head_norm, .. } = block.attention;
        let hidden = self.spec.hidden;
        let of_head = |dense: &Dense, head: usize| -> Vec<f32> {
            let all = product(x, dense, hidden, Activation::Identity);
            all.chunks_exact(dense.bias.len()).flat_map(|row| row[head * size..][..size].to_vec()).collect()
        };
        let prepared = |rows: Vec<f32>, numbers: &NormNumbers, factor: f64| -> Vec<f32> {
            let rows = normed(&rows, numbers, head_norm);
            let turned = rows.chunks_exact(size).enumerate().flat_map(|(position, row)| {
                (0..size).map(move |at| {
                    let (i, half) = (at % (size / 2).max(1), size / 2);
                    let AttentionPositions::Rotary(rotary) = positions else { return f64::from(row[at]) };
                    let (sin, cos) = rotary.angle(position, i, size).sin_cos();
                    let (a, b) = (f64::from(row[i]), f64::from(row[i + half]));
                    if at < half { a * cos - b * sin } else { b * cos + a * sin }
                })
            });
            turned.map(|x| (x * factor) as f32).collect()
        };
        let tokens = x.len() / hidden;
        let mut attended = vec![0.0; tokens * heads * size];
        for head in 0..heads {
            let shared = head / (heads / key_value_heads);
            let query = prepared(of_head(&layer.query, head), &layer.query_norm, (size as f64).sqrt().recip());
            let key = prepared(of_head(&layer.key, shared), &layer.key_norm, 1.0);
            let bias = |query: usize, key: usize| {
                let distance = key.cast_signed() - query.cast_signed();
                let sees = match mask {
                    Mask::Full => true,
                    Mask::Causal => distance <= 0,
                    Mask::Window(most) => distance.unsigned_abs() <= most,
                };
                let alibi = match positions {
                    AttentionPositions::Alibi => -block.attention.alibi_slope(head) * distance.unsigned_abs() as f32,
                    _ => 0.0,
                };
                let learned =
                    self.spec.relative_bias.map_or(0.0, |bias| self.relative[bias.bucket(distance) * heads + head]);
                sees.then_some(f64::from(alibi + learned))
            };
            let mixed = biased_attention(&query, &key, &of_head(&layer.value, shared), size, &bias);
            for (to, from) in attended.chunks_exact_mut(heads * size).zip(mixed.chunks_exact(size)) {
                to[head * size..][..size].iter_mut().zip(from).for_each(|(to, from)| *to = *from as f32);
            }
        }
        product(&attended, &layer.output, heads * size, Activation::Identity)
    }
}

impl Layer {
    fn weights(&self, block: &BlockSpec) -> LayerWeights {
        let BlockSpec { attention: AttentionSpec { head_size, head_norm, .. }, feed_forward, .. } = block;
        let scale = (*head_size as f32).sqrt().recip();
        let mut query_key_value = Dense::default();
        for (at, dense) in [&self.query, &self.key, &self.value].into_iter().enumerate() {
            let scale = if at == 0 && head_norm.is_none() { scale } else { 1.0 };
            query_key_value.weight.extend(dense.weight.iter().map(|x| x * scale));
            query_key_value.bias.extend(dense.bias.iter().map(|x| x * scale));
        }
        let head_norms = head_norm.map(|norm| {
            let of = |numbers| row_norm(numbers, Some(norm)).unwrap();
            [of(&self.query_norm).times(scale), of(&self.key_norm)]
        });
        LayerWeights {
            query_key_value,
            head_norms,
            attention_output: self.output.clone(),
            attention_norm: row_norm(&self.attention_norm, block.attention_norm),
            gate: feed_forward.gated.then(|| self.gate.clone()),
            up: self.up.clone(),
            down: self.down.clone(),
            output_norm: row_norm(&self.output_norm, block.output_norm),
        }
    }
}

fn row_norm((weight, bias): &NormNumbers, spec: Option<NormSpec>) -> Option<RowNorm> {
    spec.map(|NormSpec { kind, eps }| match kind {
        NormKind::Layer { .. } => LayerNorm::new(weight.clone(), bias.clone(), eps).unwrap().into(),
        NormKind::Rms => RowNorm::Rms(RmsNorm::new(weight.clone(), eps).unwrap()),
    })
}

fn rounded(values: impl IntoIterator<Item = f64>) -> Vec<f32> {
    values.into_iter().map(|value| value as f32).collect()
}

fn normed(x: &[f32], (weight, bias): &NormNumbers, spec: Option<NormSpec>) -> Vec<f32> {
    let Some(NormSpec { kind, eps }) = spec else { return x.to_vec() };
    let zeros = vec![0.0; weight.len()];
    rounded(x.chunks_exact(weight.len()).flat_map(|row| match kind {
        NormKind::Layer { .. } => reference::residual_norm(row, &zeros, weight, bias, eps),
        NormKind::Rms => reference::rms_norm(row, weight, eps),
    }))
}

fn product(x: &[f32], dense: &Dense, inputs: usize, activation: Activation) -> Vec<f32> {
    rounded(linear(x, &dense.weight, &dense.bias, inputs, activation))
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn feed_forward(block: &BlockSpec, layer: &Layer, x: &[f32]) -> Vec<f32> {
    let (spec, hidden) = (&block.feed_forward, layer.down.bias.len());
    let activation = match spec.function {
        InnerFunction::Gelu(form) => Activation::Gelu(form),
        InnerFunction::Relu => Activation::Relu,
        InnerFunction::Silu => Activation::Silu,
    };
    let inner = if spec.gated {
        let (gate, up) =
            (product(x, &layer.gate, hidden, activation), product(x, &layer.up, hidden, Activation::Identity));
        gate.iter().zip(up).map(|(gate, up)| gate * up).collect()
    } else {
        product(x, &layer.up, hidden, activation)
    };
    product(&inner, &layer.down, spec.inner, Activation::Identity)
}
