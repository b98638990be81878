//! ModernBERT (Warner et al., arXiv:2412.13663): norms before each half, rotary positions, gated networks, and attention
//! within a window in most blocks.

use sconce_kernels::encoder::{
    AttentionPositions, AttentionSpec, BlockSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, HeadSpec, HeadStep,
    Mask, NormKind, NormOrder, NormSpec, Rotary,
};
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::{
    ClassifierHead, Family, HeadTensors, Heads, LoadError, MaskedLmHead, ModelDirectory, NamedStep, TensorNames,
    TextEncoder, TokenClassifierHead, config,
};

/// `"model_type": "modernbert"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "modernbert",
    summary: "text embedding, classification and reranking (ModernBertModel, ModernBertForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory)?)),
};

const NAMES: TensorNames = TensorNames {
    optional_prefix: "model.",
    words: "embeddings.tok_embeddings",
    embedding_norm: "embeddings.norm",
    blocks: "layers",
    query_key_value: "attn.Wqkv",
    attention_output: "attn.Wo",
    attention_norm: "attn_norm",
    gate_up: "mlp.Wi",
    down: "mlp.Wo",
    output_norm: "mlp_norm",
    final_norm: "final_norm",
    ..TensorNames::NONE
};

/// `config.json`, with the defaults of Hugging Face's `ModernBertConfig`. Since transformers 5 the kinds of blocks and
/// their bases are lists and tables; before, they followed from two numbers each.
#[derive(Deserialize)]
struct Config {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_activation: Option<String>,
    max_position_embeddings: Option<usize>,
    norm_eps: Option<f32>,
    norm_bias: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    local_attention: Option<usize>,
    global_attn_every_n_layers: Option<usize>,
    layer_types: Option<Vec<LayerType>>,
    global_rope_theta: Option<f32>,
    local_rope_theta: Option<f32>,
    rope_parameters: Option<RopeParameters>,
    classifier_pooling: Option<ClassifierPooling>,
    classifier_bias: Option<bool>,
    classifier_activation: Option<String>,
    decoder_bias: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    FullAttention,
    SlidingAttention,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClassifierPooling {
    Cls,
    Mean,
}

#[derive(Deserialize)]
struct RopeParameters {
    full_attention: Option<config::Rope>,
    sliding_attention: Option<config::Rope>,
}

fn read(directory: &ModelDirectory) -> Result<TextEncoder, LoadError> {
    let config: Config = directory.config()?;
    let invalid = |message| directory.invalid("config.json", message);
    let max_tokens = config.max_position_embeddings.unwrap_or(8192);
    let max_tokens = config::max_tokens("max_position_embeddings", max_tokens).map_err(invalid)?;
    let spec = config.spec().map_err(invalid)?;
    let heads = config.heads(spec.hidden).map_err(invalid)?;
    Ok(TextEncoder::read(directory, spec, &NAMES, heads)?.with_max_tokens(max_tokens))
}

impl Config {
    fn norm(&self) -> NormSpec {
        let kind = NormKind::Layer { bias: self.norm_bias.unwrap_or(false) };
        NormSpec { kind, eps: self.norm_eps.unwrap_or(1e-5) }
    }

    fn spec(&self) -> Result<EncoderSpec, String> {
        let hidden = self.hidden_size.unwrap_or(768);
        let heads = self.num_attention_heads.unwrap_or(12);
        let layers = self.num_hidden_layers.unwrap_or(22);
        let inner = self.intermediate_size.unwrap_or(1152);
        let words = self.vocab_size.unwrap_or(50368);
        config::sizes(&[
            ("hidden_size", hidden),
            ("num_attention_heads", heads),
            ("num_hidden_layers", layers),
            ("intermediate_size", inner),
        ])?;
        config::rows(&[("vocab_size", words)])?;
        config::eps("norm_eps", self.norm().eps)?;
        let head_size = config::head_size(("num_attention_heads", heads), ("hidden_size", hidden))?;
        let function = self.hidden_activation.as_deref().unwrap_or("gelu");
        let (bias, norm) = (self.attention_bias.unwrap_or(false), Some(self.norm()));
        let mlp_bias = self.mlp_bias.unwrap_or(false);
        let feed_forward = FeedForwardSpec {
            inner,
            function: config::function("hidden_activation", function)?,
            gated: true,
            bias: mlp_bias,
            output_bias: mlp_bias,
        };
        let block = |index: usize| {
            let (mask, base) = self.attention(index)?;
            let attention = AttentionSpec {
                heads,
                key_value_heads: heads,
                head_size,
                mask,
                positions: AttentionPositions::Rotary(Rotary { base, divisor: 1.0 }),
                head_norm: None,
                bias,
                output_bias: bias,
            };
            let attention_norm = norm.filter(|_| index > 0);
            Ok(BlockSpec { order: NormOrder::Pre, attention_norm, attention, output_norm: norm, feed_forward })
        };
        Ok(EncoderSpec {
            hidden,
            embeddings: EmbeddingSpec { words, positions: None, segments: 0, norm, projected_from: None },
            relative_bias: None,
            blocks: (0..layers).map(block).collect::<Result<_, String>>()?,
            block_runs: 1,
            final_norm: norm,
            head: HeadSpec::pooled(Pooling::Cls),
        })
    }

    /// The keys that queries of a block see, and the base of its rotary positions.
    fn attention(&self, index: usize) -> Result<(Mask, f32), String> {
        let kind = match &self.layer_types {
            Some(kinds) => *kinds.get(index).ok_or_else(|| {
                format!("field 'layer_types' has {} elements, fewer than num_hidden_layers", kinds.len())
            })?,
            None if index.is_multiple_of(self.global_attn_every_n_layers.unwrap_or(3).max(1)) => {
                LayerType::FullAttention
            }
            None => LayerType::SlidingAttention,
        };
        let new = self.rope_parameters.as_ref();
        let (mask, new, old, default) = match kind {
            LayerType::FullAttention => {
                (Mask::Full, new.and_then(|new| new.full_attention.as_ref()), self.global_rope_theta, 160_000.0)
            }
            LayerType::SlidingAttention => {
                let mask = Mask::Window(self.local_attention.unwrap_or(128) / 2);
                (mask, new.and_then(|new| new.sliding_attention.as_ref()), self.local_rope_theta, 10_000.0)
            }
        };
        let base = match new {
            Some(rope) => rope.base("rope_parameters")?,
            None => old,
        };
        let base = base.unwrap_or(default);
        config::rope_base("rope_theta", base)?;
        Ok((mask, base))
    }

    fn heads(&self, hidden: usize) -> Result<Heads, String> {
        let name = self.classifier_activation.as_deref().unwrap_or("gelu");
        let function = config::head_function(config::function("classifier_activation", name)?);
        let bias = self.classifier_bias.unwrap_or(false);
        let step = |name: &'static str, step| NamedStep { step, tensors: HeadTensors::Named(name.into()) };
        let steps = vec![
            step("head.dense", HeadStep::Product { outputs: hidden, bias, function }),
            step("head.norm", HeadStep::Norm(self.norm())),
        ];
        let pooling = match self.classifier_pooling.unwrap_or(ClassifierPooling::Cls) {
            ClassifierPooling::Cls => Pooling::Cls,
            ClassifierPooling::Mean => Pooling::Mean,
        };
        let has_bias = self.decoder_bias.unwrap_or(true);
        Ok(Heads {
            prefix: "ModernBert",
            pooling: Pooling::Mean,
            token_classifier: Some(TokenClassifierHead { steps: steps.clone(), classifier: "classifier" }),
            masked_lm: Some(MaskedLmHead { steps: steps.clone(), bias: has_bias.then_some("decoder.bias") }),
            classifier: Some(ClassifierHead { pooling, steps, classifier: "classifier", bias: true }),
        })
    }
}
