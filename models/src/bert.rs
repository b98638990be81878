//! BERT (Devlin et al., arXiv:1810.04805): text embedding and sequence classification.

use sconce_kernels::encoder::{EncoderSpec, HeadFunction};
use sconce_kernels::pooling::Pooling;

use crate::bert_like::BertConfig;
use crate::{
    ClassifierHead, Family, Heads, LoadError, MaskedLmHead, ModelDirectory, NamedStep, TensorNames, TextEncoder,
    TokenClassifierHead, bert_like, config,
};

/// `"model_type": "bert"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "bert",
    summary: "text embedding and classification (BertModel, BertForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory)?)),
};

/// The names of BERT's tensors, which several families share.
pub(crate) const NAMES: TensorNames = TensorNames {
    optional_prefix: "bert.",
    words: "embeddings.word_embeddings",
    positions: "embeddings.position_embeddings",
    segments: "embeddings.token_type_embeddings",
    embedding_norm: "embeddings.LayerNorm",
    blocks: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    output_norm: "output.LayerNorm",
    ..TensorNames::NONE
};

pub(crate) fn read(directory: &ModelDirectory) -> Result<TextEncoder, LoadError> {
    let config: BertConfig = directory.config()?;
    let spec = config.spec(0).map_err(|message| directory.invalid("config.json", message))?;
    let heads = heads(&spec);
    TextEncoder::read(directory, spec, &NAMES, heads)
}

fn heads(spec: &EncoderSpec) -> Heads {
    let pooler = NamedStep::product("bert.pooler.dense", spec.hidden, HeadFunction::Tanh);
    Heads {
        prefix: "Bert",
        pooling: Pooling::Mean,
        classifier: Some(ClassifierHead {
            pooling: Pooling::Cls,
            steps: vec![pooler],
            classifier: "classifier",
            bias: true,
        }),
        token_classifier: Some(TokenClassifierHead::product("classifier")),
        masked_lm: Some(MaskedLmHead::transform(
            ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
            spec.hidden,
            config::head_function(spec.blocks[0].feed_forward.function),
            bert_like::norm_eps(spec),
            "cls.predictions.bias",
        )),
    }
}
