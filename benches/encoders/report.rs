//! The tables, and the CSV from which the plot is drawn.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroUsize;

use serde::Serialize;

use crate::Result;
use crate::cli::Plan;
use crate::engine::Engine;
use crate::shape::BatchShape;
use crate::statistics::{Cell, Contest, Quartiles, Ratios, Run};

pub(crate) const CSV: &str = "encoders.csv";
pub(crate) const PNG: &str = "encoders.png";
const MARKDOWN: &str = "encoders.md";

/// Prints the tables, and writes them and all figures below `plan.out`.
pub(crate) fn write(runs: &[Run], versions: &BTreeMap<&str, String>, plan: &Plan) -> Result<()> {
    fs::create_dir_all(&plan.out)?;
    let mut text = format!("{}\n", machine());
    let versions: Vec<String> = versions.iter().map(|(package, version)| format!("{package} {version}")).collect();
    let _ = writeln!(text, "Versions: {}.", versions.join(", "));
    for run in runs {
        text += &tables(run, &plan.shapes);
    }
    println!("{text}");
    fs::write(plan.out.join(MARKDOWN), text)?;
    let mut csv = csv::Writer::from_path(plan.out.join(CSV))?;
    for run in runs {
        for cell in &run.cells {
            csv.serialize(Record::new(run, cell))?;
        }
    }
    Ok(csv.flush()?)
}

fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let described = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name| {
        let line = described.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value)
    };
    let known = ["avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "asimddp"];
    let flags: Vec<&str> = field("flags").split(' ').filter(|flag| known.contains(flag)).collect();
    let command: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    format!(
        "{cpus} CPUs, {} (model {}; {}), {}.\nCommand: `cargo bench -p sconce-benches --features rivals --bench encoders -- {}`.",
        field("model name"),
        field("model\t"),
        flags.join(" "),
        std::env::consts::OS,
        command.join(" ")
    )
}

fn tables(run: &Run, shapes: &[BatchShape]) -> String {
    let mut text = String::new();
    let Run { model, threads, rounds, baseline, .. } = run;
    let _ = writeln!(text, "\n### {}, threads: {threads}, rounds: {rounds}\n", model.name());
    let _ =
        writeln!(text, "Times faster than {baseline} (larger is faster), by wall time · CPU time · fastest call:\n");
    text += &heading("", shapes);
    for engine in engines(run) {
        text += &row(&engine.name(), shapes, |shape| cell(run, engine, shape).map(|cell| ratios(&cell.ratios)));
    }
    for (engine, rivals) in contests(run) {
        let name = format!("*{engine} by {rivals}*");
        let of_shape = |contest: &&Contest, shape| contest.engine == engine && contest.shape == shape;
        let contest = |shape| run.contests.iter().find(|contest| of_shape(contest, shape));
        text += &row(&name, shapes, |shape| contest(shape).map(|contest| ratios(&contest.ratios)));
    }
    let _ = writeln!(text, "\nWall time of a call in ms: median (quartiles) of all calls:\n");
    text += &heading(" 1 - cosine |", shapes);
    for engine in engines(run) {
        let cosine = run.cells.iter().find(|cell| cell.engine == engine).map_or(f64::NAN, |cell| cell.cosine);
        let name = format!("{engine} | {:.0e}", (1.0 - cosine).max(0.0));
        text += &row(&name, shapes, |shape| cell(run, engine, shape).map(|cell| with_spread(cell.wall_ms)));
    }
    text
}

fn heading(second: &str, shapes: &[BatchShape]) -> String {
    let names: Vec<String> = shapes.iter().map(BatchShape::to_string).collect();
    let columns = shapes.len() + usize::from(!second.is_empty());
    format!("| engine |{second} {} |\n|---|{}\n", names.join(" | "), "---|".repeat(columns))
}

fn row(name: &str, shapes: &[BatchShape], figure: impl Fn(BatchShape) -> Option<String>) -> String {
    let figures: Vec<String> = shapes.iter().map(|shape| figure(*shape).unwrap_or_else(|| "–".to_owned())).collect();
    format!("| {name} | {} |\n", figures.join(" | "))
}

fn ratios(ratios: &Ratios) -> String {
    format!("{:.2} · {:.2} · {:.2}", ratios.wall.median, ratios.cpu.median, ratios.fastest)
}

fn with_spread(times: Quartiles) -> String {
    let Quartiles { p25, median, p75 } = times;
    let places = if median < 10.0 { 2 } else { 1 };
    format!("{median:.places$} ({p25:.places$}–{p75:.places$})")
}

fn cell(run: &Run, engine: Engine, shape: BatchShape) -> Option<&Cell> {
    run.cells.iter().find(|cell| cell.engine == engine && cell.shape == shape)
}

fn engines(run: &Run) -> Vec<Engine> {
    let mut engines: Vec<Engine> = run.cells.iter().map(|cell| cell.engine).collect();
    engines.sort();
    engines.dedup();
    engines
}

fn contests(run: &Run) -> Vec<(Engine, &'static str)> {
    let mut contests: Vec<_> = run.contests.iter().map(|contest| (contest.engine, contest.rivals)).collect();
    contests.sort();
    contests.dedup();
    contests
}

/// One line of the CSV.
#[derive(Serialize)]
struct Record {
    model: &'static str,
    threads: NonZeroUsize,
    shape: String,
    engine: String,
    rounds: usize,
    calls: usize,
    cosine: f64,
    fastest_ms: f64,
    wall_ms_p25: f64,
    wall_ms: f64,
    wall_ms_p75: f64,
    cpu_ms_p25: f64,
    cpu_ms: f64,
    cpu_ms_p75: f64,
    baseline: String,
    wall_ratio_p25: f64,
    wall_ratio: f64,
    wall_ratio_p75: f64,
    cpu_ratio_p25: f64,
    cpu_ratio: f64,
    cpu_ratio_p75: f64,
    fastest_ratio: f64,
}

impl Record {
    fn new(run: &Run, cell: &Cell) -> Self {
        Self {
            model: run.model.name(),
            threads: run.threads,
            shape: cell.shape.to_string(),
            engine: cell.engine.name(),
            rounds: run.rounds,
            calls: cell.calls,
            cosine: cell.cosine,
            fastest_ms: cell.fastest_ms,
            wall_ms_p25: cell.wall_ms.p25,
            wall_ms: cell.wall_ms.median,
            wall_ms_p75: cell.wall_ms.p75,
            cpu_ms_p25: cell.cpu_ms.p25,
            cpu_ms: cell.cpu_ms.median,
            cpu_ms_p75: cell.cpu_ms.p75,
            baseline: run.baseline.name(),
            wall_ratio_p25: cell.ratios.wall.p25,
            wall_ratio: cell.ratios.wall.median,
            wall_ratio_p75: cell.ratios.wall.p75,
            cpu_ratio_p25: cell.ratios.cpu.p25,
            cpu_ratio: cell.ratios.cpu.median,
            cpu_ratio_p75: cell.ratios.cpu.p75,
            fastest_ratio: cell.ratios.fastest,
        }
    }
}
