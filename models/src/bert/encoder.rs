//! The encoder over packed tokens: embeddings, then layers of attention and feed-forward.
//!
//! The tokens of all texts lie end to end in one `[tokens, hidden]` matrix, so there is no padding and no mask. Linear
//! layers and norms take the whole matrix; attention takes one [`Run`] of texts of equal length at a time.

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use sconce_kernels::bias_gelu::bias_gelu_tensor;

use super::config::{Activation, Config};
use crate::dense::Dense;
use crate::norm::Norm;
use crate::{LoadError, ModelDirectory, Weights};

/// Texts of equal length that lie next to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Row of the first token.
    pub(super) start: usize,
    pub(super) texts: usize,
    /// Tokens of each text.
    pub(super) length: usize,
}

impl Run {
    pub(super) fn tokens(&self) -> usize {
        self.texts * self.length
    }
}

/// The tokens of a batch, end to end.
pub(super) struct PackedTokens {
    pub(super) input_ids: Vec<u32>,
    pub(super) token_type_ids: Vec<u32>,
    pub(super) positions: Vec<u32>,
    pub(super) runs: Vec<Run>,
}

pub(super) struct Encoder {
    embeddings: Embeddings,
    layers: Vec<Layer>,
}

impl Encoder {
    /// `prefix` is `bert.` where the checkpoint has a head, else empty.
    pub(super) fn load(
        directory: &ModelDirectory,
        weights: &Weights,
        prefix: &str,
        config: &Config,
    ) -> std::result::Result<Self, LoadError> {
        let activation = config.activation().map_err(|message| directory.invalid("config.json", message))?;
        let embeddings = Embeddings::load(weights, &format!("{prefix}embeddings"), config)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer::load(weights, &format!("{prefix}encoder.layer.{layer}"), config, activation))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self { embeddings, layers })
    }

    /// One vector per token.
    pub(super) fn forward(&self, tokens: &PackedTokens, device: &Device) -> Result<Tensor> {
        let embedded = self.embeddings.forward(tokens, device)?;
        self.layers.iter().try_fold(embedded, |x, layer| layer.forward(&x, &tokens.runs))
    }
}

struct Embeddings {
    words: Tensor,
    positions: Tensor,
    token_types: Tensor,
    norm: Norm,
}

impl Embeddings {
    fn load(weights: &Weights, name: &str, config: &Config) -> std::result::Result<Self, LoadError> {
        let hidden = config.hidden_size;
        let table = |table: &str, rows| weights.tensor(&format!("{name}.{table}.weight"), &[rows, hidden]);
        Ok(Self {
            words: table("word_embeddings", config.vocab_size)?,
            positions: table("position_embeddings", config.max_position_embeddings)?,
            token_types: table("token_type_embeddings", config.type_vocab_size)?,
            norm: Norm::load(weights, &format!("{name}.LayerNorm"), hidden, config.layer_norm_eps)?,
        })
    }

    fn forward(&self, tokens: &PackedTokens, device: &Device) -> Result<Tensor> {
        let rows = |table: &Tensor, ids: &[u32]| table.index_select(&Tensor::new(ids, device)?, 0);
        let words = rows(&self.words, &tokens.input_ids)?;
        let token_types = rows(&self.token_types, &tokens.token_type_ids)?;
        let positions = rows(&self.positions, &tokens.positions)?;
        self.norm.forward(&((words + token_types)? + positions)?)
    }
}

struct Layer {
    query_key_value: Dense,
    attention_output: Dense,
    attention_norm: Norm,
    intermediate: Dense,
    activation: Activation,
    output: Dense,
    output_norm: Norm,
    heads: usize,
}

impl Layer {
    fn load(
        weights: &Weights,
        name: &str,
        config: &Config,
        activation: Activation,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let dense = |part: &str, inputs, outputs| Dense::load(weights, &format!("{name}.{part}"), inputs, outputs);
        let norm = |part: &str| Norm::load(weights, &format!("{name}.{part}.LayerNorm"), hidden, config.layer_norm_eps);
        // The 1/√d of attention goes into the query once, not into each score.
        let query = dense("attention.self.query", hidden, hidden)?
            .scaled(1.0 / (config.head_size() as f64).sqrt())
            .map_err(|source| weights.error(source))?;
        let key = dense("attention.self.key", hidden, hidden)?;
        let value = dense("attention.self.value", hidden, hidden)?;
        Ok(Self {
            query_key_value: Dense::fused(&[query, key, value]).map_err(|source| weights.error(source))?,
            attention_output: dense("attention.output.dense", hidden, hidden)?,
            attention_norm: norm("attention.output")?,
            intermediate: dense("intermediate.dense", hidden, inner)?,
            activation,
            output: dense("output.dense", inner, hidden)?,
            output_norm: norm("output")?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, x: &Tensor, runs: &[Run]) -> Result<Tensor> {
        let query_key_value = self.query_key_value.forward(x)?;
        let attended: Vec<Tensor> =
            runs.iter().map(|run| self.attend(&query_key_value, *run)).collect::<Result<_>>()?;
        let attended = self.attention_output.forward(&Tensor::cat(&attended, 0)?)?;
        let x = self.attention_norm.forward(&(attended + x)?)?;
        let inner = self.activate(self.intermediate.product(&x)?)?;
        self.output_norm.forward(&(self.output.forward(&inner)? + x)?)
    }

    /// Softmax(Q·Kᵀ)·V within each text of a run, all texts and heads in one batched product.
    fn attend(&self, query_key_value: &Tensor, run: Run) -> Result<Tensor> {
        let hidden = query_key_value.dim(1)? / 3;
        let by_head = query_key_value
            .narrow(0, run.start, run.tokens())?
            .reshape((run.texts, run.length, 3, self.heads, hidden / self.heads))?
            .permute((2, 0, 3, 1, 4))?
            .contiguous()?;
        let (query, key, value) = (by_head.get(0)?, by_head.get(1)?, by_head.get(2)?);
        let scores = query.matmul(&key.t()?)?;
        let mixed = softmax_last_dim(&scores)?.matmul(&value)?;
        mixed.transpose(1, 2)?.reshape((run.tokens(), hidden))
    }

    fn activate(&self, product: Tensor) -> Result<Tensor> {
        let bias = self.intermediate.bias();
        match self.activation {
            Activation::Gelu(form) => bias_gelu_tensor(product, bias, form),
            Activation::Relu => product.broadcast_add(bias)?.relu(),
        }
    }
}
