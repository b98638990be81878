//! The languages of a model, as the front matter of its `README.md` states them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

/// Bytes of `README.md` that are looked at; tables of results make front matters long.
const MAX_BYTES: u64 = 4 << 20;

/// The codes or names under `language:`, in their order; none if the model states none.
pub(crate) fn of(model: &Path) -> Vec<String> {
    let Ok(file) = File::open(model.join("README.md")) else { return Vec::new() };
    stated(BufReader::new(file.take(MAX_BYTES)).lines().map_while(Result::ok))
}

/// Reads the field `language` of a front matter, the YAML between two lines of `---`: a string, or a list in either form.
fn stated(mut lines: impl Iterator<Item = String>) -> Vec<String> {
    if lines.next().is_none_or(|first| first.trim_start_matches('\u{feff}').trim_end() != "---") {
        return Vec::new();
    }
    let mut fields =
        lines.take_while(|line| line.trim_end() != "---").skip_while(|line| !line.starts_with("language:"));
    let Some(first) = fields.next() else { return Vec::new() };
    // Lines of a value are indented, or begin with the dash of a list.
    let more = fields.take_while(|line| line.is_empty() || line.starts_with([' ', '\t', '-', ']', '#']));
    let mut languages = Vec::new();
    for line in std::iter::once(first["language:".len()..].to_owned()).chain(more) {
        let line = if line.starts_with('#') { "" } else { line.split(" #").next().unwrap_or_default() };
        let items = line.split([',', '[', ']']).map(|item| {
            let item = item.trim();
            item.strip_prefix("- ").unwrap_or(item).trim().trim_matches(['"', '\''])
        });
        let is_language = |item: &&str| {
            !matches!(*item, "" | "null")
                && item.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
        };
        languages.extend(items.filter(is_language).map(str::to_owned));
    }
    languages
}

/// The languages in a cell of a table: the first few, and the number of the others.
pub(crate) fn shown(languages: &[String]) -> String {
    const SHOWN: usize = 3;
    match languages.len() {
        0 => "-".to_owned(),
        count if count <= SHOWN + 1 => languages.join(", "),
        count => format!("{}, {} more", languages[..SHOWN].join(", "), count - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_read_from_every_form_that_yaml_has_for_them() {
        let table: [(&str, &[&str]); 15] = [
            ("---\nlanguage: en\n---\n", &["en"]),
            ("\u{feff}---\r\nlanguage: 'no'\r\nlicense: mit\r\n---\r\n", &["no"]),
            ("---\nlanguage:\n- en\n- de # German\nlicense: mit\n---\n", &["en", "de"]),
            ("---\nlicense: mit\nlanguage:\n  - en\n\n  # and\n  - \"zh-cn\"\ntags: [x]\n---\n", &["en", "zh-cn"]),
            ("---\nlanguage: [en, 'fr', multilingual]\n---\n", &["en", "fr", "multilingual"]),
            ("---\nlanguage: [\n  en,\n  fr\n]\ntags: []\n---\n", &["en", "fr"]),
            ("---\nmodel-index:\n- name: x\n  language: de\nlanguage: en\n---\n", &["en"]),
            ("---\nlanguage:\n---\n- en\n", &[]),
            ("---\nlanguage: null\n---\n", &[]),
            ("---\nlanguages: en\nlanguage_bcp47: de\n---\n", &[]),
            ("---\nlanguage:\n- name: English\n---\n", &[]),
            ("---\nlicense: mit\n---\nlanguage: en\n", &[]),
            ("# A model\nlanguage: en\n", &[]),
            ("---\nlanguage: \u{1b}en\n---\n", &[]),
            ("", &[]),
        ];
        for (readme, expected) in table {
            assert_eq!(stated(readme.lines().map(str::to_owned)), expected, "{readme:?}");
        }
    }

    #[test]
    fn a_cell_shows_the_first_languages_and_counts_the_others() {
        let languages = |count: usize| (0..count).map(|index| format!("l{index}")).collect::<Vec<_>>();
        assert_eq!(shown(&languages(0)), "-");
        assert_eq!(shown(&languages(4)), "l0, l1, l2, l3");
        assert_eq!(shown(&languages(94)), "l0, l1, l2, 91 more");
    }
}
