//! GTE of the second generation (Zhang et al., arXiv:2407.19669): BERT with rotary positions and gated networks. Its code
//! on the hub calls it `new`, Hugging Face's own class `gte`.

use sconce_kernels::encoder::{AttentionPositions, EncoderSpec, HeadFunction, Rotary};
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::bert_like::BertConfig;
use crate::{
    ClassifierHead, Family, Heads, LoadError, ModelDirectory, NamedStep, TensorNames, TextEncoder, bert, config,
};

/// `"model_type": "new"`.
pub(crate) const NEW: Family = Family {
    model_type: "new",
    summary: "text embedding and reranking (NewModel, NewForSequenceClassification: GTE)",
    read: |directory| Ok(Box::new(read(directory, "New", &NAMES_OF_NEW, "new.pooler.dense")?)),
};

/// `"model_type": "gte"`.
pub(crate) const GTE: Family = Family {
    model_type: "gte",
    summary: "text embedding and reranking (GteModel, GteForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory, "Gte", &NAMES, "gte.pooler.dense")?)),
};

const NAMES_OF_NEW: TensorNames = TensorNames {
    optional_prefix: "new.",
    positions: "",
    query_key_value: "attention.qkv_proj",
    attention_output: "attention.o_proj",
    attention_norm: "attn_ln",
    up_gate: "mlp.up_gate_proj",
    down: "mlp.down_proj",
    output_norm: "mlp_ln",
    ..bert::NAMES
};

const NAMES: TensorNames = TensorNames { optional_prefix: "gte.", ..NAMES_OF_NEW };

#[derive(Deserialize)]
struct Config {
    /// Read by itself: serde names no field of what it flattens.
    #[serde(skip)]
    bert: BertConfig,
    rope_theta: Option<f32>,
    rope_scaling: Option<Scaling>,
    rope_parameters: Option<config::Rope>,
    layer_norm_type: Option<String>,
    logn_attention_scale: Option<bool>,
    pack_qkv: Option<bool>,
}

/// Rotary positions for longer texts than the model was first trained with.
#[derive(Deserialize)]
struct Scaling {
    r#type: String,
    factor: f32,
    mixed_b: Option<f32>,
}

fn read(
    directory: &ModelDirectory,
    prefix: &'static str,
    names: &'static TensorNames,
    pooler: &'static str,
) -> Result<TextEncoder, LoadError> {
    let config = Config { bert: directory.config()?, ..directory.config()? };
    let invalid = |message| directory.invalid("config.json", message);
    let max_tokens = config.bert.max_position_embeddings.unwrap_or(8192);
    let max_tokens = config::max_tokens("max_position_embeddings", max_tokens).map_err(invalid)?;
    let spec = config.spec().map_err(invalid)?;
    let heads = Heads {
        prefix,
        pooling: Pooling::Cls,
        classifier: Some(ClassifierHead {
            pooling: Pooling::Cls,
            steps: vec![NamedStep::product(pooler, spec.hidden, HeadFunction::Tanh)],
            classifier: "classifier",
            bias: true,
        }),
        token_classifier: None,
        masked_lm: None,
    };
    Ok(TextEncoder::read(directory, spec, names, heads)?.with_max_tokens(max_tokens))
}

impl Config {
    fn spec(&self) -> Result<EncoderSpec, String> {
        config::only("layer_norm_type", self.layer_norm_type.as_deref().unwrap_or("layer_norm"), "layer_norm")?;
        config::off(&[("logn_attention_scale", self.logn_attention_scale)])?;
        if self.pack_qkv == Some(false) {
            return Err("field 'pack_qkv' is false; only true is known".to_owned());
        }
        let position_embedding_type = self.bert.position_embedding_type.as_deref().unwrap_or("rope");
        config::only("position_embedding_type", position_embedding_type, "rope")?;
        let bert = &self.bert;
        let bert = BertConfig {
            vocab_size: Some(bert.vocab_size.unwrap_or(250_048)),
            hidden_size: bert.hidden_size,
            num_hidden_layers: bert.num_hidden_layers,
            num_attention_heads: bert.num_attention_heads,
            intermediate_size: bert.intermediate_size,
            // A model without segments says 0.
            type_vocab_size: Some(bert.type_vocab_size.unwrap_or(1).max(1)),
            layer_norm_eps: bert.layer_norm_eps,
            hidden_act: bert.hidden_act.clone(),
            ..BertConfig::default()
        };
        let mut spec = bert.spec(0)?;
        let rotary = self.rotary(spec.blocks[0].attention.head_size)?;
        spec.embeddings.positions = None;
        spec.embeddings.segments = self.bert.type_vocab_size.unwrap_or(1);
        for block in &mut spec.blocks {
            config::rotated("hidden_size", block.attention.head_size)?;
            block.attention.positions = AttentionPositions::Rotary(rotary);
            block.feed_forward.gated = true;
            block.feed_forward.bias = false;
        }
        Ok(spec)
    }

    /// The base, and the divisor of angles that follows from NTK-aware scaling.
    fn rotary(&self, head_size: usize) -> Result<Rotary, String> {
        let base = self.rope_parameters.as_ref().map_or(Ok(None), |rope| rope.base("rope_parameters"))?;
        let base = base.or(self.rope_theta).unwrap_or(160_000.0);
        config::rope_base("rope_theta", base)?;
        let Some(Scaling { r#type, factor, mixed_b }) = &self.rope_scaling else {
            return Ok(Rotary { base, divisor: 1.0 });
        };
        config::only("rope_scaling.type", r#type, "ntk")?;
        if let Some(mixed_b) = mixed_b {
            return Err(format!("field 'rope_scaling.mixed_b' is {mixed_b}; only null is known"));
        }
        if !(factor.is_finite() && *factor >= 1.0) {
            return Err(format!("field 'rope_scaling.factor' is {factor}; it must be at least 1"));
        }
        Ok(Rotary { base: base * factor, divisor: factor.powf(2.0 / head_size as f32) })
    }
}
