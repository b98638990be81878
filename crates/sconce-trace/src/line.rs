//! The lines of Sconce's own format: a header, and one line for each request.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{RecordedInput, RecordedPriority, RecordedRequest};

/// The version of the format.
pub(crate) const VERSION: u64 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HeaderLine<'a> {
    pub(crate) sconce_trace: u64,
    #[serde(default)]
    pub(crate) origin: Cow<'a, str>,
}

/// The line of a request. Fields that have their default are left out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestLine {
    pub(crate) at_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) items: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u32>,
    #[serde(default, skip_serializing_if = "is_normal")]
    pub(crate) priority: RecordedPriority,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) inputs: Vec<RecordedInput>,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_one(items: &u32) -> bool {
    *items == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_normal(priority: &RecordedPriority) -> bool {
    *priority == RecordedPriority::Normal
}

impl From<&RecordedRequest> for RequestLine {
    fn from(request: &RecordedRequest) -> Self {
        let RecordedRequest { at, model, items, weight, priority, deadline, inputs } = request;
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            at_us: us(*at),
            model: model.as_deref().map(str::to_owned),
            items: *items,
            weight: *weight,
            priority: *priority,
            deadline_us: deadline.map(us),
            inputs: inputs.clone(),
        }
    }
}

impl From<RequestLine> for RecordedRequest {
    fn from(line: RequestLine) -> Self {
        let RequestLine { at_us, model, items, weight, priority, deadline_us, inputs } = line;
        Self {
            at: Duration::from_micros(at_us),
            model: model.map(Into::into),
            items,
            weight,
            priority,
            deadline: deadline_us.map(Duration::from_micros),
            inputs,
        }
    }
}
