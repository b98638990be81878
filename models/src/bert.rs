//! BERT (Devlin et al., arXiv:1810.04805): text embedding and sequence classification.

use sconce_kernels::encoder::{
    AttentionSpec, BlockSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, HeadFunction, HeadSpec, Mask, NormKind,
    NormOrder, NormSpec, PositionTable,
};
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::{Architectures, Family, LoadError, ModelDirectory, TensorNames, TextEncoder, config};

/// `"model_type": "bert"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "bert",
    summary: "text embedding and classification (BertModel, BertForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory)?)),
};

const NAMES: TensorNames = TensorNames {
    optional_prefix: "bert.",
    words: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    segments: "embeddings.token_type_embeddings",
    embedding_norm: "embeddings.LayerNorm",
    blocks: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
    pooler: "bert.pooler.dense",
    classifier: "classifier",
    ..TensorNames::NONE
};

const ARCHITECTURES: Architectures = Architectures {
    embedding: "BertModel",
    classification: "BertForSequenceClassification",
    function: HeadFunction::Tanh,
};

pub(crate) fn read(directory: &ModelDirectory) -> Result<TextEncoder, LoadError> {
    let config: Config = directory.config()?;
    let spec = config.spec().map_err(|message| directory.invalid("config.json", message))?;
    TextEncoder::read(directory, spec, &NAMES, &ARCHITECTURES)
}

/// `config.json` as Hugging Face writes it.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    position_embedding_type: String,
    is_decoder: bool,
}

impl Default for Config {
    /// The defaults of `BertConfig`.
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: "gelu".to_owned(),
            position_embedding_type: "absolute".to_owned(),
            is_decoder: false,
        }
    }
}

impl Config {
    fn spec(&self) -> Result<EncoderSpec, String> {
        let Self { hidden_size: hidden, num_attention_heads: heads, max_position_embeddings: rows, .. } = *self;
        config::sizes(&[
            ("hidden_size", hidden),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", heads),
            ("intermediate_size", self.intermediate_size),
        ])?;
        config::rows(&[
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", rows),
            ("type_vocab_size", self.type_vocab_size),
        ])?;
        let head_size = config::head_size(("num_attention_heads", heads), ("hidden_size", hidden))?;
        config::eps("layer_norm_eps", self.layer_norm_eps)?;
        config::only("position_embedding_type", &self.position_embedding_type, "absolute")?;
        if self.is_decoder {
            return Err("field 'is_decoder' is true; only encoders are known".to_owned());
        }
        let norm = NormSpec { kind: NormKind::Layer { bias: true }, eps: self.layer_norm_eps };
        let attention =
            AttentionSpec { heads, key_value_heads: heads, head_size, mask: Mask::Full, rotary_base: None, bias: true };
        let function = config::function("hidden_act", &self.hidden_act)?;
        let feed_forward = FeedForwardSpec { inner: self.intermediate_size, function, gated: false, bias: true };
        let block = BlockSpec { order: NormOrder::Post, norm, attention, feed_forward };
        Ok(EncoderSpec {
            hidden,
            embeddings: EmbeddingSpec {
                words: self.vocab_size,
                positions: Some(PositionTable { rows, first: 0 }),
                segments: self.type_vocab_size,
                norm: Some(norm),
            },
            blocks: vec![block; self.num_hidden_layers],
            final_norm: None,
            head: HeadSpec::Pool(Pooling::Mean),
        })
    }
}
