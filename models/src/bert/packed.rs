//! BERT on the CPU: the encoder of `sconce-kernels` with a head, on packed tokens, without candle.

use std::sync::Arc;

use sconce_kernels::bias_gelu::GeluForm;
use sconce_kernels::embedding::{Embeddings, Table, TableFormat};
use sconce_kernels::encoder::{self, EncoderLayer, Scratch};
use sconce_kernels::linear::{self, BlockFormat, Linear, WeightFormat};
use sconce_kernels::pooling::{self, pool};
use sconce_kernels::residual_norm::LayerNorm;
use sconce_kernels::{KernelError, Team};

use super::HeadKind;
use super::config::{Activation, Config};
use crate::{LoadError, ModelDirectory, Precision, Target, Weights};

/// An encoder and a head with the memory that they work in.
pub(super) struct PackedBert {
    encoder: encoder::Encoder,
    head: Head,
    team: Arc<Team>,
    scratch: Scratch,
    batch: Batch,
    /// One vector per token of the batch.
    hidden: Vec<f32>,
}

/// The tokens of a batch, end to end.
#[derive(Default)]
struct Batch {
    ids: Vec<u32>,
    segments: Vec<u32>,
    lengths: Vec<usize>,
}

/// From token vectors to one row per text.
enum Head {
    Pool(pooling::Pooling),
    /// Both in f32 whatever the precision: they are small, and the scores depend on them most.
    Classifier(Box<Classifier>),
}

struct Classifier {
    pooler: Linear,
    classifier: Linear,
}

impl PackedBert {
    pub(super) fn load(
        directory: &ModelDirectory,
        config: &Config,
        weights: &Weights,
        prefix: &str,
        head: HeadKind,
        target: &Target,
    ) -> Result<Self, LoadError> {
        let parts = Parts { directory, config, weights, precision: target.precision };
        Ok(Self {
            encoder: parts.encoder(prefix)?,
            head: parts.head(head)?,
            team: Arc::clone(&target.team),
            scratch: Scratch::default(),
            batch: Batch::default(),
            hidden: Vec::new(),
        })
    }

    /// One row per item, each of them ids and segments that are within the tables.
    pub(super) fn forward(&mut self, items: &[(&[u32], &[u32])]) -> Result<Vec<Vec<f32>>, KernelError> {
        // The longest first, so that no thread is left with a long one at the end.
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|item| std::cmp::Reverse(items[*item].0.len()));
        let Self { encoder, head, team, scratch, batch, hidden } = self;
        batch.pack(order.iter().map(|item| items[*item]));
        hidden.resize(batch.ids.len() * encoder.hidden(), 0.0);
        let Batch { ids, segments, lengths } = &*batch;
        encoder.forward(team, scratch, encoder::PackedTokens { ids, segments, lengths }, hidden)?;
        let sorted = head.forward(team, hidden, lengths, encoder.hidden())?;

        let mut rows = vec![Vec::new(); items.len()];
        for (row, item) in sorted.chunks_exact(sorted.len() / items.len().max(1)).zip(order) {
            rows[item] = row.to_vec();
        }
        Ok(rows)
    }
}

impl Batch {
    fn pack<'a>(&mut self, items: impl Iterator<Item = (&'a [u32], &'a [u32])>) {
        self.ids.clear();
        self.segments.clear();
        self.lengths.clear();
        for (ids, segments) in items {
            self.ids.extend_from_slice(ids);
            self.segments.extend_from_slice(segments);
            self.lengths.push(ids.len());
        }
    }
}

impl Head {
    /// One row per text, end to end.
    fn forward(&self, team: &Team, hidden: &[f32], lengths: &[usize], columns: usize) -> Result<Vec<f32>, KernelError> {
        let mut pooled = vec![0.0; lengths.len() * columns];
        match self {
            Self::Pool(pooling) => {
                pool(hidden, lengths, columns, *pooling, &mut pooled)?;
                Ok(pooled)
            }
            Self::Classifier(head) => {
                let Classifier { pooler, classifier } = &**head;
                pool(hidden, lengths, columns, pooling::Pooling::Cls, &mut pooled)?;
                let mut inner = vec![0.0; lengths.len() * pooler.outputs()];
                pooler.forward(team, &pooled, &mut inner, linear::Activation::Identity)?;
                for x in &mut inner {
                    *x = x.tanh();
                }
                let mut logits = vec![0.0; lengths.len() * classifier.outputs()];
                classifier.forward(team, &inner, &mut logits, linear::Activation::Identity)?;
                Ok(logits)
            }
        }
    }
}

/// What the parts of the model are made of.
struct Parts<'a> {
    directory: &'a ModelDirectory,
    config: &'a Config,
    weights: &'a Weights,
    precision: Precision,
}

impl Parts<'_> {
    fn encoder(&self, prefix: &str) -> Result<encoder::Encoder, LoadError> {
        let Config { hidden_size: hidden, intermediate_size: inner, num_attention_heads: heads, .. } = *self.config;
        let embeddings = format!("{prefix}embeddings");
        let table = |name: &str, rows| self.table(&format!("{embeddings}.{name}.weight"), rows);
        let embeddings = Embeddings::new(
            table("word_embeddings", self.config.vocab_size)?,
            table("position_embeddings", self.config.max_position_embeddings)?,
            table("token_type_embeddings", self.config.type_vocab_size)?,
            self.norm(&embeddings)?,
        );
        let layer = |layer: usize| {
            let name = |part: &str| format!("{prefix}encoder.layer.{layer}.{part}");
            Ok(EncoderLayer {
                query_key_value: self.query_key_value(&name("attention.self"))?,
                attention_output: self.linear(&name("attention.output.dense"), hidden, hidden, self.format())?,
                attention_norm: self.norm(&name("attention.output"))?,
                up: self.linear(&name("intermediate.dense"), hidden, inner, self.format())?,
                activation: self.activation()?,
                down: self.linear(&name("output.dense"), inner, hidden, self.format())?,
                output_norm: self.norm(&name("output"))?,
            })
        };
        let layers = (0..self.config.num_hidden_layers).map(layer).collect::<Result<_, LoadError>>()?;
        encoder::Encoder::new(self.fits(embeddings)?, layers, heads).map_err(|error| self.error(&error))
    }

    fn head(&self, head: HeadKind) -> Result<Head, LoadError> {
        let hidden = self.config.hidden_size;
        Ok(match head {
            HeadKind::Mean => Head::Pool(pooling::Pooling::Mean),
            HeadKind::Cls => Head::Pool(pooling::Pooling::Cls),
            HeadKind::Classifier { labels } => Head::Classifier(Box::new(Classifier {
                pooler: self.linear("bert.pooler.dense", hidden, hidden, WeightFormat::F32)?,
                classifier: self.linear("classifier", hidden, labels, WeightFormat::F32)?,
            })),
        })
    }

    /// One product for all three, with the 1/√d of attention in the query once instead of in each score.
    fn query_key_value(&self, name: &str) -> Result<Linear, LoadError> {
        let hidden = self.config.hidden_size;
        let (mut weight, mut bias) = (Vec::with_capacity(3 * hidden * hidden), Vec::with_capacity(3 * hidden));
        for part in ["query", "key", "value"] {
            weight.extend(self.weights.values(&format!("{name}.{part}.weight"), &[hidden, hidden])?);
            bias.extend(self.weights.values(&format!("{name}.{part}.bias"), &[hidden])?);
        }
        let factor = (self.config.head_size() as f32).sqrt().recip();
        weight[..hidden * hidden].iter_mut().chain(&mut bias[..hidden]).for_each(|x| *x *= factor);
        self.fits(Linear::new(&weight, Some(&bias), hidden, 3 * hidden, self.format()))
    }

    fn linear(&self, name: &str, inputs: usize, outputs: usize, format: WeightFormat) -> Result<Linear, LoadError> {
        let weight = self.weights.values(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.weights.values(&format!("{name}.bias"), &[outputs])?;
        self.fits(Linear::new(&weight, Some(&bias), inputs, outputs, format))
    }

    fn norm(&self, name: &str) -> Result<LayerNorm, LoadError> {
        let values = |part: &str| self.weights.values(&format!("{name}.LayerNorm.{part}"), &[self.config.hidden_size]);
        self.fits(LayerNorm::new(values("weight")?, values("bias")?, self.config.layer_norm_eps))
    }

    fn table(&self, name: &str, rows: usize) -> Result<Table, LoadError> {
        let columns = self.config.hidden_size;
        let format = if self.precision == Precision::F32 { TableFormat::F32 } else { TableFormat::Int8 };
        self.fits(Table::new(self.weights.values(name, &[rows, columns])?, columns, format))
    }

    fn format(&self) -> WeightFormat {
        match self.precision {
            Precision::F32 => WeightFormat::F32,
            Precision::Int8 => WeightFormat::Int8,
            Precision::Q8_0 => WeightFormat::Blocks(BlockFormat::Q8_0),
            Precision::Q4K => WeightFormat::Blocks(BlockFormat::Q4K),
        }
    }

    fn activation(&self) -> Result<linear::Activation, LoadError> {
        match self.config.activation() {
            Ok(Activation::Gelu(GeluForm::Erf)) => Ok(linear::Activation::Gelu(GeluForm::Erf)),
            Ok(Activation::Gelu(GeluForm::Tanh)) => Ok(linear::Activation::Gelu(GeluForm::Tanh)),
            Ok(Activation::Relu) => Ok(linear::Activation::Relu),
            Err(message) => Err(self.directory.invalid("config.json", message)),
        }
    }

    fn fits<T>(&self, part: Result<T, KernelError>) -> Result<T, LoadError> {
        part.map_err(|error| self.error(&error))
    }

    fn error(&self, error: &KernelError) -> LoadError {
        self.weights.error(candle_core::Error::wrap(error.clone()))
    }
}
