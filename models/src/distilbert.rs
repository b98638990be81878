//! DistilBERT (Sanh et al., arXiv:1910.01108): a BERT with half as many blocks and without segments.

use sconce_kernels::encoder::HeadFunction;
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::bert_like::BertConfig;
use crate::{
    ClassifierHead, Family, Heads, LoadError, MaskedLmHead, ModelDirectory, NamedStep, TensorNames, TextEncoder,
    TokenClassifierHead, config,
};

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
    ..TensorNames::NONE
};

/// The number that the norm of the head that guesses words adds to the variance, a constant in Hugging Face's code.
const NORM_EPS: f32 = 1e-12;

const RENAMED: [(&str, &str); 5] = [
    ("hidden_size", "dim"),
    ("num_hidden_layers", "n_layers"),
    ("num_attention_heads", "n_heads"),
    ("intermediate_size", "hidden_dim"),
    ("hidden_act", "activation"),
];

fn read(directory: &ModelDirectory) -> Result<TextEncoder, LoadError> {
    let Config { vocab_size, dim, n_layers, n_heads, hidden_dim, max_position_embeddings, activation } =
        directory.config()?;
    let bert = BertConfig {
        vocab_size,
        hidden_size: dim,
        num_hidden_layers: Some(n_layers.unwrap_or(6)),
        num_attention_heads: n_heads,
        intermediate_size: hidden_dim,
        max_position_embeddings,
        hidden_act: activation,
        renamed: &RENAMED,
        ..BertConfig::default()
    };
    let mut spec = bert.spec(0).map_err(|message| directory.invalid("config.json", message))?;
    spec.embeddings.segments = 0;
    let heads = Heads {
        prefix: "DistilBert",
        pooling: Pooling::Mean,
        classifier: Some(ClassifierHead {
            pooling: Pooling::Cls,
            steps: vec![NamedStep::product("pre_classifier", spec.hidden, HeadFunction::Relu)],
            classifier: "classifier",
            bias: true,
        }),
        token_classifier: Some(TokenClassifierHead::product("classifier")),
        masked_lm: Some(MaskedLmHead::transform(
            ("vocab_transform", "vocab_layer_norm"),
            spec.hidden,
            config::head_function(spec.blocks[0].feed_forward.function),
            NORM_EPS,
            "vocab_projector.bias",
        )),
    };
    TextEncoder::read(directory, spec, &NAMES, heads)
}

/// `config.json` with DistilBERT's names for BERT's fields. `sinusoidal_pos_embds` is not read: where it is true, the
/// saved table of positions already holds the sines.
#[derive(Debug, Deserialize)]
struct Config {
    vocab_size: Option<usize>,
    dim: Option<usize>,
    n_layers: Option<usize>,
    n_heads: Option<usize>,
    hidden_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    activation: Option<String>,
}
