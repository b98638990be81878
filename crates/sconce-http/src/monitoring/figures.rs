//! The figures of a server as JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use sconce::{Model, Runtime, RuntimeMetrics};
use serde::Serialize;

/// The body of `GET /metrics.json`. Times are in seconds.
#[derive(Serialize)]
pub(super) struct Figures {
    version: &'static str,
    /// Seconds since 1970.
    time: f64,
    cpu_threads: usize,
    /// The figures since the start.
    total: RuntimeMetrics,
    /// The figures of about the last minute: `uptime` is the time that they cover.
    recent: RuntimeMetrics,
    /// The models, as they were loaded.
    models: Vec<ServedModel>,
}

/// The properties of a model that do not change while it is served.
#[derive(Serialize)]
struct ServedModel {
    name: String,
    version: String,
    task: String,
    precision: &'static str,
    parameters: usize,
    load_time: f64,
    max_queue_size: usize,
    placement: Vec<PlacedDevice>,
}

/// The decision on a device of a model, and its reason.
#[derive(Serialize)]
struct PlacedDevice {
    device: String,
    description: String,
    verdict: String,
    reason: String,
    precision: Option<&'static str>,
    weight_bytes: Option<u64>,
}

impl Figures {
    pub(super) fn new(runtime: &Runtime, total: RuntimeMetrics, recent: RuntimeMetrics) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            cpu_threads: runtime.cpu_threads().get(),
            total,
            recent,
            models: runtime.all_versions().iter().map(ServedModel::of).collect(),
        }
    }
}

impl ServedModel {
    fn of(model: &Model) -> Self {
        let signature = model.signature();
        let considered = model.decisions().flat_map(|decision| &decision.considered);
        let placement = considered.map(|considered| PlacedDevice {
            device: considered.capability.device.to_string(),
            description: considered.capability.description.clone(),
            verdict: considered.verdict.to_string(),
            reason: considered.why.to_string(),
            precision: considered.demand.map(|(precision, _)| precision.name()),
            weight_bytes: considered.demand.map(|(_, demand)| demand.weight_bytes),
        });
        Self {
            name: model.name().to_owned(),
            version: model.version().to_string(),
            task: signature.task.to_string(),
            precision: signature.precision.name(),
            parameters: signature.parameters,
            load_time: model.load_time().as_secs_f64(),
            max_queue_size: model.batcher_config().max_queue_size,
            placement: placement.collect(),
        }
    }
}
