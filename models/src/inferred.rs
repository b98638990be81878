//! The family of a model whose `config.json` has no `model_type`, as transformers guesses it and, beyond that, from the
//! names of its tensors.

use serde::Deserialize;

use crate::{LoadError, ModelDirectory, excerpt};

/// A family, and the place that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelType {
    pub(crate) name: String,
    /// The place in words, if it is not the field `model_type`.
    pub(crate) inferred_from: Option<&'static str>,
}

/// Tensors that only one family has, without a prefix.
const TENSORS: [(&str, &[&str]); 2] = [
    ("distilbert", &["transformer.layer.0.attention.q_lin.weight"]),
    ("bert", &["encoder.layer.0.attention.self.query.weight", "embeddings.token_type_embeddings.weight"]),
];

impl ModelType {
    /// Reads `model_type`; if it is missing, it is inferred from `architectures`, the directory's name, or the tensors.
    ///
    /// # Errors
    /// [`LoadError`] if none of these names one of the known families.
    pub(crate) fn read(directory: &ModelDirectory, known: &[&'static str]) -> Result<Self, LoadError> {
        #[derive(Deserialize)]
        struct Typed {
            model_type: Option<String>,
            architectures: Option<Vec<String>>,
        }
        let Typed { model_type, architectures } = directory.config()?;
        if let Some(name) = model_type {
            return Ok(Self { name, inferred_from: None });
        }
        // A longer name is tried before one that it contains.
        let mut known = known.to_vec();
        known.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let inferred = |name: &str, place| Ok(Self { name: name.to_owned(), inferred_from: Some(place) });
        if let Some(architecture) = architectures.iter().flatten().next() {
            return match known.iter().find(|name| is_of(architecture, name)) {
                Some(name) => inferred(name, "field 'architectures'"),
                None => Err(directory.invalid(
                    "config.json",
                    format!(
                        "missing field `model_type`, and field 'architectures' names '{}', which is of no known family",
                        excerpt(architecture)
                    ),
                )),
            };
        }
        let path = directory.location().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if let Some(name) = known.iter().find(|name| has_word(&path, name)) {
            return inferred(name, "the directory's name");
        }
        let tensors = directory.tensor_names();
        let begins = |prefix: String| tensors.iter().any(|tensor| tensor.starts_with(&prefix));
        if let Some(name) = known.iter().find(|name| begins(format!("{}.", name.replace('-', "_")))) {
            return inferred(name, "the names of the tensors");
        }
        let has = |names: &[&str]| names.iter().all(|name| tensors.iter().any(|tensor| tensor == name));
        if let Some((name, _)) = TENSORS.iter().find(|(name, names)| known.contains(name) && has(names)) {
            return inferred(name, "the names of the tensors");
        }
        let message = "missing field `model_type`, which neither field 'architectures', the directory's name nor the \
                       names of the tensors can replace";
        Err(directory.invalid("config.json", message))
    }
}

/// True if an architecture such as `DistilBertForMaskedLM` is of this family.
fn is_of(architecture: &str, model_type: &str) -> bool {
    let architecture = architecture.to_lowercase();
    let rest = architecture.strip_prefix(&model_type.replace(['-', '_'], ""));
    rest.is_some_and(|rest| ["model", "for", "lmhead", "pretrained"].iter().any(|end| rest.starts_with(end)))
}

/// True if `name` stands in `path` without a letter before it: `albert` is not `bert`.
fn has_word(path: &str, name: &str) -> bool {
    path.match_indices(name).any(|(at, _)| !path[..at].ends_with(char::is_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_and_paths_name_a_family_only_as_a_whole_word() {
        assert!(is_of("DistilBertForMaskedLM", "distilbert") && !is_of("DistilBertForMaskedLM", "bert"));
        assert!(is_of("BertModel", "bert") && is_of("XLMRobertaModel", "xlm-roberta"));
        assert!(!is_of("Qwen3MoeModel", "qwen3") && !is_of("JinaBertModel", "bert"));
        assert!(has_word("bert-base-uncased", "bert") && has_word("my_bert", "bert"));
        assert!(!has_word("albert-base", "bert"));
    }
}
