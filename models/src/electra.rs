//! ELECTRA (Clark et al., arXiv:2003.10555): BERT with embeddings that may be narrower than its blocks.

use sconce_kernels::bias_gelu::GeluForm;
use sconce_kernels::encoder::HeadFunction;
use sconce_kernels::pooling::Pooling;

use crate::bert_like::BertConfig;
use crate::{
    ClassifierHead, Family, Heads, LoadError, MaskedLmHead, ModelDirectory, NamedStep, TensorNames, TextEncoder,
    TokenClassifierHead, bert, bert_like, config,
};

/// `"model_type": "electra"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "electra",
    summary: "text embedding and classification (ElectraModel, ElectraForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory)?)),
};

const NAMES: TensorNames =
    TensorNames { optional_prefix: "electra.", embedding_projection: "embeddings_project", ..bert::NAMES };

fn read(directory: &ModelDirectory) -> Result<TextEncoder, LoadError> {
    let mut config: BertConfig = directory.config()?;
    let invalid = |message| directory.invalid("config.json", message);
    config.hidden_size.get_or_insert(256);
    config.num_attention_heads.get_or_insert(4);
    config.intermediate_size.get_or_insert(1024);
    let mut spec = config.spec(0).map_err(invalid)?;
    let embedding_size = config.embedding_size.unwrap_or(128);
    config::sizes(&[("embedding_size", embedding_size)]).map_err(invalid)?;
    spec.embeddings.projected_from = Some(embedding_size).filter(|size| *size != spec.hidden);
    let heads = Heads {
        prefix: "Electra",
        pooling: Pooling::Mean,
        classifier: Some(ClassifierHead {
            pooling: Pooling::Cls,
            steps: vec![NamedStep::product("classifier.dense", spec.hidden, HeadFunction::Gelu(GeluForm::Erf))],
            classifier: "classifier.out_proj",
            bias: true,
        }),
        token_classifier: Some(TokenClassifierHead::product("classifier")),
        masked_lm: Some(MaskedLmHead::transform(
            ("generator_predictions.dense", "generator_predictions.LayerNorm"),
            embedding_size,
            HeadFunction::Gelu(GeluForm::Erf),
            bert_like::norm_eps(&spec),
            "generator_lm_head.bias",
        )),
    };
    TextEncoder::read(directory, spec, &NAMES, heads)
}
