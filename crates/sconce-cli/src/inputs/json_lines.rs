//! JSON lines: each a string, an array of numbers, or an object with either in one of its fields.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{Closed, Outlet, ReadError, lines};

pub(super) fn send(path: &Path, file: Option<&Arc<str>>, outlet: &Outlet, column: &str) -> Result<(), Closed> {
    lines::send_made(path, file, outlet, |line| cell(&line, column))
}

/// The input in a line: a text as its bytes, an array of numbers as JSON.
fn cell(line: &[u8], column: &str) -> Result<Vec<u8>, ReadError> {
    let value = serde_json::from_slice(line).map_err(|cause| ReadError::NotJson(cause.to_string()))?;
    let value = match value {
        Value::Object(mut fields) => {
            let Some(value) = fields.remove(column) else {
                let known = fields.into_iter().map(|(name, _)| name).collect();
                return Err(ReadError::NoField { column: column.to_owned(), known });
            };
            value
        }
        value => value,
    };
    match value {
        Value::String(text) => Ok(text.into_bytes()),
        Value::Array(_) => Ok(value.to_string().into_bytes()),
        other => {
            let got = match other {
                Value::Null => "null",
                Value::Bool(_) => "a truth value",
                Value::Number(_) => "a number",
                _ => "an object",
            };
            Err(ReadError::WrongType { column: column.to_owned(), got: got.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_string_an_array_or_a_field_with_one() {
        let table = [
            (r#""a text""#, "a text"),
            (r#"{"id": 7, "text": "in a \"field\""}"#, "in a \"field\""),
            ("[[1, 2.5], [3, 4]]", "[[1,2.5],[3,4]]"),
            (r#"{"text": [0, 1]}"#, "[0,1]"),
        ];
        for (line, expected) in table {
            assert_eq!(cell(line.as_bytes(), "text").unwrap(), expected.as_bytes(), "{line}");
        }
    }

    #[test]
    fn what_is_no_input_is_refused_with_what_there_is() {
        let table = [
            ("{", "not JSON: "),
            ("", "not JSON: "),
            (r#"{"body": "x", "id": 1}"#, "there is no field 'text'; there are: body, id; --column names another"),
            (r#"{"text": null}"#, "field 'text' holds null; "),
            ("17", "field 'text' holds a number; "),
        ];
        for (line, message) in table {
            let error = cell(line.as_bytes(), "text").unwrap_err().to_string();
            assert!(error.starts_with(message), "{line}: {error}");
        }
    }
}
