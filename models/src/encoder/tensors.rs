//! Any encoder as candle's operations: for devices without an engine of their own, and for sizes that CUDA's kernels do
//! not take. In tests, the CPU's kernels are compared with it.
//!
//! The tokens of all texts lie end to end in one `[tokens, hidden]` matrix, so there is no padding. Products and norms
//! take the whole matrix; attention takes one [`Run`] of texts of equal length at a time.

mod positions;

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::{layer_norm, rms_norm, softmax_last_dim};
use candle_nn::rotary_emb::rope;
use sconce_kernels::Team;
use sconce_kernels::bias_gelu::{GeluForm, bias_gelu_tensor};
use sconce_kernels::encoder::{
    AttentionSpec, BlockSpec, EncoderSpec, InnerFunction, NormKind, NormOrder, NormSpec, RelativeBias,
};

use positions::RunPositions;

use super::head::RowHead;
use super::{BlockPart, EncoderEngine, EncoderPart, EncoderWeights, Tokens};
use crate::{ForwardError, LoadError, TensorDevice};

/// An encoder and its head as tensors of a device.
pub(crate) struct TensorEncoder {
    embeddings: TensorEmbeddings,
    blocks: Vec<Block>,
    block_runs: usize,
    relative_bias: Option<(RelativeBias, Tensor)>,
    final_norm: Option<TensorNorm>,
    head: RowHead,
    device: Device,
}

impl TensorEncoder {
    /// Reads an encoder; its head runs on the threads of `team`.
    pub(crate) fn load(
        weights: &EncoderWeights<'_>,
        device: &TensorDevice,
        team: &Arc<Team>,
    ) -> std::result::Result<Self, LoadError> {
        let device = device.as_candle().clone();
        let parts = TensorParts { weights: *weights, device: &device };
        let spec = weights.spec();
        Ok(Self {
            embeddings: TensorEmbeddings::load(&parts, spec)?,
            blocks: (0..spec.blocks.len())
                .map(|index| Block::load(&parts, index))
                .collect::<std::result::Result<_, _>>()?,
            block_runs: spec.block_runs,
            relative_bias: match spec.relative_bias {
                Some(bias) => Some((bias, parts.table(EncoderPart::RelativeBias)?)),
                None => None,
            },
            final_norm: parts.norm(EncoderPart::FinalNorm)?,
            head: RowHead::load(weights, team)?,
            device,
        })
    }

    fn rows(&self, items: &[Tokens<'_>]) -> std::result::Result<Vec<Vec<f32>>, ForwardError> {
        let mut by_length: Vec<usize> = (0..items.len()).collect();
        by_length.sort_by_key(|item| items[*item].ids.len());
        let batch = RunBatch::pack(by_length.iter().map(|item| items[*item]));
        let vectors = self.token_vectors(&batch)?.flatten_all()?.to_vec1::<f32>()?;
        let lengths: Vec<usize> = by_length.iter().map(|item| items[*item].ids.len()).collect();
        let mut rows = vec![Vec::new(); items.len()];
        for (item, row) in by_length.into_iter().zip(self.head.forward(&vectors, &lengths)?) {
            rows[item] = row;
        }
        Ok(rows)
    }

    fn token_vectors(&self, batch: &RunBatch) -> Result<Tensor> {
        let mut x = self.embeddings.forward(batch, &self.device)?;
        let mut positions: Vec<(AttentionSpec, Vec<RunPositions>)> = Vec::new();
        for block in &self.blocks {
            let attention = block.spec.attention;
            let known = positions.iter().position(|(spec, _)| *spec == attention);
            let known = if let Some(known) = known {
                known
            } else {
                let of_run = |run: &Run| RunPositions::new(&attention, *run, self.relative_bias.as_ref(), &self.device);
                positions.push((attention, batch.runs.iter().map(of_run).collect::<Result<_>>()?));
                positions.len() - 1
            };
            for _ in 0..self.block_runs {
                x = block.forward(x, &batch.runs, &positions[known].1)?;
            }
        }
        self.final_norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x))
    }
}

impl EncoderEngine for TensorEncoder {
    fn forward(&mut self, items: &[Tokens<'_>]) -> std::result::Result<Vec<Vec<f32>>, ForwardError> {
        self.rows(items)
    }
}

/// Neighbouring texts of equal length in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Row of the first token.
    start: usize,
    texts: usize,
    /// Tokens of each text.
    length: usize,
}

impl Run {
    fn tokens(&self) -> usize {
        self.texts * self.length
    }
}

/// The tokens of a batch, end to end.
struct RunBatch {
    ids: Vec<u32>,
    segments: Vec<u32>,
    positions: Vec<u32>,
    runs: Vec<Run>,
}

impl RunBatch {
    /// Puts texts end to end; neighbours of equal length become one run.
    fn pack<'a>(texts: impl Iterator<Item = Tokens<'a>>) -> Self {
        let mut packed = Self { ids: Vec::new(), segments: Vec::new(), positions: Vec::new(), runs: Vec::new() };
        for Tokens { ids, segments } in texts {
            let (start, length) = (packed.ids.len(), ids.len());
            match packed.runs.last_mut() {
                Some(run) if run.length == length => run.texts += 1,
                _ => packed.runs.push(Run { start, texts: 1, length }),
            }
            packed.ids.extend_from_slice(ids);
            packed.segments.extend_from_slice(segments);
            packed.positions.extend((0..).take(length));
        }
        packed
    }
}

/// The weights as tensors of the device.
struct TensorParts<'a> {
    weights: EncoderWeights<'a>,
    device: &'a Device,
}

impl TensorParts<'_> {
    fn tensor(&self, values: Vec<f32>, columns: usize) -> std::result::Result<Tensor, LoadError> {
        let rows = values.len() / columns;
        let shape = if rows == 1 { vec![columns] } else { vec![rows, columns] };
        Tensor::from_vec(values, shape, self.device).map_err(|source| self.weights.file().error(source))
    }

    fn table(&self, part: EncoderPart) -> std::result::Result<Tensor, LoadError> {
        let columns = self.weights.inputs(part);
        let values = self.weights.weight(part)?;
        let rows = values.len() / columns;
        Tensor::from_vec(values, (rows, columns), self.device).map_err(|source| self.weights.file().error(source))
    }

    fn norm(&self, part: EncoderPart) -> std::result::Result<Option<TensorNorm>, LoadError> {
        let Some(NormSpec { kind, eps }) = self.weights.norm(part).copied() else { return Ok(None) };
        let weight = self.weights.weight(part)?;
        let columns = weight.len();
        let bias = match kind {
            NormKind::Layer { .. } => {
                let bias = self.weights.bias(part)?.unwrap_or_else(|| vec![0.0; columns]);
                Some(self.tensor(bias, columns)?)
            }
            NormKind::Rms => None,
        };
        Ok(Some(TensorNorm { weight: self.tensor(weight, columns)?, bias, eps }))
    }

    fn product(&self, part: EncoderPart) -> std::result::Result<Product, LoadError> {
        self.products(&[part])
    }

    /// One product that gives the outputs of several parts side by side.
    fn products(&self, parts: &[EncoderPart]) -> std::result::Result<Product, LoadError> {
        let (mut weight, mut bias, mut inputs) = (Vec::new(), Vec::new(), 1);
        for part in parts {
            let (values, its_bias) = (self.weights.weight(*part)?, self.weights.bias(*part)?);
            inputs = self.weights.inputs(*part);
            weight.extend(values);
            bias.extend(its_bias.unwrap_or_default());
        }
        let (outputs, error) = (weight.len() / inputs, |source| self.weights.file().error(source));
        let weight = Tensor::from_vec(weight, (outputs, inputs), self.device).and_then(|it| it.t()).map_err(error)?;
        let bias = if bias.is_empty() { None } else { Some(self.tensor(bias, outputs)?) };
        Ok(Product { weight, bias })
    }
}

/// `x·Wᵀ + b`
struct Product {
    /// `[inputs, outputs]`
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Product {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = x.matmul(&self.weight)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}

struct TensorNorm {
    weight: Tensor,
    /// `None` for a root mean square.
    bias: Option<Tensor>,
    eps: f32,
}

impl TensorNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) => layer_norm(x, &self.weight, bias, self.eps),
            None => rms_norm(x, &self.weight, self.eps),
        }
    }
}

struct TensorEmbeddings {
    words: Tensor,
    positions: Option<(Tensor, u32)>,
    segments: Option<Tensor>,
    norm: Option<TensorNorm>,
    projection: Option<Product>,
}

impl TensorEmbeddings {
    fn load(parts: &TensorParts<'_>, spec: &EncoderSpec) -> std::result::Result<Self, LoadError> {
        let positions = match spec.embeddings.positions {
            Some(table) => Some((parts.table(EncoderPart::Positions)?, u32::try_from(table.first).unwrap_or(u32::MAX))),
            None => None,
        };
        let segments = if spec.embeddings.segments == 0 { None } else { Some(parts.table(EncoderPart::Segments)?) };
        Ok(Self {
            words: parts.table(EncoderPart::Words)?,
            positions,
            segments,
            norm: parts.norm(EncoderPart::EmbeddingNorm)?,
            projection: match spec.embeddings.projected_from {
                Some(_) => Some(parts.product(EncoderPart::EmbeddingProjection)?),
                None => None,
            },
        })
    }

    fn forward(&self, batch: &RunBatch, device: &Device) -> Result<Tensor> {
        let rows = |table: &Tensor, ids: &[u32]| table.index_select(&Tensor::new(ids, device)?, 0);
        let mut x = rows(&self.words, &batch.ids)?;
        if let Some(segments) = &self.segments {
            x = (x + rows(segments, &batch.segments)?)?;
        }
        if let Some((positions, first)) = &self.positions {
            let numbers: Vec<u32> = batch.positions.iter().map(|position| first + position).collect();
            x = (x + rows(positions, &numbers)?)?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        self.projection.as_ref().map_or(Ok(x.clone()), |projection| projection.forward(&x))
    }
}

struct Block {
    spec: BlockSpec,
    query_key_value: Product,
    head_norms: Option<[TensorNorm; 2]>,
    attention_output: Product,
    attention_norm: Option<TensorNorm>,
    gate: Option<Product>,
    up: Product,
    down: Product,
    output_norm: Option<TensorNorm>,
}

impl Block {
    fn load(parts: &TensorParts<'_>, index: usize) -> std::result::Result<Self, LoadError> {
        let part = |part| EncoderPart::Block(index, part);
        let norm = |which| parts.norm(part(which));
        let spec = parts.weights.spec().blocks[index].clone();
        Ok(Self {
            query_key_value: parts.products(&[BlockPart::Query, BlockPart::Key, BlockPart::Value].map(part))?,
            head_norms: norm(BlockPart::QueryNorm)?.zip(norm(BlockPart::KeyNorm)?).map(|(query, key)| [query, key]),
            attention_output: parts.product(part(BlockPart::AttentionOutput))?,
            attention_norm: norm(BlockPart::AttentionNorm)?,
            gate: if spec.feed_forward.gated { Some(parts.product(part(BlockPart::Gate))?) } else { None },
            up: parts.product(part(BlockPart::Up))?,
            down: parts.product(part(BlockPart::Down))?,
            output_norm: norm(BlockPart::OutputNorm)?,
            spec,
        })
    }

    fn forward(&self, x: Tensor, runs: &[Run], positions: &[RunPositions]) -> Result<Tensor> {
        let (first, second) = (self.attention_norm.as_ref(), self.output_norm.as_ref());
        match self.spec.order {
            NormOrder::Post => {
                let x = normed(&(self.attend(&x, runs, positions)? + x)?, first)?;
                normed(&(self.feed_forward(&x)? + x)?, second)
            }
            NormOrder::Pre => {
                let x = (self.attend(&normed(&x, first)?, runs, positions)? + x)?;
                self.feed_forward(&normed(&x, second)?)? + x
            }
        }
    }

    fn attend(&self, x: &Tensor, runs: &[Run], positions: &[RunPositions]) -> Result<Tensor> {
        let query_key_value = self.query_key_value.forward(x)?;
        let of_run = |(run, positions): (&Run, &RunPositions)| self.attend_run(&query_key_value, *run, positions);
        let attended: Vec<Tensor> = runs.iter().zip(positions).map(of_run).collect::<Result<_>>()?;
        self.attention_output.forward(&Tensor::cat(&attended, 0)?)
    }

    /// Softmax(Q·Kᵀ/√d)·V within each text of a run; all texts and heads are one batched product.
    fn attend_run(&self, query_key_value: &Tensor, run: Run, positions: &RunPositions) -> Result<Tensor> {
        let AttentionSpec { heads, key_value_heads, head_size, .. } = self.spec.attention;
        let of_run = query_key_value.narrow(0, run.start, run.tokens())?;
        let by_head = |first: usize, heads: usize| {
            let part = of_run.narrow(1, first * head_size, heads * head_size)?;
            part.reshape((run.texts, run.length, heads, head_size))?.transpose(1, 2)?.contiguous()
        };
        let mut query = by_head(0, heads)?;
        let mut key = by_head(heads, key_value_heads)?;
        let value = by_head(heads + key_value_heads, key_value_heads)?;
        if let Some([of_query, of_key]) = &self.head_norms {
            (query, key) = (of_query.forward(&query)?, of_key.forward(&key)?);
        }
        query = (query * (head_size as f64).sqrt().recip())?;
        if let Some((cos, sin)) = &positions.rotations {
            query = rope(&query, cos, sin)?;
            key = rope(&key, cos, sin)?;
        }
        let (key, value) = (shared(key, heads)?, shared(value, heads)?);
        let mut scores = query.matmul(&key.t()?)?;
        if let Some(bias) = &positions.bias {
            scores = scores.broadcast_add(bias)?;
        }
        let mixed = softmax_last_dim(&scores)?.matmul(&value)?;
        mixed.transpose(1, 2)?.reshape((run.tokens(), heads * head_size))
    }

    fn feed_forward(&self, x: &Tensor) -> Result<Tensor> {
        let function = self.spec.feed_forward.function;
        let inner = match &self.gate {
            Some(gate) => (activate(gate, x, function)? * self.up.forward(x)?)?,
            None => activate(&self.up, x, function)?,
        };
        self.down.forward(&inner)
    }
}

fn normed(x: &Tensor, norm: Option<&TensorNorm>) -> Result<Tensor> {
    norm.map_or_else(|| Ok(x.clone()), |norm| norm.forward(x))
}

/// Applies a function to a product of `x`.
fn activate(product: &Product, x: &Tensor, function: InnerFunction) -> Result<Tensor> {
    match (function, &product.bias) {
        (InnerFunction::Gelu(form), Some(bias)) => bias_gelu_tensor(x.matmul(&product.weight)?, bias, form),
        (InnerFunction::Gelu(GeluForm::Erf), None) => product.forward(x)?.gelu_erf(),
        (InnerFunction::Gelu(GeluForm::Tanh), None) => product.forward(x)?.gelu(),
        (InnerFunction::Relu, _) => product.forward(x)?.relu(),
        (InnerFunction::Silu, _) => product.forward(x)?.silu(),
    }
}

/// Repeats keys or values of `[texts, key_value_heads, length, size]` for the heads that share them: `[texts, heads,
/// length, size]`.
fn shared(x: Tensor, heads: usize) -> Result<Tensor> {
    let (texts, own, length, size) = x.dims4()?;
    if own == heads {
        return Ok(x);
    }
    x.unsqueeze(2)?.expand((texts, own, heads / own, length, size))?.reshape((texts, heads, length, size))
}
