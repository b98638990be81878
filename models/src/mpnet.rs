//! MPNet (Song et al., arXiv:2004.09297): BERT without segments, with a relative bias of scores beside the positions.

use sconce_kernels::encoder::RelativeBias;
use serde::Deserialize;

use crate::bert_like::BertConfig;
use crate::{Family, LoadError, ModelDirectory, TensorNames, TextEncoder, bert, config, roberta};

/// `"model_type": "mpnet"`.
pub(crate) const FAMILY: Family = Family {
    model_type: "mpnet",
    summary: "text embedding and classification (MPNetModel, MPNetForSequenceClassification)",
    read: |directory| Ok(Box::new(read(directory)?)),
};

const NAMES: TensorNames = TensorNames {
    optional_prefix: "mpnet.",
    segments: "",
    relative_bias: "encoder.relative_attention_bias",
    query: "attention.attn.q",
    key: "attention.attn.k",
    value: "attention.attn.v",
    attention_output: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    ..bert::NAMES
};

/// The distance from which on keys share a row of the relative bias; Hugging Face's code has it as a constant.
const MAX_DISTANCE: usize = 128;
/// The padding's token, which Hugging Face's code has as a constant too.
const PADDING: u32 = 1;
const FIRST_POSITION: usize = 2;

#[derive(Deserialize)]
struct Config {
    relative_attention_num_buckets: Option<usize>,
}

fn read(directory: &ModelDirectory) -> Result<TextEncoder, LoadError> {
    let bert: BertConfig = directory.config()?;
    let Config { relative_attention_num_buckets } = directory.config()?;
    let invalid = |message| directory.invalid("config.json", message);
    let mut spec = bert.spec(FIRST_POSITION).map_err(invalid)?;
    let buckets = relative_attention_num_buckets.unwrap_or(32);
    config::buckets("relative_attention_num_buckets", buckets, MAX_DISTANCE).map_err(invalid)?;
    spec.embeddings.segments = 0;
    spec.relative_bias = Some(RelativeBias { buckets, max_distance: MAX_DISTANCE });
    let heads = roberta::heads("MPNet", &spec);
    Ok(TextEncoder::read(directory, spec, &NAMES, heads)?.with_padding(PADDING))
}
