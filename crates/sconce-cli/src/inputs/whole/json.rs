//! Tables of JSON lines: an object for each row, whose fields are the columns.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde_json::{Map, Value};

use super::{DataRow, DataTable, DataValue};
use crate::inputs::{CellKind, ReadError, json_lines};

/// Reads the file. The columns are the fields of all objects; blank lines are passed over. An error has its line.
pub(super) fn read(path: &Path) -> Result<DataTable, (u64, ReadError)> {
    let file = BufReader::new(File::open(path).map_err(|cause| (1, cause.into()))?);
    let mut columns: Vec<String> = Vec::new();
    let mut objects: Vec<(u64, Map<String, Value>)> = Vec::new();
    for (line, number) in file.split(b'\n').zip(1..) {
        let line = line.map_err(|cause| (number, cause.into()))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let object = object(&line).map_err(|error| (number, error))?;
        columns.extend(object.keys().filter(|name| !columns.contains(name)).cloned().collect::<Vec<_>>());
        objects.push((number, object));
    }
    let row = |(line, mut object): (u64, Map<String, Value>)| {
        let value = |name: &String| object.remove(name).map_or(DataValue::Absent, value);
        DataRow { line, values: columns.iter().map(value).collect() }
    };
    let rows = objects.into_iter().map(row).collect();
    Ok(DataTable { columns, rows })
}

fn object(line: &[u8]) -> Result<Map<String, Value>, ReadError> {
    match serde_json::from_slice(line).map_err(|cause| json_lines::not_json(line, &cause))? {
        Value::Object(object) => Ok(object),
        other => Err(ReadError::WrongLine {
            column: "text".to_owned(),
            got: json_lines::described(&other),
            allowed: CellKind::Array("an object with a field for each column"),
        }),
    }
}

fn value(value: Value) -> DataValue {
    match value {
        Value::Null => DataValue::Absent,
        Value::String(text) => DataValue::Bytes(text.into_bytes()),
        other => DataValue::Bytes(other.to_string().into_bytes()),
    }
}
