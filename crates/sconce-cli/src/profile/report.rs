//! The figures of a profile as text and as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::bottleneck::{self, Signs};
use super::{StageProfile, time};
use crate::replay::{ReplayOutcome, STAGES, SortedTimes};
use crate::table;

impl StageProfile {
    /// Share of each stage in the time of the slowest hundredth of the requests.
    pub(super) fn shares_of_slowest(&self) -> [f64; STAGES.len()] {
        let all: f64 = self.figures.of_slowest.iter().sum();
        self.figures.of_slowest.map(|time| if all > 0.0 { time / all } else { 0.0 })
    }

    /// The bottleneck in words.
    pub(super) fn bottleneck(&self) -> String {
        bottleneck::in_words(&Signs {
            shares: std::array::from_fn(|stage| self.figures.share(stage)),
            of_slowest: self.shares_of_slowest(),
            utilisation: self.utilisation,
            batch_size: self.batch_size(),
            failed: self.figures.failed as f64 / self.replayed.len().max(1) as f64,
        })
    }

    pub(super) fn batch_size(&self) -> f64 {
        self.batched_items as f64 / self.batches.max(1) as f64
    }

    /// The run in one line.
    pub(super) fn heading(&self) -> String {
        let Self { model, precision, device, cpu_threads, .. } = self;
        format!("{model} in {precision} on {device}, {cpu_threads} CPU threads")
    }

    /// The answers in one line.
    pub(super) fn answers(&self) -> String {
        let Self { took, utilisation, .. } = self;
        format!(
            "{} of {} requests answered in {:.1} s: {:.1}/s; batches of {:.1}, device busy for {:.0} %",
            self.figures.latency.len(),
            self.replayed.len(),
            took.as_secs_f64(),
            self.throughput(),
            self.batch_size(),
            utilisation * 100.0
        )
    }

    /// Refused and failed requests by kind.
    pub(super) fn failures(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for request in &self.replayed {
            if let ReplayOutcome::Failed(kind) = request.outcome {
                *kinds.entry(kind.name()).or_default() += 1;
            }
        }
        kinds
    }
}

pub(super) fn write_text(out: &mut impl Write, profile: &StageProfile) -> io::Result<()> {
    writeln!(out, "{}\nload: {}\n{}", profile.heading(), profile.origin, profile.answers())?;
    for (kind, count) in profile.failures() {
        writeln!(out, "{count} requests failed: {kind}")?;
    }
    if profile.truncated() > 0 {
        writeln!(out, "{} requests were longer than the model reads, and were cut", profile.truncated())?;
    }
    let header = ["STAGE", "SHARE", "MEAN", "P50", "P99", "MEAN OF SLOWEST 1 %"].map(str::to_owned);
    let mut rows = vec![header];
    let figures = &profile.figures;
    let row = |name: &str, share: f64, times: &SortedTimes, slowest: f64| {
        let quantile = |part| time(times.quantile(part).as_secs_f64());
        let share = format!("{:.1} %", share * 100.0);
        [name.to_owned(), share, time(times.mean()), quantile(0.5), quantile(0.99), time(slowest)]
    };
    for (stage, name) in STAGES.iter().enumerate() {
        rows.push(row(name, figures.share(stage), &figures.stages[stage], figures.of_slowest[stage]));
    }
    rows.push(row("all", 1.0, &figures.latency, figures.of_slowest.iter().sum()));
    writeln!(out)?;
    table::write(out, &rows)?;
    writeln!(out, "\n{}", profile.bottleneck())?;
    if profile.stopped {
        writeln!(out, "Stopped early: these are the first {} requests of the load.", profile.replayed.len())?;
    }
    Ok(())
}

pub(super) fn object(profile: &StageProfile) -> Value {
    let figures = &profile.figures;
    let times = |times: &SortedTimes, share: f64, slowest: f64| {
        let at = |part| times.quantile(part).as_secs_f64();
        json!({
            "share": share, "mean_s": times.mean(), "p50_s": at(0.5), "p90_s": at(0.9), "p99_s": at(0.99), "max_s": at(1.0),
            "mean_of_slowest_s": slowest,
        })
    };
    let stages: serde_json::Map<String, Value> = STAGES
        .iter()
        .enumerate()
        .map(|(stage, name)| {
            let figures = times(&figures.stages[stage], figures.share(stage), figures.of_slowest[stage]);
            ((*name).to_owned(), figures)
        })
        .collect();
    json!({
        "model": profile.model,
        "precision": profile.precision,
        "device": profile.device,
        "cpu_threads": profile.cpu_threads,
        "load": profile.origin,
        "requests": profile.replayed.len(),
        "answered": figures.latency.len(),
        "failed": profile.failures(),
        "truncated": profile.truncated(),
        "seconds": profile.took.as_secs_f64(),
        "throughput": profile.throughput(),
        "utilisation": profile.utilisation,
        "batches": profile.batches,
        "mean_batch_size": profile.batch_size(),
        "latency": times(&figures.latency, 1.0, figures.of_slowest.iter().sum()),
        "stages": stages,
        "bottleneck": profile.bottleneck(),
        "stopped": profile.stopped,
    })
}
