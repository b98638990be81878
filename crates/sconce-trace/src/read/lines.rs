//! Formats of JSON lines: Sconce's own and Mooncake's.

use std::io::BufRead;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::line::{HeaderLine, RequestLine, VERSION};
use crate::{RecordedRequest, RequestTrace, TraceError, TraceLimits};

use super::{Collected, bounded, from_the_first};

/// The origin that a trace names, and its requests.
pub(super) type Parsed = (Option<String>, Vec<RecordedRequest>);

/// Reads Sconce's own format: a header, then the requests.
pub(super) fn sconce(mut source: impl BufRead, limits: &TraceLimits) -> Result<Parsed, TraceError> {
    let mut bytes = Vec::new();
    bounded::line(&mut source, &mut bytes, 1, limits)?;
    let HeaderLine { sconce_trace: version, origin } = parse(1, &bytes)?;
    if version != VERSION {
        return Err(TraceError::UnknownVersion { version });
    }
    let mut collected = Collected::new(limits);
    each(source, 2, limits, |line, parsed: RequestLine| collected.push(line, checked(line, parsed, limits)?))?;
    Ok((Some(origin.into_owned()), collected.requests))
}

fn checked(line: u64, parsed: RequestLine, limits: &TraceLimits) -> Result<RecordedRequest, TraceError> {
    let wrong = |field, value: String, allowed| Err(TraceError::Field { line, field, value, allowed });
    let RequestLine { at_us, items, deadline_us, inputs, .. } = &parsed;
    if !(1..=limits.max_items).contains(items) {
        let allowed = "at least 1, and no more than a request has";
        return wrong("items", items.to_string(), allowed);
    }
    if !inputs.is_empty() && inputs.len() != *items as usize {
        return wrong("inputs", format!("a list of {}", inputs.len()), "absent, or have one input for each of 'items'");
    }
    let max = u64::try_from(RequestTrace::MAX_LENGTH.as_micros()).unwrap_or(u64::MAX);
    for (field, us) in [("at_us", Some(*at_us)), ("deadline_us", *deadline_us)] {
        if let Some(us) = us.filter(|us| *us > max) {
            return wrong(field, us.to_string(), "a number of microseconds within a year");
        }
    }
    Ok(parsed.into())
}

/// Reads Mooncake's format, whose first line is a request.
pub(super) fn mooncake(source: impl BufRead, limits: &TraceLimits) -> Result<Parsed, TraceError> {
    /// Times are in milliseconds.
    #[derive(Deserialize)]
    struct MooncakeLine {
        timestamp: f64,
        input_length: u32,
    }
    let mut timed = Vec::new();
    each(source, 1, limits, |line, MooncakeLine { timestamp, input_length }| {
        if timed.len() == limits.max_requests {
            return Err(TraceError::TooManyRequests { max: limits.max_requests });
        }
        if !timestamp.is_finite() {
            let (field, allowed) = ("timestamp", "a number of milliseconds");
            return Err(TraceError::Field { line, field, value: timestamp.to_string(), allowed });
        }
        timed.push((line, timestamp / 1e3, input_length));
        Ok(())
    })?;
    Ok((None, from_the_first(timed, "timestamp", limits)?))
}

/// Parses each line that is not blank, from `first` on, and hands it over with its number.
fn each<T: DeserializeOwned>(
    mut source: impl BufRead,
    first: u64,
    limits: &TraceLimits,
    mut take: impl FnMut(u64, T) -> Result<(), TraceError>,
) -> Result<(), TraceError> {
    let mut bytes = Vec::new();
    let mut number = first;
    while bounded::line(&mut source, &mut bytes, number, limits)? {
        if !bytes.trim_ascii().is_empty() {
            take(number, parse(number, &bytes)?)?;
        }
        number += 1;
    }
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(line: u64, bytes: &'a [u8]) -> Result<T, TraceError> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|error| {
        let message = match error.classify() {
            // A crash or a full disk cuts the last line off.
            serde_json::error::Category::Eof => format!("it ends too early ({error}); remove it if it is the last"),
            _ => format!("{error}; mend or remove it"),
        };
        TraceError::NotARequest { line, message }
    })
}
