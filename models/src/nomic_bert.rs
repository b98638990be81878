//! Nomic BERT (Nussbaum et al., arXiv:2402.01613): BERT with rotary positions, gated networks and no biases of products.

use sconce_kernels::encoder::{AttentionPositions, EncoderSpec, InnerFunction, Rotary};
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::bert_like::BertConfig;
use crate::{Family, Heads, LoadError, ModelDirectory, TensorNames, TextEncoder, bert, config};

/// `"model_type": "nomic_bert"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "nomic_bert",
    summary: "text embedding (NomicBertModel)",
    read: |directory| Ok(Box::new(read(directory)?)),
};

const NAMES: TensorNames = TensorNames {
    optional_prefix: "nomic_bert.",
    positions: "",
    embedding_norm: "emb_ln",
    blocks: "encoder.layers",
    query_key_value: "attn.Wqkv",
    attention_output: "attn.out_proj",
    attention_norm: "norm1",
    gate: "mlp.fc12",
    up: "mlp.fc11",
    down: "mlp.fc2",
    output_norm: "norm2",
    ..bert::NAMES
};

/// `config.json` as it is on the hub, whose fields are GPT-2's, or of Hugging Face's own class, whose fields are BERT's.
#[derive(Deserialize)]
struct Config {
    /// Read by itself: serde names no field of what it flattens.
    #[serde(skip)]
    bert: BertConfig,
    n_embd: Option<usize>,
    n_layer: Option<usize>,
    n_head: Option<usize>,
    n_inner: Option<usize>,
    n_positions: Option<usize>,
    layer_norm_epsilon: Option<f32>,
    activation_function: Option<String>,
    rotary_emb_base: Option<f32>,
    rotary_emb_fraction: Option<f32>,
    rope_parameters: Option<config::Rope>,
    qkv_proj_bias: Option<bool>,
    mlp_fc1_bias: Option<bool>,
    mlp_fc2_bias: Option<bool>,
    prenorm: Option<bool>,
    rotary_emb_interleaved: Option<bool>,
    rotary_scaling_factor: Option<f32>,
    use_rms_norm: Option<bool>,
    parallel_block: Option<bool>,
    causal: Option<bool>,
    num_experts: Option<usize>,
}

fn read(directory: &ModelDirectory) -> Result<TextEncoder, LoadError> {
    let config = Config { bert: directory.config()?, ..directory.config()? };
    let invalid = |message| directory.invalid("config.json", message);
    let max_tokens = config.n_positions.or(config.bert.max_position_embeddings).unwrap_or(2048);
    let max_tokens = config::max_tokens("n_positions", max_tokens).map_err(invalid)?;
    let spec = config.spec().map_err(invalid)?;
    let heads = Heads {
        prefix: "NomicBert",
        pooling: Pooling::Mean,
        classifier: None,
        token_classifier: None,
        masked_lm: None,
    };
    Ok(TextEncoder::read(directory, spec, &NAMES, heads)?.with_max_tokens(max_tokens))
}

impl Config {
    /// Refuses what no published model of the family has.
    fn check(&self) -> Result<(), String> {
        config::off(&[
            ("prenorm", self.prenorm),
            ("rotary_emb_interleaved", self.rotary_emb_interleaved),
            ("use_rms_norm", self.use_rms_norm),
            ("parallel_block", self.parallel_block),
            ("causal", self.causal),
        ])?;
        if let Some(factor) = self.rotary_scaling_factor {
            return Err(format!("field 'rotary_scaling_factor' is {factor}; only null is known"));
        }
        if let Some(experts) = self.num_experts.filter(|experts| *experts > 0) {
            return Err(format!("field 'num_experts' is {experts}; mixtures of experts are not known"));
        }
        let fraction = self.rotary_emb_fraction.unwrap_or(1.0);
        if (fraction - 1.0).abs() > f32::EPSILON {
            return Err(format!("field 'rotary_emb_fraction' is {fraction}; only 1 is known"));
        }
        config::only("activation_function", self.activation_function.as_deref().unwrap_or("swiglu"), "swiglu")
    }

    fn spec(&self) -> Result<EncoderSpec, String> {
        self.check()?;
        let bert = &self.bert;
        let bert = BertConfig {
            vocab_size: Some(bert.vocab_size.unwrap_or(30528)),
            hidden_size: self.n_embd.or(bert.hidden_size),
            num_hidden_layers: self.n_layer.or(bert.num_hidden_layers),
            num_attention_heads: self.n_head.or(bert.num_attention_heads),
            intermediate_size: self.n_inner.or(bert.intermediate_size),
            type_vocab_size: bert.type_vocab_size,
            layer_norm_eps: self.layer_norm_epsilon.or(bert.layer_norm_eps),
            ..BertConfig::default()
        };
        let mut spec = bert.spec(0)?;
        let base = self.rope_parameters.as_ref().map_or(Ok(None), |rope| rope.base("rope_parameters"))?;
        let base = base.or(self.rotary_emb_base).unwrap_or(1000.0);
        config::rope_base("rotary_emb_base", base)?;
        spec.embeddings.positions = None;
        let has = |bias: Option<bool>| bias.unwrap_or(false);
        for block in &mut spec.blocks {
            config::rotated("n_embd", block.attention.head_size)?;
            block.attention.positions = AttentionPositions::Rotary(Rotary { base, divisor: 1.0 });
            block.attention.bias = has(self.qkv_proj_bias);
            block.attention.output_bias = has(self.qkv_proj_bias);
            block.feed_forward.gated = true;
            block.feed_forward.function = InnerFunction::Silu;
            block.feed_forward.bias = has(self.mlp_fc1_bias);
            block.feed_forward.output_bias = has(self.mlp_fc2_bias);
        }
        Ok(spec)
    }
}
