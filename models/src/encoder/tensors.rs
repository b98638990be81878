//! Any encoder as candle's operations: for devices without an engine of their own, and for specs that the fused engines
//! lack.
//!
//! The tokens of all texts lie end to end in one `[tokens, hidden]` matrix, so there is no padding. Products and norms
//! take the whole matrix; attention takes one [`Run`] of texts of equal length at a time.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, rms_norm, softmax_last_dim};
use candle_nn::rotary_emb::rope;
use sconce_kernels::bias_gelu::{GeluForm, bias_gelu_tensor};
use sconce_kernels::encoder::{
    AttentionSpec, BlockSpec, EncoderSpec, HeadFunction, HeadSpec, InnerFunction, Mask, NormKind, NormOrder, NormSpec,
};
use sconce_kernels::pooling::Pooling;

use super::{BlockPart, EncoderEngine, EncoderPart, EncoderWeights, Tokens};
use crate::{ForwardError, LoadError, TensorDevice};

/// An encoder and its head as tensors of a device.
pub(crate) struct TensorEncoder {
    embeddings: Embeddings,
    blocks: Vec<Block>,
    final_norm: Option<TensorNorm>,
    head: Head,
    device: Device,
}

impl TensorEncoder {
    pub(crate) fn load(weights: &EncoderWeights<'_>, device: &TensorDevice) -> std::result::Result<Self, LoadError> {
        let device = device.as_candle().clone();
        let parts = TensorParts { weights: *weights, device: &device };
        let spec = weights.spec();
        Ok(Self {
            embeddings: Embeddings::load(&parts, spec)?,
            blocks: (0..spec.blocks.len())
                .map(|index| Block::load(&parts, index))
                .collect::<std::result::Result<_, _>>()?,
            final_norm: parts.norm(EncoderPart::FinalNorm)?,
            head: Head::load(&parts, spec.head)?,
            device,
        })
    }

    fn rows(&self, items: &[Tokens<'_>]) -> Result<Vec<Vec<f32>>> {
        let mut by_length: Vec<usize> = (0..items.len()).collect();
        by_length.sort_by_key(|item| items[*item].ids.len());
        let batch = Batch::pack(by_length.iter().map(|item| items[*item]));
        let mut x = self.embeddings.forward(&batch, &self.device)?;
        for block in &self.blocks {
            x = block.forward(x, &batch.runs)?;
        }
        if let Some(norm) = &self.final_norm {
            x = norm.forward(&x)?;
        }
        let sorted_rows = self.head.forward(&x, &batch.runs)?.to_vec2::<f32>()?;
        let mut rows = vec![Vec::new(); items.len()];
        for (item, row) in by_length.into_iter().zip(sorted_rows) {
            rows[item] = row;
        }
        Ok(rows)
    }
}

impl EncoderEngine for TensorEncoder {
    fn forward(&mut self, items: &[Tokens<'_>]) -> std::result::Result<Vec<Vec<f32>>, ForwardError> {
        Ok(self.rows(items)?)
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
struct Batch {
    ids: Vec<u32>,
    segments: Vec<u32>,
    positions: Vec<u32>,
    runs: Vec<Run>,
}

impl Batch {
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
        let hidden = self.weights.spec().hidden;
        let values = self.weights.weight(part)?;
        let rows = values.len() / hidden;
        Tensor::from_vec(values, (rows, hidden), self.device).map_err(|source| self.weights.file().error(source))
    }

    fn norm(&self, part: EncoderPart) -> std::result::Result<Option<TensorNorm>, LoadError> {
        let Some(NormSpec { kind, eps }) = self.weights.norm(part).copied() else { return Ok(None) };
        let hidden = self.weights.spec().hidden;
        let weight = self.tensor(self.weights.weight(part)?, hidden)?;
        let bias = match kind {
            NormKind::Layer { .. } => {
                let bias = self.weights.bias(part)?.unwrap_or_else(|| vec![0.0; hidden]);
                Some(self.tensor(bias, hidden)?)
            }
            NormKind::Rms => None,
        };
        Ok(Some(TensorNorm { weight, bias, eps }))
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

struct Embeddings {
    words: Tensor,
    positions: Option<(Tensor, u32)>,
    segments: Option<Tensor>,
    norm: Option<TensorNorm>,
}

impl Embeddings {
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
        })
    }

    fn forward(&self, batch: &Batch, device: &Device) -> Result<Tensor> {
        let rows = |table: &Tensor, ids: &[u32]| table.index_select(&Tensor::new(ids, device)?, 0);
        let mut x = rows(&self.words, &batch.ids)?;
        if let Some(segments) = &self.segments {
            x = (x + rows(segments, &batch.segments)?)?;
        }
        if let Some((positions, first)) = &self.positions {
            let numbers: Vec<u32> = batch.positions.iter().map(|position| first + position).collect();
            x = (x + rows(positions, &numbers)?)?;
        }
        self.norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x))
    }
}

struct Block {
    spec: BlockSpec,
    query_key_value: Product,
    attention_output: Product,
    attention_norm: TensorNorm,
    gate: Option<Product>,
    up: Product,
    down: Product,
    output_norm: TensorNorm,
}

impl Block {
    fn load(parts: &TensorParts<'_>, index: usize) -> std::result::Result<Self, LoadError> {
        let part = |part| EncoderPart::Block(index, part);
        let norm = |which| parts.norm(part(which)).map(|norm| norm.expect("every block has both norms"));
        let spec = parts.weights.spec().blocks[index].clone();
        Ok(Self {
            query_key_value: parts.products(&[BlockPart::Query, BlockPart::Key, BlockPart::Value].map(part))?,
            attention_output: parts.product(part(BlockPart::AttentionOutput))?,
            attention_norm: norm(BlockPart::AttentionNorm)?,
            gate: if spec.feed_forward.gated { Some(parts.product(part(BlockPart::Gate))?) } else { None },
            up: parts.product(part(BlockPart::Up))?,
            down: parts.product(part(BlockPart::Down))?,
            output_norm: norm(BlockPart::OutputNorm)?,
            spec,
        })
    }

    fn forward(&self, x: Tensor, runs: &[Run]) -> Result<Tensor> {
        match self.spec.order {
            NormOrder::Post => {
                let x = self.attention_norm.forward(&(self.attend(&x, runs)? + x)?)?;
                self.output_norm.forward(&(self.feed_forward(&x)? + x)?)
            }
            NormOrder::Pre => {
                let x = (self.attend(&self.attention_norm.forward(&x)?, runs)? + x)?;
                self.feed_forward(&self.output_norm.forward(&x)?)? + x
            }
        }
    }

    fn attend(&self, x: &Tensor, runs: &[Run]) -> Result<Tensor> {
        let query_key_value = self.query_key_value.forward(x)?;
        let attended: Vec<Tensor> =
            runs.iter().map(|run| attend(&query_key_value, *run, &self.spec.attention)).collect::<Result<_>>()?;
        self.attention_output.forward(&Tensor::cat(&attended, 0)?)
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

/// Softmax(Q·Kᵀ/√d)·V within each text of a run; all texts and heads are one batched product.
fn attend(query_key_value: &Tensor, run: Run, spec: &AttentionSpec) -> Result<Tensor> {
    let AttentionSpec { heads, key_value_heads, head_size, mask, rotary_base, .. } = *spec;
    let of_run = query_key_value.narrow(0, run.start, run.tokens())?;
    let by_head = |first: usize, heads: usize| {
        let part = of_run.narrow(1, first * head_size, heads * head_size)?;
        part.reshape((run.texts, run.length, heads, head_size))?.transpose(1, 2)?.contiguous()
    };
    let mut query = (by_head(0, heads)? * (head_size as f64).sqrt().recip())?;
    let mut key = by_head(heads, key_value_heads)?;
    let value = by_head(heads + key_value_heads, key_value_heads)?;
    if let Some(base) = rotary_base {
        let (cos, sin) = rotations(run.length, head_size, base, query.device())?;
        query = rope(&query, &cos, &sin)?;
        key = rope(&key, &cos, &sin)?;
    }
    let (key, value) = (shared(key, heads)?, shared(value, heads)?);
    let mut scores = query.matmul(&key.t()?)?;
    if let Some(mask) = mask_of(mask, run.length, scores.device())? {
        scores = scores.broadcast_add(&mask)?;
    }
    let mixed = softmax_last_dim(&scores)?.matmul(&value)?;
    mixed.transpose(1, 2)?.reshape((run.tokens(), heads * head_size))
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

/// Cosines and sines of the angles of rotary positions, `[length, size / 2]`: position · base^(−2·i/size).
fn rotations(length: usize, size: usize, base: f32, device: &Device) -> Result<(Tensor, Tensor)> {
    let angle = |position: usize, i: usize| position as f64 * f64::from(base).powf(-2.0 * i as f64 / size as f64);
    #[expect(clippy::cast_possible_truncation, reason = "candle computes in f32")]
    let angles: Vec<f32> = (0..length).flat_map(|at| (0..size / 2).map(move |i| angle(at, i) as f32)).collect();
    let angles = Tensor::from_vec(angles, (length, size / 2), device)?;
    Ok((angles.cos()?, angles.sin()?))
}

/// A mask of `[length, length]` with −∞ where a query does not see a key, else 0; `None` if each query sees all keys.
fn mask_of(mask: Mask, length: usize, device: &Device) -> Result<Option<Tensor>> {
    if mask == Mask::Full {
        return Ok(None);
    }
    let sees = |query: usize, key: usize| match mask {
        Mask::Full => true,
        Mask::Causal => key <= query,
        Mask::Window(most) => query.abs_diff(key) <= most,
    };
    let pairs = (0..length).flat_map(|query| (0..length).map(move |key| (query, key)));
    let mask: Vec<f32> = pairs.map(|(query, key)| if sees(query, key) { 0.0 } else { f32::NEG_INFINITY }).collect();
    if mask.iter().all(|value| *value >= 0.0) {
        return Ok(None);
    }
    Tensor::from_vec(mask, (length, length), device).map(Some)
}

/// The step from token vectors to one row per text.
enum Head {
    Pool(Pooling),
    Classifier { pooler: Product, function: HeadFunction, classifier: Product },
}

impl Head {
    fn load(parts: &TensorParts<'_>, head: HeadSpec) -> std::result::Result<Self, LoadError> {
        Ok(match head {
            HeadSpec::Pool(pooling) => Self::Pool(pooling),
            HeadSpec::Classifier { function, .. } => Self::Classifier {
                pooler: parts.product(EncoderPart::Pooler)?,
                function,
                classifier: parts.product(EncoderPart::Classifier)?,
            },
        })
    }

    fn forward(&self, hidden: &Tensor, runs: &[Run]) -> Result<Tensor> {
        match self {
            Self::Pool(Pooling::Mean) => {
                let means: Vec<Tensor> = runs.iter().map(|run| mean(hidden, *run)).collect::<Result<_>>()?;
                Tensor::cat(&means, 0)
            }
            Self::Pool(Pooling::Cls) => first_tokens(hidden, runs),
            Self::Classifier { pooler, function, classifier } => {
                let pooled = pooler.forward(&first_tokens(hidden, runs)?)?;
                classifier.forward(&match function {
                    HeadFunction::Tanh => pooled.tanh()?,
                    HeadFunction::Relu => pooled.relu()?,
                })
            }
        }
    }
}

fn mean(hidden: &Tensor, run: Run) -> Result<Tensor> {
    let columns = hidden.dim(D::Minus1)?;
    let texts = hidden.narrow(0, run.start, run.tokens())?.reshape((run.texts, run.length, columns))?;
    // As a product: candle's sum over a middle dimension is many times slower on the CPU.
    let weights = Tensor::full(1.0 / run.length as f32, (run.texts, 1, run.length), hidden.device())?;
    weights.matmul(&texts)?.squeeze(1)
}

fn first_tokens(hidden: &Tensor, runs: &[Run]) -> Result<Tensor> {
    let rows = runs.iter().flat_map(|run| (0..run.texts).map(|text| run.start + text * run.length));
    let rows: Vec<u32> = rows.map(|row| u32::try_from(row).expect("a batch has fewer than 2^32 tokens")).collect();
    hidden.index_select(&Tensor::new(rows, hidden.device())?, 0)
}
