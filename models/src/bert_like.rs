//! `config.json` of BERT and of the families that share its fields. Missing fields and `null` stand for the defaults of
//! Hugging Face's `BertConfig`, unless a family changes them.

use sconce_kernels::encoder::{
    AttentionPositions, AttentionSpec, BlockSpec, EmbeddingSpec, EncoderSpec, FeedForwardSpec, HeadSpec, Mask,
    NormKind, NormOrder, NormSpec, PositionTable,
};
use sconce_kernels::pooling::Pooling;
use serde::Deserialize;

use crate::config;

/// The fields that an encoder of BERT's kind is made of.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct BertConfig {
    pub(crate) vocab_size: Option<usize>,
    pub(crate) embedding_size: Option<usize>,
    pub(crate) hidden_size: Option<usize>,
    pub(crate) num_hidden_layers: Option<usize>,
    pub(crate) num_attention_heads: Option<usize>,
    pub(crate) intermediate_size: Option<usize>,
    pub(crate) max_position_embeddings: Option<usize>,
    pub(crate) type_vocab_size: Option<usize>,
    pub(crate) layer_norm_eps: Option<f32>,
    pub(crate) hidden_act: Option<String>,
    pub(crate) pad_token_id: Option<usize>,
    pub(crate) position_embedding_type: Option<String>,
    pub(crate) is_decoder: Option<bool>,
    /// A family's own names of fields, each after BERT's.
    #[serde(skip)]
    pub(crate) renamed: &'static [(&'static str, &'static str)],
}

impl BertConfig {
    fn field(&self, name: &'static str) -> &'static str {
        self.renamed.iter().find(|(of_bert, _)| *of_bert == name).map_or(name, |(_, own)| own)
    }

    /// The encoder: norms after each half, full attention, positions from a table whose first row is `first_position`.
    /// Only ELECTRA and ALBERT read `embedding_size`, so it is left out.
    pub(crate) fn spec(&self, first_position: usize) -> Result<EncoderSpec, String> {
        let hidden = self.hidden_size.unwrap_or(768);
        let layers = self.num_hidden_layers.unwrap_or(12);
        let heads = self.num_attention_heads.unwrap_or(12);
        let inner = self.intermediate_size.unwrap_or(3072);
        let words = self.vocab_size.unwrap_or(30522);
        let rows = self.max_position_embeddings.unwrap_or(512);
        let segments = self.type_vocab_size.unwrap_or(2);
        let field = |name| self.field(name);
        config::sizes(&[
            (field("hidden_size"), hidden),
            (field("num_hidden_layers"), layers),
            (field("num_attention_heads"), heads),
            (field("intermediate_size"), inner),
        ])?;
        config::rows(&[("vocab_size", words), ("max_position_embeddings", rows), ("type_vocab_size", segments)])?;
        if rows <= first_position {
            return Err(format!(
                "field 'max_position_embeddings' is {rows}; it must be above the row of the first position, {first_position}"
            ));
        }
        let head_size = config::head_size((field("num_attention_heads"), heads), (field("hidden_size"), hidden))?;
        let eps = self.layer_norm_eps.unwrap_or(1e-12);
        config::eps("layer_norm_eps", eps)?;
        config::only(
            "position_embedding_type",
            self.position_embedding_type.as_deref().unwrap_or("absolute"),
            "absolute",
        )?;
        if self.is_decoder == Some(true) {
            return Err("field 'is_decoder' is true; only encoders are known".to_owned());
        }
        let norm = Some(NormSpec { kind: NormKind::Layer { bias: true }, eps });
        let block = BlockSpec {
            order: NormOrder::Post,
            attention_norm: norm,
            attention: AttentionSpec {
                heads,
                key_value_heads: heads,
                head_size,
                mask: Mask::Full,
                positions: AttentionPositions::None,
                head_norm: None,
                bias: true,
                output_bias: true,
            },
            output_norm: norm,
            feed_forward: FeedForwardSpec {
                inner,
                function: config::function(field("hidden_act"), self.hidden_act.as_deref().unwrap_or("gelu"))?,
                gated: false,
                bias: true,
                output_bias: true,
            },
        };
        Ok(EncoderSpec {
            hidden,
            embeddings: EmbeddingSpec {
                words,
                positions: Some(PositionTable { rows, first: first_position }),
                segments,
                norm,
                projected_from: None,
            },
            relative_bias: None,
            blocks: vec![block; layers],
            block_runs: 1,
            final_norm: None,
            head: HeadSpec::pooled(Pooling::Mean),
        })
    }
}

/// The number that the norms of the blocks add to the variance.
pub(crate) fn norm_eps(spec: &EncoderSpec) -> f32 {
    let norm = spec.blocks.first().and_then(|block| block.attention_norm);
    norm.expect("a family of BERT's kind has blocks with norms").eps
}
