//! Azure's LLM inference traces, of 2023 (`2023-11-16 18:15:46.6805900`) and of 2024 (`2024-05-10 00:00:00.009930+00:00`).

use std::io::Read;

use chrono::{DateTime, NaiveDateTime};

use crate::{TraceError, TraceLimits};

use super::from_the_first;
use super::lines::Parsed;
use super::table::{rows, tokens};

pub(super) const COLUMNS: [&str; 2] = ["TIMESTAMP", "ContextTokens"];

pub(super) fn read(source: impl Read, limits: &TraceLimits) -> Result<Parsed, TraceError> {
    let timed = rows(source, COLUMNS, limits, |line, [timestamp, context]| {
        let seconds = seconds(timestamp).ok_or_else(|| TraceError::Field {
            line,
            field: COLUMNS[0],
            value: format!("'{}'", timestamp.chars().take(40).collect::<String>()),
            allowed: "a time of day, for instance 2023-11-16 18:15:46.6805900",
        })?;
        Ok((line, seconds, tokens(line, COLUMNS[1], context)?))
    })?;
    Ok((None, from_the_first(timed, COLUMNS[0], limits)?))
}

/// Seconds since 1970, to about a quarter of a microsecond.
fn seconds(timestamp: &str) -> Option<f64> {
    let with_zone = || DateTime::parse_from_str(timestamp, "%Y-%m-%d %H:%M:%S%.f%:z").ok().map(|time| time.to_utc());
    let without = || NaiveDateTime::parse_from_str(timestamp, "%Y-%m-%d %H:%M:%S%.f").ok().map(|time| time.and_utc());
    let time = with_zone().or_else(without)?;
    Some(time.timestamp() as f64 + f64::from(time.timestamp_subsec_nanos()) / 1e9)
}
