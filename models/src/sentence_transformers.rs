//! The files of sentence-transformers: pooling, normalisation and the limit of tokens of a model that embeds texts.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{LoadError, ModelDirectory, Pooling};

/// The settings in these files; `None` for each that is missing.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SentenceTransformer {
    pub(crate) pooling: Option<Pooling>,
    pub(crate) normalize: Option<bool>,
    pub(crate) max_tokens: Option<usize>,
}

impl SentenceTransformer {
    pub(crate) fn read(directory: &ModelDirectory) -> Result<Self, LoadError> {
        let normalize = if directory.contains(MODULES) { Some(has_normalize(directory)?) } else { None };
        let pooling = if directory.contains(POOLING) { Some(pooling(directory)?) } else { None };
        let max_tokens =
            if directory.contains(LIMITS) { directory.json::<Limits>(LIMITS)?.max_seq_length } else { None };
        Ok(Self { pooling, normalize, max_tokens })
    }
}

const MODULES: &str = "modules.json";
const POOLING: &str = "1_Pooling/config.json";
const LIMITS: &str = "sentence_bert_config.json";

#[derive(Deserialize)]
struct Limits {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct Module {
    r#type: String,
}

/// True if the modules have a `Normalize`. A module other than the three known ones would change the embedding, so it is
/// an error.
fn has_normalize(directory: &ModelDirectory) -> Result<bool, LoadError> {
    let modules: Vec<Module> = directory.json(MODULES)?;
    let names: Vec<&str> = modules.iter().map(|module| module.r#type.rsplit('.').next().unwrap_or_default()).collect();
    match names.iter().find(|name| !["Transformer", "Pooling", "Normalize"].contains(name)) {
        Some(other) => {
            let message =
                format!("a module of type '{other}' is not known; known are: Transformer, Pooling, Normalize");
            Err(directory.invalid(MODULES, message))
        }
        None => Ok(names.contains(&"Normalize")),
    }
}

/// The pooling mode. Each mode is a switch, and exactly one must be on.
fn pooling(directory: &ModelDirectory) -> Result<Pooling, LoadError> {
    let fields: BTreeMap<String, serde_json::Value> = directory.json(POOLING)?;
    let on: Vec<&str> = fields
        .iter()
        .filter(|(_, value)| value.as_bool() == Some(true))
        .filter_map(|(name, _)| name.strip_prefix("pooling_mode_"))
        .collect();
    match on[..] {
        ["mean_tokens"] => Ok(Pooling::Mean),
        ["cls_token"] => Ok(Pooling::Cls),
        _ => {
            let message = format!("pooling modes {on:?} are on; exactly one of mean_tokens and cls_token must be");
            Err(directory.invalid(POOLING, message))
        }
    }
}
