//! Labels of classifiers: `id2label` of `config.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::excerpt;

/// The labels in the order of the logits. If the field is missing they are `LABEL_0` and `LABEL_1`, as in Hugging Face's
/// library; weights for another number of labels are then refused because their shape does not fit.
///
/// # Errors
/// A message if the keys are not exactly 0, 1, …, or there are no labels.
pub(crate) fn in_order(id2label: Option<&BTreeMap<String, String>>) -> Result<Arc<[String]>, String> {
    let Some(id2label) = id2label else { return Ok(["LABEL_0", "LABEL_1"].map(String::from).into()) };
    if id2label.is_empty() {
        return Err("field 'id2label' is empty; give one label per class".to_owned());
    }
    let mut names: Vec<&String> = id2label.values().collect();
    names.sort();
    if let Some(name) = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]) {
        let name = excerpt(name);
        return Err(format!("field 'id2label' names '{name}' more than once; give each class a name of its own"));
    }
    (0..id2label.len())
        .map(|id| {
            let missing = || format!("field 'id2label' has {} labels, but none for {id}", id2label.len());
            id2label.get(&id.to_string()).cloned().ok_or_else(missing)
        })
        .collect()
}
