//! Labels of classifiers: `id2label` and `num_labels` of `config.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::excerpt;

/// The labels in the order of the logits: those of `id2label`, an object with the keys 0, 1, … or a list. Without it
/// they are `LABEL_0`, `LABEL_1`, …, as many as `num_labels` says, else two, as in Hugging Face's library; weights for
/// another number of labels are then refused because their shape does not fit.
///
/// # Errors
/// A message if the keys are not exactly 0, 1, …, a name is not a string or a number or comes twice, or there are none.
pub(crate) fn in_order(id2label: Option<&Value>, num_labels: Option<usize>) -> Result<Arc<[String]>, String> {
    /// More than any classifier has.
    const MAX_LABELS: usize = 1 << 16;
    let names: Vec<String> = match id2label {
        None | Some(Value::Null) => {
            let count = num_labels.unwrap_or(2);
            if !(1..=MAX_LABELS).contains(&count) {
                return Err(format!("field 'num_labels' is {count}; it must be between 1 and {MAX_LABELS}"));
            }
            (0..count).map(|id| format!("LABEL_{id}")).collect()
        }
        Some(Value::Array(labels)) => labels.iter().map(name).collect::<Result<_, _>>()?,
        Some(Value::Object(labels)) => by_number(labels)?,
        Some(other) => {
            let other = excerpt(other).to_string();
            return Err(format!("field 'id2label' is {other}; it must be an object with the keys 0, 1, …"));
        }
    };
    if names.is_empty() {
        return Err("field 'id2label' is empty; give one label per class".to_owned());
    }
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    if let Some(name) = sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]) {
        let name = excerpt(name);
        return Err(format!("field 'id2label' names '{name}' more than once; give each class a name of its own"));
    }
    Ok(names.into())
}

fn by_number(labels: &serde_json::Map<String, Value>) -> Result<Vec<String>, String> {
    let mut numbered = BTreeMap::new();
    for (key, label) in labels {
        let number = key.parse::<usize>();
        let number =
            number.map_err(|_| format!("field 'id2label' has the key '{}'; keys are 0, 1, …", excerpt(key)))?;
        numbered.insert(number, name(label)?);
    }
    match (0..labels.len()).find(|id| !numbered.contains_key(id)) {
        Some(missing) => Err(format!("field 'id2label' has {} labels, but none for {missing}", labels.len())),
        None => Ok(numbered.into_values().collect()),
    }
}

fn name(label: &Value) -> Result<String, String> {
    match label {
        Value::String(name) => Ok(name.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("field 'id2label' has the label {}; labels are strings", excerpt(other))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_read_in_every_form_that_checkpoints_have() {
        let labels = |value: Value, count| in_order(Some(&value), count).map(|labels| labels.join(","));
        let expected = |names: &str| Ok(names.to_owned());
        let twelve: serde_json::Map<_, _> = (0..12).map(|id| (id.to_string(), json!(format!("c{id}")))).collect();
        assert_eq!(labels(Value::Object(twelve), None), expected("c0,c1,c2,c3,c4,c5,c6,c7,c8,c9,c10,c11"));
        assert_eq!(labels(json!({"1": 1, "0": 0}), None), expected("0,1"));
        assert_eq!(labels(json!(["no", "yes"]), None), expected("no,yes"));
        assert_eq!(labels(json!({"0": "one"}), Some(7)), expected("one"));
        assert_eq!(labels(Value::Null, None), expected("LABEL_0,LABEL_1"));
        assert_eq!(in_order(None, Some(3)).unwrap().join(","), "LABEL_0,LABEL_1,LABEL_2");
    }

    #[test]
    fn labels_that_name_no_class_are_refused_with_what_is_wrong() {
        for (value, part) in [
            (json!({"a": "b"}), "has the key 'a'"),
            (json!({"0": "x", "2": "y"}), "none for 1"),
            (json!({"0": null}), "the label null"),
            (json!([]), "is empty"),
            (json!("x"), "is \"x\"; it must be an object"),
            (json!({"0": "x", "1": "x"}), "'x' more than once"),
        ] {
            let refused = in_order(Some(&value), None).unwrap_err();
            assert!(refused.contains(part), "{value}: {refused}");
        }
        assert!(in_order(None, Some(0)).unwrap_err().contains("'num_labels' is 0"));
    }
}
