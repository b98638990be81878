//! RoBERTa (Liu et al., arXiv:1907.11692), XLM-RoBERTa (Conneau et al., arXiv:1911.02116) and `CamemBERT` (Martin et al.,
//! arXiv:1911.03894): BERT with positions that begin after the padding's, and another classifier.

use sconce_kernels::bias_gelu::GeluForm;
use sconce_kernels::encoder::{EncoderSpec, HeadFunction};
use sconce_kernels::pooling::Pooling;

use crate::bert_like::BertConfig;
use crate::{
    ClassifierHead, Family, Heads, LoadError, MaskedLmHead, ModelDirectory, NamedStep, TensorNames, TextEncoder,
    TokenClassifierHead, bert, bert_like,
};

/// `"model_type": "roberta"`.
pub(crate) const ROBERTA: Family = Family {
    model_type: "roberta",
    summary: "text embedding, classification and reranking (RobertaModel, RobertaForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory, "Roberta")?)),
};

/// `"model_type": "xlm-roberta"`.
pub(crate) const XLM_ROBERTA: Family = Family {
    model_type: "xlm-roberta",
    summary: "text embedding, classification and reranking (XLMRobertaModel, XLMRobertaForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory, "XLMRoberta")?)),
};

/// `"model_type": "camembert"`.
pub(crate) const CAMEMBERT: Family = Family {
    model_type: "camembert",
    summary: "text embedding and classification (CamembertModel, CamembertForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory, "Camembert")?)),
};

const NAMES: TensorNames = TensorNames { optional_prefix: "roberta.", ..bert::NAMES };

fn read(directory: &ModelDirectory, prefix: &'static str) -> Result<TextEncoder, LoadError> {
    let config: BertConfig = directory.config()?;
    let padding = config.pad_token_id.unwrap_or(1);
    let spec = config.spec(padding.saturating_add(1)).map_err(|message| directory.invalid("config.json", message))?;
    let heads = heads(prefix, &spec);
    let padding = u32::try_from(padding).unwrap_or(u32::MAX);
    Ok(TextEncoder::read(directory, spec, &NAMES, heads)?.with_padding(padding))
}

/// The heads of RoBERTa, which MPNet has as well.
pub(crate) fn heads(prefix: &'static str, spec: &EncoderSpec) -> Heads {
    Heads {
        prefix,
        pooling: Pooling::Mean,
        classifier: Some(ClassifierHead {
            pooling: Pooling::Cls,
            steps: vec![NamedStep::product("classifier.dense", spec.hidden, HeadFunction::Tanh)],
            classifier: "classifier.out_proj",
            bias: true,
        }),
        token_classifier: Some(TokenClassifierHead::product("classifier")),
        masked_lm: Some(MaskedLmHead::transform(
            ("lm_head.dense", "lm_head.layer_norm"),
            spec.hidden,
            HeadFunction::Gelu(GeluForm::Erf),
            bert_like::norm_eps(spec),
            "lm_head.bias",
        )),
    }
}
