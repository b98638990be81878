//! Reading of traces, whatever their format.

mod azure;
mod bounded;
mod burst_gpt;
mod lines;
mod table;

use std::io::{BufReader, Read};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::{RecordedRequest, RequestTrace, TraceError};

use bounded::{Bounded, line};

/// Bounds of a trace that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceLimits {
    /// Bytes of a line. Too small: a request with long contents is refused. Too large: a file that is no trace takes as much
    /// memory before it is refused.
    pub max_line_bytes: usize,
    /// Requests. Too small: long traces are refused. Too large: a trace takes more memory than there is, at about 100 bytes a
    /// request without contents.
    pub max_requests: usize,
    /// Bytes of the file. Too small and too large: as `max_requests`, for traces with contents.
    pub max_bytes: u64,
    /// Items of a request. Too small: requests of long lists are refused. Too large: one line takes as much memory as it says.
    pub max_items: u32,
}

/// 16 MiB a line, 4 million requests, 2 GiB, 65,536 items a request.
impl Default for TraceLimits {
    fn default() -> Self {
        Self { max_line_bytes: 16 << 20, max_requests: 4_000_000, max_bytes: 2 << 30, max_items: 65_536 }
    }
}

/// A format of traces. Of public ones the tokens of the input count as the weight; those of the output have no meaning for
/// models that generate none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceFormat {
    /// Sconce's own JSON lines.
    Sconce,
    /// Azure's LLM inference traces: a table of `TIMESTAMP,ContextTokens,GeneratedTokens`.
    Azure,
    /// The traces of `BurstGPT`: a table of `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`.
    BurstGpt,
    /// The traces of Mooncake: JSON lines of `timestamp`, `input_length`, `output_length` and `hash_ids`.
    Mooncake,
}

impl TraceFormat {
    /// The format of a file with this first line.
    #[must_use]
    pub fn of(first_line: &str) -> Option<Self> {
        let first_line = first_line.trim_start_matches('\u{feff}').trim();
        if first_line.starts_with('{') {
            let object: Map<String, Value> = serde_json::from_str(first_line).ok()?;
            let has = |field| object.contains_key(field);
            return if has("sconce_trace") {
                Some(Self::Sconce)
            } else {
                (has("timestamp") && has("input_length")).then_some(Self::Mooncake)
            };
        }
        let columns: Vec<&str> = first_line.split(',').map(|column| column.trim().trim_matches('"')).collect();
        let all = |names: &[&str]| names.iter().all(|name| columns.contains(name));
        if all(&azure::COLUMNS) { Some(Self::Azure) } else { all(&burst_gpt::COLUMNS).then_some(Self::BurstGpt) }
    }

    /// The name of the format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sconce => "Sconce",
            Self::Azure => "Azure LLM inference",
            Self::BurstGpt => "BurstGPT",
            Self::Mooncake => "Mooncake",
        }
    }
}

impl RequestTrace {
    /// Reads a trace in any [`TraceFormat`], which its first line tells. Times of public formats count from their first request.
    ///
    /// # Errors
    /// [`TraceError`] names the line, the field and its value, or the limit.
    pub fn read(source: impl Read, limits: &TraceLimits) -> Result<Self, TraceError> {
        let mut source = BufReader::with_capacity(1 << 16, Bounded::new(source, limits));
        let mut first = Vec::new();
        if !line(&mut source, &mut first, 1, limits)? {
            return Err(TraceError::Empty);
        }
        let header = String::from_utf8_lossy(&first).into_owned();
        let format = TraceFormat::of(&header);
        let format =
            format.ok_or_else(|| TraceError::UnknownFormat { header: header.trim().chars().take(80).collect() })?;
        let behind_first = std::io::Cursor::new(first).chain(source);
        let (origin, requests) = match format {
            TraceFormat::Sconce => lines::sconce(behind_first, limits)?,
            TraceFormat::Mooncake => lines::mooncake(behind_first, limits)?,
            TraceFormat::Azure => azure::read(behind_first, limits)?,
            TraceFormat::BurstGpt => burst_gpt::read(behind_first, limits)?,
        };
        if requests.is_empty() {
            return Err(TraceError::NoRequest);
        }
        Ok(Self::new(origin.unwrap_or_else(|| format!("a trace in the format of {}", format.name())), requests))
    }
}

/// The requests so far, bounded in number.
struct Collected<'a> {
    requests: Vec<RecordedRequest>,
    limits: &'a TraceLimits,
}

impl<'a> Collected<'a> {
    fn new(limits: &'a TraceLimits) -> Self {
        Self { requests: Vec::new(), limits }
    }

    fn push(&mut self, line: u64, request: RecordedRequest) -> Result<(), TraceError> {
        if request.at > RequestTrace::MAX_LENGTH {
            let (field, value) = ("at_us", request.at.as_micros().to_string());
            return Err(TraceError::Field { line, field, value, allowed: "within a year of the first" });
        }
        if self.requests.len() == self.limits.max_requests {
            return Err(TraceError::TooManyRequests { max: self.limits.max_requests });
        }
        self.requests.push(request);
        Ok(())
    }
}

/// Makes the times of requests count from the first of them.
fn from_the_first(
    mut timed: Vec<(u64, f64, u32)>,
    field: &'static str,
    limits: &TraceLimits,
) -> Result<Vec<RecordedRequest>, TraceError> {
    timed.sort_by(|(_, one, _), (_, other, _)| one.total_cmp(other));
    let start = timed.first().map_or(0.0, |(_, at, _)| *at);
    let mut collected = Collected::new(limits);
    for (line, at, weight) in timed {
        let since = Duration::try_from_secs_f64(at - start).ok().filter(|since| *since <= RequestTrace::MAX_LENGTH);
        let allowed = "a time within a year of the first";
        let at = since.ok_or_else(|| TraceError::Field { line, field, value: at.to_string(), allowed })?;
        collected.push(line, RecordedRequest::one(at, weight))?;
    }
    Ok(collected.requests)
}
