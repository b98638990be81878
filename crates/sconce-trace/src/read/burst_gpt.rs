//! The traces of `BurstGPT`, whose times are in seconds. Its models are not those of this server, so their names are not kept.

use std::io::Read;

use crate::{TraceError, TraceLimits};

use super::from_the_first;
use super::lines::Parsed;
use super::table::{rows, tokens};

pub(super) const COLUMNS: [&str; 2] = ["Timestamp", "Request tokens"];

pub(super) fn read(source: impl Read, limits: &TraceLimits) -> Result<Parsed, TraceError> {
    let timed = rows(source, COLUMNS, limits, |line, [timestamp, requested]| {
        let seconds = timestamp.parse().ok().filter(|it: &f64| it.is_finite()).ok_or_else(|| TraceError::Field {
            line,
            field: COLUMNS[0],
            value: format!("'{}'", timestamp.chars().take(40).collect::<String>()),
            allowed: "a number of seconds",
        })?;
        Ok((line, seconds, tokens(line, COLUMNS[1], requested)?))
    })?;
    Ok((None, from_the_first(timed, COLUMNS[0], limits)?))
}
