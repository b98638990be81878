//! ALBERT (Lan et al., arXiv:1909.11942): BERT with narrow embeddings, whose blocks share their weights.

use sconce_kernels::encoder::HeadFunction;
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::bert_like::BertConfig;
use crate::{
    ClassifierHead, Family, Heads, LoadError, MaskedLmHead, ModelDirectory, NamedStep, TensorNames, TextEncoder,
    TokenClassifierHead, bert, bert_like, config,
};

/// `"model_type": "albert"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "albert",
    summary: "text embedding and classification (AlbertModel, AlbertForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory)?)),
};

const NAMES: TensorNames = TensorNames {
    optional_prefix: "albert.",
    embedding_projection: "encoder.embedding_hidden_mapping_in",
    blocks: "encoder.albert_layer_groups",
    query: "albert_layers.0.attention.query",
    key: "albert_layers.0.attention.key",
    value: "albert_layers.0.attention.value",
    attention_output: "albert_layers.0.attention.dense",
    attention_norm: "albert_layers.0.attention.LayerNorm",
    up: "albert_layers.0.ffn",
    down: "albert_layers.0.ffn_output",
    output_norm: "albert_layers.0.full_layer_layer_norm",
    ..bert::NAMES
};

#[derive(Deserialize)]
struct Config {
    /// Read by itself: serde names no field of what it flattens.
    #[serde(skip)]
    bert: BertConfig,
    num_hidden_groups: Option<usize>,
    inner_group_num: Option<usize>,
}

impl Config {
    /// The number of groups of blocks that share weights.
    fn groups(&self, layers: usize) -> Result<usize, String> {
        let groups = self.num_hidden_groups.unwrap_or(1);
        if groups == 0 || !layers.is_multiple_of(groups) {
            return Err(format!(
                "field 'num_hidden_groups' is {groups}, which does not divide num_hidden_layers {layers}"
            ));
        }
        match self.inner_group_num.unwrap_or(1) {
            1 => Ok(groups),
            inner => Err(format!("field 'inner_group_num' is {inner}; only 1 is known")),
        }
    }
}

fn read(directory: &ModelDirectory) -> Result<TextEncoder, LoadError> {
    let mut config = Config { bert: directory.config()?, ..directory.config()? };
    let invalid = |message| directory.invalid("config.json", message);
    config.bert.vocab_size.get_or_insert(30000);
    config.bert.hidden_size.get_or_insert(4096);
    config.bert.num_attention_heads.get_or_insert(64);
    config.bert.intermediate_size.get_or_insert(16384);
    config.bert.hidden_act.get_or_insert_with(|| "gelu_new".to_owned());
    let mut spec = config.bert.spec(0).map_err(invalid)?;
    let embedding_size = config.bert.embedding_size.unwrap_or(128);
    config::sizes(&[("embedding_size", embedding_size)]).map_err(invalid)?;
    let (layers, groups) = (spec.blocks.len(), config.groups(spec.blocks.len()).map_err(invalid)?);
    spec.embeddings.projected_from = Some(embedding_size);
    spec.blocks.truncate(groups);
    spec.block_runs = layers / groups;
    let heads = Heads {
        prefix: "Albert",
        pooling: Pooling::Mean,
        classifier: Some(ClassifierHead {
            pooling: Pooling::Cls,
            steps: vec![NamedStep::product("albert.pooler", spec.hidden, HeadFunction::Tanh)],
            classifier: "classifier",
            bias: true,
        }),
        token_classifier: Some(TokenClassifierHead::product("classifier")),
        masked_lm: Some(MaskedLmHead::transform(
            ("predictions.dense", "predictions.LayerNorm"),
            embedding_size,
            config::head_function(spec.blocks[0].feed_forward.function),
            bert_like::norm_eps(&spec),
            "predictions.bias",
        )),
    };
    TextEncoder::read(directory, spec, &NAMES, heads)
}
