//! The settings of an advice in `sconce.toml`, beside whatever else is in that file.

use toml_edit::{DocumentMut, Item, Table, Value};

use super::Setting;

/// The content of a `sconce.toml` with the settings in place of its own; comments and other settings stay as they are.
///
/// # Errors
/// The reason why `old` is no such file.
pub(crate) fn with(old: &str, setting: &Setting) -> Result<String, String> {
    let mut document: DocumentMut = old.parse().map_err(|cause: toml_edit::TomlError| cause.to_string())?;
    let Setting { precision, config, .. } = setting;
    set(&mut document, "model", "precision", precision.name().into())?;
    let number = |number: usize| Value::from(i64::try_from(number).unwrap_or(i64::MAX));
    let delay_us = i64::try_from(config.max_queue_delay.as_micros()).unwrap_or(i64::MAX);
    set(&mut document, "batching", "max_batch_size", number(config.max_batch_size))?;
    set(&mut document, "batching", "max_batch_weight", number(config.max_batch_weight))?;
    set(&mut document, "batching", "max_queue_delay_us", delay_us.into())?;
    Ok(document.to_string())
}

/// Sets one field, and keeps the comment behind it.
fn set(document: &mut DocumentMut, table: &str, field: &str, new: Value) -> Result<(), String> {
    let item = document.entry(table).or_insert_with(|| Item::Table(Table::new()));
    let table = item.as_table_like_mut().ok_or_else(|| format!("its '{table}' is no table; make it one: [{table}]"))?;
    let mut new = new;
    if let Some(old) = table.get(field).and_then(Item::as_value) {
        *new.decor_mut() = old.decor().clone();
    }
    table.insert(field, Item::Value(new));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use sconce::{BatcherConfig, Precision};

    use super::*;

    fn setting() -> Setting {
        let max_queue_delay = Duration::from_micros(250);
        let config =
            BatcherConfig { max_batch_size: 8, max_batch_weight: 640, max_queue_delay, ..BatcherConfig::default() };
        Setting { threads: NonZeroUsize::MIN, precision: Precision::F32, config }
    }

    #[test]
    fn everything_else_in_the_file_is_kept() {
        let old = "# ours\n[model]\nprecision = \"int8\" # for now\nmax_tokens = 256\n\n[batching]\nmax_batch_size = 32 # items\nmax_queue_size = 7\n\n[cache]\nanswers = false\n";
        let new = with(old, &setting()).unwrap();
        let expected = "# ours\n[model]\nprecision = \"f32\" # for now\nmax_tokens = 256\n\n[batching]\nmax_batch_size = 8 # items\nmax_queue_size = 7\nmax_batch_weight = 640\nmax_queue_delay_us = 250\n\n[cache]\nanswers = false\n";
        assert_eq!(new, expected);
        assert_eq!(with(&new, &setting()).unwrap(), new, "nothing changes the second time");
    }

    #[test]
    fn a_file_is_made_where_there_is_none_and_one_that_is_no_toml_is_left_alone() {
        let new = with("", &setting()).unwrap();
        assert!(new.contains("[model]\nprecision = \"f32\"\n") && new.contains("max_queue_delay_us = 250"), "{new}");
        assert!(with("[model", &setting()).is_err());
        assert!(with("model = 3", &setting()).unwrap_err().contains("make it one: [model]"));
    }
}
