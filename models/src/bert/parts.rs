//! The weights of a BERT by the names that Hugging Face gives them, as the engines of `sconce-kernels` take them.

use sconce_kernels::KernelError;
use sconce_kernels::bias_gelu::GeluForm;
use sconce_kernels::embedding::{Embeddings, Table, TableFormat};
use sconce_kernels::encoder::{Dense, LayerWeights};
use sconce_kernels::linear;
use sconce_kernels::residual_norm::LayerNorm;

use super::config::{Activation, Config};
use crate::{LoadError, ModelDirectory, Weights};

/// What the parts of the model are made of.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) directory: &'a ModelDirectory,
    pub(super) config: &'a Config,
    /// On the CPU.
    pub(super) weights: &'a Weights,
    /// Before the names of the encoder's tensors.
    pub(super) prefix: &'a str,
}

impl Parts<'_> {
    pub(super) fn embeddings(&self, format: TableFormat) -> Result<Embeddings, LoadError> {
        let name = format!("{}embeddings", self.prefix);
        let table = |part: &str, rows| self.table(&format!("{name}.{part}.weight"), rows, format);
        self.fits(Embeddings::new(
            table("word_embeddings", self.config.vocab_size)?,
            table("position_embeddings", self.config.max_position_embeddings)?,
            table("token_type_embeddings", self.config.type_vocab_size)?,
            self.norm(&name)?,
        ))
    }

    pub(super) fn layer(&self, index: usize) -> Result<LayerWeights, LoadError> {
        let Config { hidden_size: hidden, intermediate_size: inner, .. } = *self.config;
        let name = |part: &str| format!("{}encoder.layer.{index}.{part}", self.prefix);
        Ok(LayerWeights {
            query_key_value: self.query_key_value(&name("attention.self"))?,
            attention_output: self.dense(&name("attention.output.dense"), hidden, hidden)?,
            attention_norm: self.norm(&name("attention.output"))?,
            up: self.dense(&name("intermediate.dense"), hidden, inner)?,
            activation: self.activation()?,
            down: self.dense(&name("output.dense"), inner, hidden)?,
            output_norm: self.norm(&name("output"))?,
        })
    }

    /// Pooler and classifier.
    pub(super) fn classifier(&self, labels: usize) -> Result<[Dense; 2], LoadError> {
        let hidden = self.config.hidden_size;
        Ok([self.dense("bert.pooler.dense", hidden, hidden)?, self.dense("classifier", hidden, labels)?])
    }

    /// One product for all three, with the 1/√d of attention in the query once instead of in each score.
    fn query_key_value(&self, name: &str) -> Result<Dense, LoadError> {
        let hidden = self.config.hidden_size;
        let (mut weight, mut bias) = (Vec::with_capacity(3 * hidden * hidden), Vec::with_capacity(3 * hidden));
        for part in ["query", "key", "value"] {
            weight.extend(self.weights.values(&format!("{name}.{part}.weight"), &[hidden, hidden])?);
            bias.extend(self.weights.values(&format!("{name}.{part}.bias"), &[hidden])?);
        }
        let factor = (self.config.head_size() as f32).sqrt().recip();
        weight[..hidden * hidden].iter_mut().chain(&mut bias[..hidden]).for_each(|x| *x *= factor);
        Ok(Dense { weight, bias })
    }

    fn dense(&self, name: &str, inputs: usize, outputs: usize) -> Result<Dense, LoadError> {
        let weight = self.weights.values(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Dense { weight, bias: self.weights.values(&format!("{name}.bias"), &[outputs])? })
    }

    fn norm(&self, name: &str) -> Result<LayerNorm, LoadError> {
        let values = |part: &str| self.weights.values(&format!("{name}.LayerNorm.{part}"), &[self.config.hidden_size]);
        self.fits(LayerNorm::new(values("weight")?, values("bias")?, self.config.layer_norm_eps))
    }

    fn table(&self, name: &str, rows: usize, format: TableFormat) -> Result<Table, LoadError> {
        let columns = self.config.hidden_size;
        self.fits(Table::new(self.weights.values(name, &[rows, columns])?, columns, format))
    }

    fn activation(&self) -> Result<linear::Activation, LoadError> {
        match self.config.activation() {
            Ok(Activation::Gelu(GeluForm::Erf)) => Ok(linear::Activation::Gelu(GeluForm::Erf)),
            Ok(Activation::Gelu(GeluForm::Tanh)) => Ok(linear::Activation::Gelu(GeluForm::Tanh)),
            Ok(Activation::Relu) => Ok(linear::Activation::Relu),
            Err(message) => Err(self.directory.invalid("config.json", message)),
        }
    }

    /// A part that does not fit is a fault of the weights' file, unless it is the device's.
    pub(super) fn fits<T>(&self, part: Result<T, KernelError>) -> Result<T, LoadError> {
        part.map_err(|error| self.weights.kernel_error(error))
    }
}
