//! JSON lines: each a string, an array, or an object with either in one of its fields.

use std::path::Path;
use std::sync::Arc;

use sconce::models::excerpt;
use serde_json::Value;

use super::{CellKind, Closed, InputLocation, Outlet, ReadError, lines};

/// Sends the input in each line. Blank lines are errors, except at the end of the source.
pub(super) fn send(
    path: &Path,
    file: Option<&Arc<str>>,
    outlet: &Outlet,
    column: &str,
    kind: CellKind,
) -> Result<(), Closed> {
    // The first of the blank lines since the last line that was not, and their bytes.
    let mut blank: Option<(u64, u64)> = None;
    lines::for_each(path, file, outlet, |location, line| {
        let number = location.line.expect("lines have numbers");
        if line.content.as_ref().is_ok_and(|content| content.trim_ascii().is_empty()) {
            let (_, bytes) = blank.get_or_insert((number, 0));
            *bytes += line.consumed;
            return Ok(());
        }
        if let Some((first, mut bytes)) = blank.take() {
            for number in first..number {
                let location = InputLocation { line: Some(number), ..location.clone() };
                outlet.send(location, Err(ReadError::Blank), std::mem::take(&mut bytes))?;
            }
        }
        outlet.send(location, line.content.and_then(|content| cell(&content, column, kind)), line.consumed)
    })
}

/// The input in a line: a text as its bytes, an array as JSON.
fn cell(line: &[u8], column: &str, kind: CellKind) -> Result<Vec<u8>, ReadError> {
    let value = serde_json::from_slice(line).map_err(|cause| not_json(line, &cause))?;
    let (value, is_field) = match value {
        Value::Object(mut fields) => {
            let Some(value) = fields.remove(column) else {
                let known = fields.into_iter().map(|(name, _)| name).collect();
                return Err(ReadError::NoField { column: column.to_owned(), known });
            };
            (value, true)
        }
        value => (value, false),
    };
    match value {
        Value::String(text) => Ok(text.into_bytes()),
        Value::Array(_) if matches!(kind, CellKind::Array(_)) => Ok(value.to_string().into_bytes()),
        other => {
            let (column, got) = (column.to_owned(), described(&other));
            Err(if is_field {
                ReadError::WrongField { column, got, allowed: kind }
            } else {
                ReadError::WrongLine { column, got, allowed: kind }
            })
        }
    }
}

/// The type of a value, and the beginning of the value.
pub(super) fn described(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "null".to_owned(),
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    format!("{kind}, {}", excerpt(value))
}

pub(super) fn not_json(line: &[u8], cause: &serde_json::Error) -> ReadError {
    // Each line is parsed by itself, so the parser's own number of the line is always 1.
    let message = cause.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    let line = excerpt(&String::from_utf8_lossy(line)).to_string();
    ReadError::NotJson { message: format!("{message} at column {}", cause.column()), line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_string_or_a_field_with_one_and_of_a_model_of_images_also_an_array() {
        let table = [
            (r#""a text""#, "a text"),
            (r#"{"id": 7, "text": "in a \"field\""}"#, "in a \"field\""),
            ("[[1, 2.5], [3, 4]]", "[[1,2.5],[3,4]]"),
            (r#"{"text": [0, 1]}"#, "[0,1]"),
        ];
        for (line, expected) in table {
            assert_eq!(
                cell(line.as_bytes(), "text", CellKind::Array("an array of numbers")).unwrap(),
                expected.as_bytes(),
                "{line}"
            );
        }
        for (line, expected) in &table[..2] {
            assert_eq!(cell(line.as_bytes(), "text", CellKind::Text).unwrap(), expected.as_bytes(), "{line}");
        }
    }

    #[test]
    fn what_is_no_input_is_refused_with_what_it_is_and_what_is_allowed() {
        let table = [
            ("{", "not JSON: EOF while parsing an object at column 1: {; give one JSON string or object per line"),
            ("over", "not JSON: expected value at column 1: over; give one JSON string or object per line"),
            (r#"{"body": "x", "id": 1}"#, "there is no field 'text'; there are: body, id; --column names another"),
            ("{}", "there is no field 'text'; there are: (none); --column names another"),
            (r#"{"text": null}"#, "field 'text' holds null; it must be a string"),
            (r#"{"text": [0, 1]}"#, "field 'text' holds an array, [0,1]; it must be a string"),
            (
                "17",
                "the line is a number, 17; give a string, or an object with that in its field 'text' (--column names another)",
            ),
            ("[1]", "the line is an array, [1]; give a string, or an object with that in its field 'text'"),
        ];
        for (line, message) in table {
            let error = cell(line.as_bytes(), "text", CellKind::Text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{line}: {error}");
        }
        let error = cell(b"17", "text", CellKind::Array("an array of numbers")).unwrap_err().to_string();
        assert!(error.starts_with("the line is a number, 17; give an array of numbers, or an object"), "{error}");
    }
}
