//! The figures of a Sconce runtime ([`RuntimeMetrics`]) as text for Prometheus and `OpenMetrics`.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
//! let runtime = sconce::Runtime::builder().model(zoo.join("tiny-bert-sentiment")).build()?;
//! runtime.model("tiny-bert-sentiment")?.infer("What a wonderful day!").await?;
//!
//! let text = sconce_metrics::prometheus(runtime.metrics());
//! assert!(text.contains("sconce_request_duration_seconds_count{model=\"tiny-bert-sentiment\",version=\"1\",stage=\"run\"} 1"));
//! # Ok(())
//! # }
//! ```
//!
//! `sconce-http` serves both. A server of your own answers `GET /metrics` with [`prometheus`] and [`PROMETHEUS_TYPE`], or, where the request accepts it, with
//! [`open_metrics`] and [`OPEN_METRICS_TYPE`]. The text is made of one snapshot at each call: nothing is kept.
//!
//! # Where to add things
//! A figure begins in [`sconce::RuntimeMetrics`]; its name, unit and labels are said in `families.rs`.

mod exemplars;
mod families;

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;
use sconce::RuntimeMetrics;

use exemplars::Exemplars;
use families::Families;

/// The media type of [`prometheus`].
pub const PROMETHEUS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The media type of [`open_metrics`].
pub const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The figures in Prometheus' text format.
#[must_use]
pub fn prometheus(metrics: RuntimeMetrics) -> String {
    let mut text = String::new();
    let written = prometheus_text::encode(&mut text, &registry(metrics));
    debug_assert!(written.is_ok(), "a string takes everything");
    text
}

/// The figures in `OpenMetrics`' text format, with the last traced request of each model as the exemplar of its bucket.
#[must_use]
pub fn open_metrics(metrics: RuntimeMetrics) -> String {
    let exemplars = Exemplars::of(&metrics);
    let mut text = String::new();
    let written = text::encode(&mut text, &registry(metrics));
    debug_assert!(written.is_ok(), "a string takes everything");
    exemplars.added_to(text)
}

fn registry(metrics: RuntimeMetrics) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(metrics)));
    registry
}
