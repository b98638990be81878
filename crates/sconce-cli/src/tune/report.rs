//! The advice: its figures, predicted beside measured, and how sure it is.

use std::io::{self, Write};
use std::time::Duration;

use sconce_trace::RequestTrace;
use serde_json::{Value, json};

use super::caches::CacheDemand;
use super::calibrate::{Bench, Calibrated};
use super::check::{Checked, MeasuredRuns};
use super::search::{FoundSettings, Predicted};
use super::{Setting, TuneArgs};
use crate::explain::{bytes, seconds};
use crate::table;

/// Hours of a month.
const HOURS: f64 = 730.0;

/// The largest difference between predicted and measured figures, and between repeats, with which a prediction is said to hold.
const SURE: f64 = 0.2;

/// An advice with all its figures.
pub(crate) struct Advice {
    model: String,
    load: String,
    rate: f64,
    slo: Duration,
    price_per_hour: Option<f64>,
    calibrated: Vec<Calibrated>,
    found: FoundSettings,
    checked: Checked,
    caches: Option<CacheDemand>,
    /// Set if the settings that looked best measured slower than the default, which is advised instead.
    measured_slower: bool,
}

/// Everything that an advice rests on.
pub(crate) struct Findings {
    pub(crate) calibrated: Vec<Calibrated>,
    pub(crate) found: FoundSettings,
    pub(crate) checked: Checked,
    pub(crate) caches: Option<CacheDemand>,
}

impl Advice {
    pub(crate) fn new(bench: &Bench<'_>, trace: &RequestTrace, args: &TuneArgs, findings: Findings) -> Self {
        let Findings { calibrated, found, checked, caches } = findings;
        let measured_slower = checked.default.as_ref().is_some_and(|default| checked.advised.is_slower_than(default));
        Self {
            model: bench.name.to_owned(),
            load: trace.origin().to_owned(),
            rate: trace.rate(),
            slo: args.slo_p99,
            price_per_hour: args.price_per_hour,
            calibrated,
            found,
            checked,
            caches,
            measured_slower,
        }
    }

    /// The settings that are advised, as predicted.
    pub(crate) fn chosen(&self) -> &Predicted {
        if self.measured_slower { &self.found.default } else { &self.found.advised }
    }

    fn measured(&self) -> &MeasuredRuns {
        let default = self.checked.default.as_ref().filter(|_| self.measured_slower);
        default.unwrap_or(&self.checked.advised)
    }

    /// Replicas that are advised.
    fn replicas(&self) -> usize {
        let of_default = self.found.default_replicas.filter(|_| self.measured_slower);
        of_default.unwrap_or(self.found.replicas)
    }

    /// Returns true if the advice met the objective when it ran.
    pub(crate) fn meets(&self) -> bool {
        self.measured().p99().is_some_and(|p99| p99 <= self.slo)
    }

    fn cost_per_month(&self) -> Option<f64> {
        Some(self.price_per_hour? * HOURS * self.replicas() as f64)
    }

    /// Differences of the predicted p99 and throughput from the measured ones, as shares of these.
    fn errors(&self) -> (Option<f64>, f64) {
        let (predicted, measured) = (self.chosen(), self.measured());
        let p99 = predicted.p99.zip(measured.p99());
        let p99 = p99.map(|(predicted, measured)| predicted.as_secs_f64() / measured.as_secs_f64().max(1e-9) - 1.0);
        (p99, predicted.throughput / measured.throughput().max(1e-9) - 1.0)
    }

    /// Bytes of the weights and of the largest batch's intermediate results.
    fn model_bytes(&self) -> (u64, u64) {
        let Predicted { calibrated, setting, .. } = self.chosen();
        let Calibrated { weight_bytes, bytes_per_weight, .. } = self.calibrated[*calibrated];
        (weight_bytes, bytes_per_weight.saturating_mul(setting.config.max_batch_weight as u64))
    }

    /// The flags and the lines of `sconce.toml` that have the settings.
    fn settings(&self) -> Vec<[String; 3]> {
        let (Setting { threads, precision, config }, default) = (&self.chosen().setting, &self.found.default.setting);
        let row = |name: &str, default: String, advised: String| [name.to_owned(), default, advised];
        let us = |config: &sconce::BatcherConfig| config.max_queue_delay.as_micros().to_string();
        vec![
            row("SETTING", "DEFAULT".to_owned(), "ADVISED".to_owned()),
            row("--cpu-threads", default.threads.to_string(), threads.to_string()),
            row("precision", default.precision.to_string(), precision.to_string()),
            row("max_batch_size", default.config.max_batch_size.to_string(), config.max_batch_size.to_string()),
            row("max_batch_weight", default.config.max_batch_weight.to_string(), config.max_batch_weight.to_string()),
            row("max_queue_delay_us", us(&default.config), us(config)),
        ]
    }

    /// How sure the advice is.
    fn sureness(&self) -> String {
        let percent = |share: f64| format!("{:.0} %", share.abs() * 100.0);
        let runs = self.measured().runs.len();
        let Some(spread) = self.measured().spread() else {
            return "When it ran, more than 1 % of the requests were not answered: do not rely on this advice. Give a longer \
                    objective, or more replicas (--max-replicas)."
                .to_owned();
        };
        let (Some(p99), throughput) = self.errors() else {
            return "The simulation expected more than 1 % of the requests to fail, and the run did not show that: believe the \
                    measured figures."
                .to_owned();
        };
        let held = p99.abs() <= SURE && throughput.abs() <= SURE;
        let quiet = runs > 1 && spread <= SURE;
        let off =
            format!("p99 was predicted {} {} than measured", percent(p99), if p99 > 0.0 { "higher" } else { "lower" });
        let repeats = match runs {
            1 => "one run does not tell how much is chance (--rounds)".to_owned(),
            runs if quiet => format!("{runs} runs differed by {}", percent(spread)),
            runs => format!(
                "{runs} runs differed by {}: the machine does other work, or the load is short",
                percent(spread)
            ),
        };
        match (held, quiet) {
            (true, true) => format!("Sure: {off}, and {repeats}."),
            (true, false) => {
                format!("Fairly sure: {off}; {repeats}. A longer load on a quiet machine tells more (--seconds).")
            }
            (false, false) => format!("Not sure: {off}; {repeats}. Run it again on a quiet machine."),
            (false, true) => format!("Not sure: {off}, although {repeats}. Believe the measured figures."),
        }
    }

    /// The verdict on the objective.
    fn verdict(&self) -> String {
        let (slo, replicas) = (seconds(self.slo.as_secs_f64()), self.replicas());
        let of = format!(
            "{:.1} requests/s with {replicas} {}",
            self.rate,
            if replicas == 1 { "replica" } else { "replicas" }
        );
        let default = match self.found.default_replicas {
            Some(default) if default != replicas => format!(" The default settings would need {default}."),
            None => " The default settings would not meet it with any number.".to_owned(),
            Some(_) => String::new(),
        };
        match (self.meets(), self.chosen().meets(self.slo)) {
            (true, true) => format!("The objective of {slo} is met at {of}.{default}"),
            (true, false) => {
                format!("The objective of {slo} was met at {of} when it ran, but the simulation does not expect that.")
            }
            (false, true) => {
                format!("The objective of {slo} was missed at {of} when it ran: take {} replicas.", replicas + 1)
            }
            (false, false) => format!(
                "No number of replicas up to {replicas} meets the objective of {slo}: a request alone takes {}. Give a longer one, or a \
                 faster machine.",
                seconds(self.calibrated[self.chosen().calibrated].samples.line().at(self.heaviest()))
            ),
        }
    }

    fn heaviest(&self) -> usize {
        self.calibrated.first().map_or(1, |calibrated| calibrated.heaviest)
    }

    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}: {:.1} requests/s within {}", self.model, self.rate, seconds(self.slo.as_secs_f64()))?;
        writeln!(out, "load: {}\n", self.load)?;
        let mut rows = vec![
            ["THREADS", "PRECISION", "a", "c", "PREPARE", "FINISH", "BATCHES", "CAPACITY", "TAIL"].map(str::to_owned),
        ];
        rows.extend(self.calibrated.iter().map(|calibrated| {
            let Calibrated { setting, samples, correction, capacity, .. } = calibrated;
            let line = samples.line();
            [
                setting.threads.to_string(),
                setting.precision.to_string(),
                seconds(line.fixed),
                seconds(line.per_weight),
                seconds(samples.prepare),
                seconds(samples.finish),
                samples.batches().to_string(),
                format!("{capacity:.1}/s"),
                format!("×{:.2}", correction.tail),
            ]
        }));
        table::write(out, &rows)?;
        writeln!(
            out,
            "\nA batch takes a + c·weight. TAIL is how much longer the slowest requests took than in a simulation of the same load;\n\
             predictions are corrected by it. {} settings were simulated for each number of replicas.\n",
            self.found.simulated
        )?;
        table::write(out, &self.settings())?;
        writeln!(out)?;
        table::write(out, &self.comparison())?;
        writeln!(out, "\n{}", self.verdict())?;
        if self.measured_slower {
            writeln!(out, "Other settings looked better, but measured slower than the default: it stays.")?;
        }
        writeln!(out, "{}", self.sureness())?;
        let (weights, batch) = self.model_bytes();
        let resident = self.measured().resident_bytes.map_or(String::new(), |bytes_of| {
            format!("; this process had {} resident, with {} of the model", bytes(bytes_of), self.copies())
        });
        writeln!(out, "Memory of a replica: weights {}, largest batch {}{resident}.", bytes(weights), bytes(batch))?;
        writeln!(out, "{}", CacheDemand::in_words(self.caches))?;
        if let Some(cost) = self.cost_per_month() {
            writeln!(out, "Cost: {cost:.2} a month ({} × {HOURS} hours).", self.replicas())?;
        }
        Ok(())
    }

    fn copies(&self) -> &'static str {
        if self.checked.default.is_some() { "two copies" } else { "one copy" }
    }

    /// Predicted and measured figures side by side.
    fn comparison(&self) -> Vec<[String; 6]> {
        let header = ["", "P50", "P99", "REQUESTS/S EACH", "BUSY", "BATCH"].map(str::to_owned);
        let p99 = |p99: Option<Duration>| p99.map_or("over 1 % fail".to_owned(), |p99| seconds(p99.as_secs_f64()));
        let predicted = |name: &str, predicted: &Predicted| {
            let Predicted { p50, throughput, utilisation, batch_size, .. } = predicted;
            let busy = format!("{:.0} %", utilisation * 100.0);
            let (p50, batch) = (seconds(p50.as_secs_f64()), format!("{batch_size:.1}"));
            [format!("{name}, predicted"), p50, p99(predicted.p99), format!("{throughput:.1}"), busy, batch]
        };
        let measured = |name: &str, measured: &MeasuredRuns| {
            let p50 = seconds(measured.p50().as_secs_f64());
            let throughput = format!("{:.1}", measured.throughput());
            [format!("{name}, measured"), p50, p99(measured.p99()), throughput, String::new(), String::new()]
        };
        let mut rows =
            vec![header, predicted("advice", &self.found.advised), measured("advice", &self.checked.advised)];
        if let Some(default) = &self.checked.default {
            rows.extend([predicted("default", &self.found.default), measured("default", default)]);
        }
        rows
    }

    pub(crate) fn object(&self) -> Value {
        let p99 = |p99: Option<Duration>| p99.map(|p99| p99.as_secs_f64());
        let setting = |setting: &Setting| {
            json!({
                "cpu_threads": setting.threads,
                "precision": setting.precision,
                "max_batch_size": setting.config.max_batch_size,
                "max_batch_weight": setting.config.max_batch_weight,
                "max_queue_delay_us": setting.config.max_queue_delay.as_micros(),
            })
        };
        let predicted = |predicted: &Predicted| {
            json!({
                "setting": setting(&predicted.setting),
                "p50_s": predicted.p50.as_secs_f64(),
                "p99_s": p99(predicted.p99),
                "p99_range_s": predicted.p99_range.map(|(low, high)| [low.as_secs_f64(), high.as_secs_f64()]),
                "throughput": predicted.throughput,
                "utilisation": predicted.utilisation,
                "mean_batch_size": predicted.batch_size,
            })
        };
        let measured = |measured: &MeasuredRuns| {
            json!({
                "p50_s": measured.p50().as_secs_f64(),
                "p99_s": p99(measured.p99()),
                "p99_of_runs_s": measured.runs.iter().map(|run| p99(run.p99)).collect::<Vec<_>>(),
                "throughput": measured.throughput(),
                "spread": measured.spread(),
            })
        };
        let calibrated = self.calibrated.iter().map(|calibrated| {
            let line = calibrated.samples.line();
            json!({
                "cpu_threads": calibrated.setting.threads,
                "precision": calibrated.setting.precision,
                "fixed_s": line.fixed,
                "per_weight_s": line.per_weight,
                "prepare_s": calibrated.samples.prepare,
                "finish_s": calibrated.samples.finish,
                "batches": calibrated.samples.batches(),
                "capacity": calibrated.capacity,
                "median_correction": calibrated.correction.median,
                "tail_correction": calibrated.correction.tail,
            })
        });
        let ((p99_error, throughput_error), (weights, batch)) = (self.errors(), self.model_bytes());
        json!({
            "model": self.model,
            "load": self.load,
            "rate": self.rate,
            "slo_p99_s": self.slo.as_secs_f64(),
            "measured": calibrated.collect::<Vec<_>>(),
            "advice": setting(&self.chosen().setting),
            "advice_is_default": self.chosen().setting == self.found.default.setting,
            "replicas": self.replicas(),
            "default_replicas": self.found.default_replicas,
            "best": {"predicted": predicted(&self.found.advised), "measured": measured(&self.checked.advised)},
            "default": self.checked.default.as_ref().map(|default| {
                json!({"predicted": predicted(&self.found.default), "measured": measured(default)})
            }),
            "measured_slower": self.measured_slower,
            "meets": self.meets(),
            "p99_error": p99_error,
            "throughput_error": throughput_error,
            "weight_bytes": weights,
            "largest_batch_bytes": batch,
            "resident_bytes": self.measured().resident_bytes,
            "cache": self.caches.map(|caches| json!({
                "inputs": caches.inputs, "distinct": caches.distinct, "bytes": caches.bytes(), "hits": caches.hits(),
            })),
            "cost_per_month": self.cost_per_month(),
            "verdict": self.verdict(),
            "sureness": self.sureness(),
        })
    }
}
