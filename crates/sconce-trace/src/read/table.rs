//! Tables: rows of named columns, separated by commas.

use std::io::Read;

use csv::{ErrorKind, StringRecord};

use crate::{TraceError, TraceLimits};

use super::bounded::of_reading;

/// Reads the rows of a table, of which `columns` are handed to `parse` with the number of the row's line. The header is known
/// to have them.
pub(super) fn rows<const COLUMNS: usize, T>(
    source: impl Read,
    columns: [&'static str; COLUMNS],
    limits: &TraceLimits,
    mut parse: impl FnMut(u64, [&str; COLUMNS]) -> Result<T, TraceError>,
) -> Result<Vec<T>, TraceError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
    let header = reader.headers().map_err(of_table)?;
    let place =
        |name| header.iter().position(|column| column.trim_start_matches('\u{feff}') == name).unwrap_or(usize::MAX);
    let places = columns.map(place);
    let (mut rows, mut row) = (Vec::new(), StringRecord::new());
    while reader.read_record(&mut row).map_err(of_table)? {
        if rows.len() == limits.max_requests {
            return Err(TraceError::TooManyRequests { max: limits.max_requests });
        }
        let line = row.position().map_or(0, csv::Position::line);
        rows.push(parse(line, places.map(|place| row.get(place).unwrap_or_default()))?);
    }
    Ok(rows)
}

/// Parses a number of tokens. Some tables write them as decimal numbers.
pub(super) fn tokens(line: u64, field: &'static str, cell: &str) -> Result<u32, TraceError> {
    let whole = || cell.parse().ok();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number within the bounds of u32"
    )]
    let decimal =
        || cell.parse().ok().filter(|it: &f64| it.fract() == 0.0 && (0.0..=4e9).contains(it)).map(|it| it as u32);
    whole().or_else(decimal).ok_or_else(|| TraceError::Field {
        line,
        field,
        value: format!("'{}'", cell.chars().take(40).collect::<String>()),
        allowed: "a whole number of tokens",
    })
}

fn of_table(error: csv::Error) -> TraceError {
    let line = error.position().map_or(0, csv::Position::line);
    let message = error.to_string();
    match error.into_kind() {
        ErrorKind::Io(error) => of_reading(error),
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            TraceError::NotARow { line, message: format!("it has {len} cells, the header has {expected_len}") }
        }
        _ => TraceError::NotARow { line, message },
    }
}
