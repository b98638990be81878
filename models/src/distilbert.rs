//! DistilBERT (Sanh et al., arXiv:1910.01108): a BERT with half as many blocks and without segments.

use sconce_kernels::encoder::{
    AttentionSpec, BlockSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, HeadFunction, HeadSpec, Mask, NormKind,
    NormOrder, NormSpec, PositionTable,
};
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::{Architectures, Family, LoadError, ModelDirectory, TensorNames, TextEncoder, config};

/// `"model_type": "distilbert"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "distilbert",
    summary: "text embedding and classification (DistilBertModel, DistilBertForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory)?)),
};

const NAMES: TensorNames = TensorNames {
    optional_prefix: "distilbert.",
    words: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    embedding_norm: "embeddings.LayerNorm",
    blocks: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    output_norm: "output_layer_norm",
    pooler: "pre_classifier",
    classifier: "classifier",
    ..TensorNames::NONE
};

const ARCHITECTURES: Architectures = Architectures {
    embedding: "DistilBertModel",
    classification: "DistilBertForSequenceClassification",
    function: HeadFunction::Relu,
};

fn read(directory: &ModelDirectory) -> Result<TextEncoder, LoadError> {
    let config: Config = directory.config()?;
    let spec = config.spec().map_err(|message| directory.invalid("config.json", message))?;
    TextEncoder::read(directory, spec, &NAMES, &ARCHITECTURES)
}

/// `config.json` as Hugging Face writes it. `sinusoidal_pos_embds` is not read: where it is true, the saved table of
/// positions already holds the sines.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Config {
    vocab_size: usize,
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    max_position_embeddings: usize,
    activation: String,
}

impl Default for Config {
    /// The defaults of `DistilBertConfig`.
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            max_position_embeddings: 512,
            activation: "gelu".to_owned(),
        }
    }
}

impl Config {
    fn spec(&self) -> Result<EncoderSpec, String> {
        let Self { dim: hidden, n_heads: heads, max_position_embeddings: rows, vocab_size: words, .. } = *self;
        let (inner, layers) = (self.hidden_dim, self.n_layers);
        config::sizes(&[("dim", hidden), ("n_layers", layers), ("n_heads", heads), ("hidden_dim", inner)])?;
        config::rows(&[("vocab_size", words), ("max_position_embeddings", rows)])?;
        let head_size = config::head_size(("n_heads", heads), ("dim", hidden))?;
        let norm = NormSpec { kind: NormKind::Layer { bias: true }, eps: 1e-12 };
        let function = config::function("activation", &self.activation)?;
        let block = BlockSpec {
            order: NormOrder::Post,
            norm,
            attention: AttentionSpec {
                heads,
                key_value_heads: heads,
                head_size,
                mask: Mask::Full,
                rotary_base: None,
                bias: true,
            },
            feed_forward: FeedForwardSpec { inner, function, gated: false, bias: true },
        };
        let positions = Some(PositionTable { rows, first: 0 });
        Ok(EncoderSpec {
            hidden,
            embeddings: EmbeddingSpec { words, positions, segments: 0, norm: Some(norm) },
            blocks: vec![block; layers],
            final_norm: None,
            head: HeadSpec::Pool(Pooling::Mean),
        })
    }
}
