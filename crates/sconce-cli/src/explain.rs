//! `sconce explain`: on which devices a model runs, and why, in figures.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use sconce::placement::{Considered, Decision};
use sconce::{CostLine, CostModel, Demand, DeviceName, Precision, Runtime};
use serde_json::{Value, json};

use crate::args::ExplainArgs;
use crate::error::Error;
use crate::say::say;
use crate::{progress, table};

/// Time for which each device is measured.
const MEASURED_FOR: Duration = Duration::from_secs(4);

/// The decision about one device, and its measured cost.
struct DeviceFigures<'a> {
    considered: &'a Considered,
    /// Cost of a batch; `None` if the device was not measured, or ran too few batches to say.
    measured: Option<CostLine>,
}

pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode, Error> {
    let (name, source) = args.how.find(&args.model)?;
    let builder = args.how.compute.apply(Runtime::builder().batching(args.batching.config()?)).model(source);
    let decision = builder.decide()?.remove(&name).expect("it was asked for");
    let mut measured = Vec::new();
    if args.measure {
        let spinner = progress::spinner(format!("measuring {name}"));
        let result = builder.measure(MEASURED_FOR);
        spinner.finish_and_clear();
        measured = result?.remove(&name).expect("it was asked for");
    }
    let figures: Vec<DeviceFigures<'_>> =
        decision.considered.iter().map(|considered| DeviceFigures::new(considered, &measured)).collect();
    if args.measure && figures.iter().all(|one| one.measured.is_none()) {
        say!("warning: too few batches ran in {MEASURED_FOR:?} to say what they take");
    }
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", object(&name, &decision, &figures, &args.weights))?;
    } else {
        write_text(&mut out, &name, &decision, &figures, &args.weights)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

impl<'a> DeviceFigures<'a> {
    fn new(considered: &'a Considered, measured: &[(DeviceName, CostModel)]) -> Self {
        let measured = measured.iter().find(|(device, _)| *device == considered.capability.device);
        Self { considered, measured: measured.and_then(|(_, cost)| cost.line()) }
    }

    fn device(&self) -> DeviceName {
        self.considered.capability.device
    }
}

fn write_text(
    out: &mut impl Write,
    name: &str,
    decision: &Decision,
    figures: &[DeviceFigures<'_>],
    weights: &[NonZeroUsize],
) -> io::Result<()> {
    if let Some((precision, demand)) = asked(decision) {
        let Demand { weight_bytes, flops_per_weight, bytes_per_weight, unit } = demand;
        writeln!(
            out,
            "{name} in {precision}: weights {}, {} per {unit}",
            bytes(weight_bytes),
            flops(flops_per_weight)
        )?;
        let max = decision.max_weight;
        let batch = bytes(bytes_per_weight * max as u64);
        writeln!(out, "heaviest batch: {max} {unit}s, {batch} of intermediate results")?;
    }
    writeln!(out, "placement: {}\n", decision.placement)?;
    let mut rows = vec![["DEVICE", "WHAT", "DECISION", "WHY"].map(str::to_owned)];
    rows.extend(figures.iter().map(|one| {
        let Considered { capability, verdict, why, .. } = one.considered;
        [one.device().to_string(), capability.description.clone(), verdict.to_string(), why.to_string()]
    }));
    table::write(out, &rows)?;
    writeln!(
        out,
        "\nWhat a batch takes, a + c·weight, estimated from the size of the model and the figures of the device:\n"
    )?;
    let estimated: Vec<_> = figures.iter().filter_map(|one| Some((one, one.considered.estimate?))).collect();
    write_lines(out, decision, &estimated, weights)?;
    let measured: Vec<_> = figures.iter().filter_map(|one| Some((one, one.measured?))).collect();
    if !measured.is_empty() {
        writeln!(out, "\nMeasured:\n")?;
        write_lines(out, decision, &measured, weights)?;
    }
    Ok(())
}

/// Precision and demand of the model on the first device that it runs on.
fn asked(decision: &Decision) -> Option<(Precision, Demand)> {
    decision.devices().find_map(|considered| considered.demand)
}

fn write_lines(
    out: &mut impl Write,
    decision: &Decision,
    lines: &[(&DeviceFigures<'_>, CostLine)],
    weights: &[NonZeroUsize],
) -> io::Result<()> {
    let mut header = vec!["DEVICE".to_owned(), "a".to_owned(), "c".to_owned()];
    header.extend(weights.iter().map(|weight| format!("weight {weight}")));
    let mut rows = vec![header];
    for (one, line) in lines {
        let mut row = vec![one.device().to_string(), seconds(line.fixed), seconds(line.per_weight)];
        row.extend(weights.iter().map(|weight| seconds(line.at(weight.get()))));
        rows.push(row);
    }
    table::write_rows(out, &rows)?;
    for (from, to, weight) in crossovers(decision, lines) {
        writeln!(out, "from weight {weight} on {to} completes a batch before {from}")?;
    }
    Ok(())
}

/// The weights from which one device is faster than another: `(slower, faster, weight)`.
fn crossovers(decision: &Decision, lines: &[(&DeviceFigures<'_>, CostLine)]) -> Vec<(DeviceName, DeviceName, usize)> {
    let mut found = Vec::new();
    for (from, light) in lines {
        for (to, heavy) in lines {
            if let Some(weight) = decision.crossover(*light, *heavy) {
                found.push((from.device(), to.device(), weight));
            }
        }
    }
    found
}

fn object(name: &str, decision: &Decision, figures: &[DeviceFigures<'_>], weights: &[NonZeroUsize]) -> Value {
    let line = |line: CostLine| {
        let times = weights.iter().map(|weight| json!({"weight": weight, "seconds": line.at(weight.get())}));
        json!({"fixed_seconds": line.fixed, "seconds_per_weight": line.per_weight, "batches": times.collect::<Vec<_>>()})
    };
    let crossovers = |lines: Vec<(&DeviceFigures<'_>, CostLine)>| -> Vec<Value> {
        let found = crossovers(decision, &lines).into_iter();
        found
            .map(|(from, to, weight)| json!({"from": from.to_string(), "to": to.to_string(), "weight": weight}))
            .collect()
    };
    let devices = figures.iter().map(|one| {
        let Considered { capability, demand, estimate, verdict, why, .. } = one.considered;
        json!({
            "device": one.device().to_string(),
            "description": capability.description,
            "flops_per_second": capability.flops,
            "bytes_per_second": capability.bandwidth,
            "memory_bytes": capability.memory,
            "precision": demand.map(|(precision, _)| precision),
            "decision": verdict.to_string(),
            "why": why.to_string(),
            "estimate": estimate.map(line),
            "measured": one.measured.map(line),
        })
    });
    let devices: Vec<Value> = devices.collect();
    let demand = asked(decision).map(|(precision, demand)| {
        json!({
            "precision": precision,
            "weight_bytes": demand.weight_bytes,
            "flops_per_weight": demand.flops_per_weight,
            "bytes_per_weight": demand.bytes_per_weight,
            "unit": demand.unit,
        })
    });
    let with = |line: fn(&DeviceFigures<'_>) -> Option<CostLine>| {
        figures.iter().filter_map(|one| Some((one, line(one)?))).collect()
    };
    json!({
        "model": name,
        "placement": decision.placement.to_string(),
        "max_weight": decision.max_weight,
        "demand": demand,
        "devices": devices,
        "estimated_crossovers": crossovers(with(|one| one.considered.estimate)),
        "measured_crossovers": crossovers(with(|one| one.measured)),
    })
}

/// Formats seconds with three digits in the unit that fits: `1.53 ms`.
pub(crate) fn seconds(seconds: f64) -> String {
    scaled(seconds, &[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"), (1e-12, "ps")])
}

pub(crate) fn bytes(bytes: u64) -> String {
    let [kibi, mebi, gibi] = [10, 20, 30].map(|power| f64::from(1 << power));
    scaled(bytes as f64, &[(gibi, "GiB"), (mebi, "MiB"), (kibi, "KiB"), (1.0, "B")])
}

fn flops(flops: f64) -> String {
    scaled(flops, &[(1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"), (1.0, "FLOP")])
}

/// Formats `value` in the largest unit that is not larger than it, else in the smallest unit.
fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let fits = units.iter().find(|(size, _)| value >= *size).or(units.last());
    let Some((size, unit)) = fits else { return value.to_string() };
    let scaled = value / size;
    let decimals = if scaled >= 100.0 {
        0
    } else if scaled >= 10.0 {
        1
    } else {
        2
    };
    format!("{scaled:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_the_unit_that_fits() {
        assert_eq!(
            [1.5, 0.0123, 1.234e-4, 2e-10, 0.0].map(seconds),
            ["1.50 s", "12.3 ms", "123 µs", "200 ps", "0.00 ps"]
        );
        assert_eq!([0, 1023, 1536, 90 << 20].map(bytes), ["0.00 B", "1023 B", "1.50 KiB", "90.0 MiB"]);
        assert_eq!([22e6, 1.2e9].map(flops), ["22.0 MFLOP", "1.20 GFLOP"]);
    }
}
