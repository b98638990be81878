//! Exemplars: the trace of a request beside the bucket that counts it. `prometheus-client` writes only those of its own
//! histograms, so they are added to its text.

use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use sconce::{ModelMetrics, RuntimeMetrics, TracedRequest};

use crate::families::BOUNDS_US;

/// Lines of a histogram's buckets, that of +Inf included.
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// The last traced request of each model, in the order of the models.
pub(crate) struct Exemplars(Vec<Option<TracedRequest>>);

impl Exemplars {
    pub(crate) fn of(metrics: &RuntimeMetrics) -> Self {
        Self(metrics.models.iter().map(|ModelMetrics { exemplar, .. }| *exemplar).collect())
    }

    /// Adds the exemplars to the buckets of whole requests in an `OpenMetrics` text, which has them model by model, from
    /// the least bound on.
    pub(crate) fn added_to(&self, text: String) -> String {
        if self.0.iter().all(Option::is_none) {
            return text;
        }
        let (mut added, mut seen) = (String::with_capacity(text.len() + 128 * self.0.len()), 0);
        for line in text.lines() {
            added.push_str(line);
            if line.starts_with("sconce_request_duration_seconds_bucket{") && line.contains(",stage=\"request\"") {
                let traced = self.0.get(seen / BUCKETS).copied().flatten();
                if let Some(traced) = traced.filter(|traced| bucket(traced) == seen % BUCKETS) {
                    let TracedRequest { trace_id, took, ended, .. } = traced;
                    let time = ended.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                    let written = write!(added, " # {{trace_id=\"{trace_id:032x}\"}} {} {time:.3}", took.as_secs_f64());
                    debug_assert!(written.is_ok(), "a string takes everything");
                }
                seen += 1;
            }
            added.push('\n');
        }
        added
    }
}

/// The place of the bucket that has a request's time.
fn bucket(traced: &TracedRequest) -> usize {
    BOUNDS_US.partition_point(|bound| u128::from(*bound) < traced.took.as_micros())
}
