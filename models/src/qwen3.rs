//! Qwen3 (Yang et al., arXiv:2505.09388), a decoder as an embedder (Qwen3-Embedding, Zhang et al., arXiv:2506.05176) and
//! as a reranker, which is a classifier or a language model that answers yes or no: causal attention, so that only the last token has seen the whole text.

use sconce_kernels::encoder::{
    AttentionPositions, AttentionSpec, BlockSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, HeadSpec, Mask,
    NormKind, NormOrder, NormSpec, Rotary,
};
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::text::YesNoTemplate;
use crate::{
    ClassifierHead, Family, Heads, LoadError, ModelDirectory, TensorNames, TextEncoder, TokenClassifierHead, config,
};

/// `"model_type": "qwen3"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "qwen3",
    summary: "text embedding and reranking (Qwen3Model, Qwen3ForCausalLM, Qwen3ForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory)?)),
};

const NAMES: TensorNames = TensorNames {
    optional_prefix: "model.",
    words: "embed_tokens",
    blocks: "layers",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    query_norm: "self_attn.q_norm",
    key_norm: "self_attn.k_norm",
    attention_output: "self_attn.o_proj",
    attention_norm: "input_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    output_norm: "post_attention_layernorm",
    final_norm: "norm",
    ..TensorNames::NONE
};

/// The question of Qwen3-Reranker, as its model card has it.
const QUESTION: YesNoTemplate = YesNoTemplate {
    before: "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. \
             Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n",
    parts: ["<Instruct>: ", "\n<Query>: ", "\n<Document>: "],
    after: "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    instruction: "Given a web search query, retrieve relevant passages that answer the query",
};

/// `config.json`, with the defaults of Hugging Face's `Qwen3Config`.
#[derive(Deserialize)]
struct Config {
    architectures: Option<Vec<String>>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f32>,
    attention_bias: Option<bool>,
    use_sliding_window: Option<bool>,
    rope_theta: Option<f32>,
    rope_scaling: Option<config::Rope>,
    rope_parameters: Option<config::Rope>,
}

fn read(directory: &ModelDirectory) -> Result<TextEncoder, LoadError> {
    let config: Config = directory.config()?;
    let invalid = |message| directory.invalid("config.json", message);
    let max_tokens = config.max_position_embeddings.unwrap_or(32768);
    let max_tokens = config::max_tokens("max_position_embeddings", max_tokens).map_err(invalid)?;
    let spec = config.spec().map_err(invalid)?;
    if config.architectures.iter().flatten().next().is_some_and(|name| name == "Qwen3ForCausalLM")
        && let Some(reranker) = TextEncoder::read_yes_or_no(directory, &spec, &NAMES, &QUESTION, "lm_head.weight")?
    {
        return Ok(reranker.with_max_tokens(max_tokens));
    }
    let heads = Heads {
        prefix: "Qwen3",
        pooling: Pooling::Last,
        classifier: Some(ClassifierHead {
            pooling: Pooling::Last,
            steps: Vec::new(),
            classifier: "score",
            bias: false,
        }),
        token_classifier: Some(TokenClassifierHead::product("score")),
        masked_lm: None,
    };
    Ok(TextEncoder::read(directory, spec, &NAMES, heads)?.with_max_tokens(max_tokens))
}

impl Config {
    fn spec(&self) -> Result<EncoderSpec, String> {
        let hidden = self.hidden_size.unwrap_or(4096);
        let layers = self.num_hidden_layers.unwrap_or(32);
        let heads = self.num_attention_heads.unwrap_or(32);
        let key_value_heads = self.num_key_value_heads.unwrap_or(heads);
        let head_size = self.head_dim.unwrap_or(128);
        let inner = self.intermediate_size.unwrap_or(22016);
        let words = self.vocab_size.unwrap_or(151_936);
        config::sizes(&[
            ("hidden_size", hidden),
            ("num_hidden_layers", layers),
            ("num_attention_heads", heads),
            ("num_key_value_heads", key_value_heads),
            ("head_dim", head_size),
            ("intermediate_size", inner),
        ])?;
        config::rows(&[("vocab_size", words)])?;
        config::shared_heads(heads, key_value_heads)?;
        config::rotated("head_dim", head_size)?;
        if self.use_sliding_window == Some(true) {
            return Err("field 'use_sliding_window' is true; only full causal attention is known".to_owned());
        }
        let eps = self.rms_norm_eps.unwrap_or(1e-6);
        config::eps("rms_norm_eps", eps)?;
        let norm = Some(NormSpec { kind: NormKind::Rms, eps });
        let bias = self.attention_bias.unwrap_or(false);
        let block = BlockSpec {
            order: NormOrder::Pre,
            attention_norm: norm,
            attention: AttentionSpec {
                heads,
                key_value_heads,
                head_size,
                mask: Mask::Causal,
                positions: AttentionPositions::Rotary(self.rotary()?),
                head_norm: norm,
                bias,
                output_bias: bias,
            },
            output_norm: norm,
            feed_forward: FeedForwardSpec {
                inner,
                function: config::function("hidden_act", self.hidden_act.as_deref().unwrap_or("silu"))?,
                gated: true,
                bias: false,
                output_bias: false,
            },
        };
        Ok(EncoderSpec {
            hidden,
            embeddings: EmbeddingSpec { words, positions: None, segments: 0, norm: None, projected_from: None },
            relative_bias: None,
            blocks: vec![block; layers],
            block_runs: 1,
            final_norm: norm,
            head: HeadSpec::pooled(Pooling::Last),
        })
    }

    fn rotary(&self) -> Result<Rotary, String> {
        let of = |rope: &Option<config::Rope>, field| rope.as_ref().map_or(Ok(None), |rope| rope.base(field));
        let base = of(&self.rope_parameters, "rope_parameters")?.or(of(&self.rope_scaling, "rope_scaling")?);
        let base = base.or(self.rope_theta).unwrap_or(10_000.0);
        config::rope_base("rope_theta", base)?;
        Ok(Rotary { base, divisor: 1.0 })
    }
}
