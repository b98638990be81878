//! Inputs as OpenAI and text-embeddings-inference take them: a text, numbers of tokens, or a list of either.

use std::fmt;

use sconce::Input;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use utoipa::ToSchema;

/// The forms of [`InputList`] in JSON.
#[derive(ToSchema)]
#[schema(example = "a sconce holds candles")]
#[serde(untagged)]
#[expect(dead_code, reason = "only described")]
pub(crate) enum InputForms {
    /// A text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Numbers of tokens of the model's own tokenizer, special ones included: they are read as they are.
    Tokens(Vec<u32>),
    /// Several such lists.
    ListsOfTokens(Vec<Vec<u32>>),
}

/// One input, or a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InputList {
    pub(crate) items: Vec<Input>,
    /// Characters of all texts, and tokens of those sent as numbers.
    pub(crate) characters: usize,
}

const EXPECTED: &str = "a text, a list of texts, a list of token numbers, or a list of such lists";

impl<'de> Deserialize<'de> for InputList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputListVisitor)
    }
}

struct InputListVisitor;

impl<'de> Visitor<'de> for InputListVisitor {
    type Value = InputList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<InputList, E> {
        Ok(InputList { characters: text.chars().count(), items: vec![text.into()] })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<InputList, A::Error> {
        let (mut items, mut numbers, mut characters) = (Vec::new(), Vec::new(), 0);
        while let Some(element) = list.next_element()? {
            match element {
                ListElement::Text(text) => {
                    characters += text.chars().count();
                    items.push(text.into());
                }
                ListElement::Tokens(ids) => {
                    characters += ids.len();
                    items.push(Input::Tokens(ids));
                }
                ListElement::Number(id) => numbers.push(id),
            }
        }
        if numbers.is_empty() {
            return Ok(InputList { items, characters });
        }
        if items.is_empty() {
            return Ok(InputList { characters: numbers.len(), items: vec![Input::Tokens(numbers)] });
        }
        Err(A::Error::custom(format_args!("numbers beside texts or lists; expected {EXPECTED}")))
    }
}

/// True for a JSON object, false for any other value, of which nothing is kept.
pub(crate) struct IsObject(pub(crate) bool);

impl<'de> Deserialize<'de> for IsObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KindVisitor;

        impl<'de> Visitor<'de> for KindVisitor {
            type Value = IsObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<IsObject, A::Error> {
                while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(IsObject(true))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<IsObject, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(IsObject(false))
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<IsObject, E> {
                Ok(IsObject(false))
            }
        }

        deserializer.deserialize_any(KindVisitor)
    }
}

/// An element of a list.
enum ListElement {
    Text(String),
    Number(u32),
    Tokens(Vec<u32>),
}

impl<'de> Deserialize<'de> for ListElement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListElementVisitor)
    }
}

struct ListElementVisitor;

impl<'de> Visitor<'de> for ListElementVisitor {
    type Value = ListElement;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, the number of a token, or a list of such numbers")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ListElement, E> {
        Ok(ListElement::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<ListElement, E> {
        Ok(ListElement::Text(text))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<ListElement, E> {
        let too_large = |_| E::custom(format_args!("{number} is no number of a token; they end at {}", u32::MAX));
        u32::try_from(number).map(ListElement::Number).map_err(too_large)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ListElement, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = list.next_element()? {
            ids.push(id);
        }
        Ok(ListElement::Tokens(ids))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_tokens_are_read_alone_and_in_lists() {
        let read = |json: &str| serde_json::from_str::<InputList>(json).map(|inputs| (inputs.items, inputs.characters));
        let tokens = |ids: &[u32]| Input::Tokens(ids.to_vec());
        assert_eq!(read(r#""ä text""#).unwrap(), (vec!["ä text".into()], 6));
        assert_eq!(read(r#"["a", "bc"]"#).unwrap(), (vec!["a".into(), "bc".into()], 3));
        assert_eq!(read("[1, 2]").unwrap(), (vec![tokens(&[1, 2])], 2));
        assert_eq!(read("[[1], [2, 3]]").unwrap(), (vec![tokens(&[1]), tokens(&[2, 3])], 3));
        assert_eq!(read(r#"["a", [2, 3]]"#).unwrap(), (vec!["a".into(), tokens(&[2, 3])], 3));
        assert_eq!(read("[]").unwrap(), (Vec::new(), 0));
        for (json, message) in [
            ("7", "expected a text, a list of texts"),
            (r#"["a", 7]"#, "numbers beside texts"),
            ("[-1]", "expected a text, the number of a token"),
            ("[4294967296]", "no number of a token"),
            ("[1.5]", "expected a text, the number of a token"),
            ("[null]", "expected a text, the number of a token"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(message), "{json}: {error}");
        }
    }
}
