//! `config.json` of a BERT: the fields that are read, and what they may be.

use std::collections::BTreeMap;

use sconce_kernels::bias_gelu::GeluForm;
use serde::Deserialize;

use crate::{LoadError, ModelDirectory, sizes};

/// As Hugging Face writes it; defaults are those of its `BertConfig`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    architectures: Vec<String>,
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) intermediate_size: usize,
    pub(super) max_position_embeddings: usize,
    #[serde(default = "default_type_vocab_size")]
    pub(super) type_vocab_size: usize,
    #[serde(default = "default_layer_norm_eps")]
    pub(super) layer_norm_eps: f32,
    hidden_act: String,
    #[serde(default = "default_position_embedding_type")]
    position_embedding_type: String,
    #[serde(default)]
    is_decoder: bool,
    problem_type: Option<String>,
    pub(super) id2label: Option<BTreeMap<String, String>>,
}

fn default_type_vocab_size() -> usize {
    2
}

fn default_layer_norm_eps() -> f32 {
    1e-12
}

fn default_position_embedding_type() -> String {
    "absolute".to_owned()
}

/// What stands on top of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    /// `BertModel`: token vectors are pooled.
    Embedding,
    /// `BertForSequenceClassification`: pooler and classifier.
    Classification,
}

/// The function inside the feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    Gelu(GeluForm),
    Relu,
}

impl Config {
    pub(super) fn read(directory: &ModelDirectory) -> Result<Self, LoadError> {
        let config: Self = directory.config()?;
        config.check().map_err(|message| directory.invalid("config.json", message))?;
        Ok(config)
    }

    pub(super) fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    pub(super) fn architecture(&self) -> Result<Architecture, String> {
        match self.architectures.first().map_or("BertModel", String::as_str) {
            "BertModel" => Ok(Architecture::Embedding),
            "BertForSequenceClassification" => Ok(Architecture::Classification),
            other => Err(format!(
                "field 'architectures' names '{other}'; known are: BertModel, BertForSequenceClassification"
            )),
        }
    }

    pub(super) fn activation(&self) -> Result<Activation, String> {
        match self.hidden_act.as_str() {
            "gelu" => Ok(Activation::Gelu(GeluForm::Erf)),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::Gelu(GeluForm::Tanh)),
            "relu" => Ok(Activation::Relu),
            other => {
                Err(format!("field 'hidden_act' is '{other}'; known are: gelu, gelu_new, gelu_pytorch_tanh, relu"))
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        sizes::check(&[
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
        ])?;
        sizes::check_rows(&[
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ])?;
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if !hidden.is_multiple_of(heads) {
            return Err(format!("field 'num_attention_heads' is {heads}, which does not divide hidden_size {hidden}"));
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps >= 0.0) {
            return Err(format!(
                "field 'layer_norm_eps' is {}; it must be finite and not negative",
                self.layer_norm_eps
            ));
        }
        if self.position_embedding_type != "absolute" {
            let got = &self.position_embedding_type;
            return Err(format!("field 'position_embedding_type' is '{got}'; only 'absolute' is known"));
        }
        if self.is_decoder {
            return Err("field 'is_decoder' is true; only encoders are known".to_owned());
        }
        if self.architecture()? == Architecture::Classification {
            // Softmax would be wrong for the two other problem types.
            match self.problem_type.as_deref() {
                None | Some("single_label_classification") => {}
                Some(other) => {
                    let message = "only 'single_label_classification' is known";
                    return Err(format!("field 'problem_type' is '{other}'; {message}"));
                }
            }
        }
        self.activation().map(|_| ())
    }
}
