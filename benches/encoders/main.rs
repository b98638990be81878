//! CPU encoders side by side: Sconce, stock candle, rten and ONNX Runtime answer the same texts in one interleaved run.
//! `cargo bench -p sconce-benches --features rivals --bench encoders -- --help` lists the options.
//!
//! Each engine is a process of its own (`worker/`, `python/ort_worker.py`), so that no thread pool, allocator or cache
//! setting of one affects another. In order: the inputs are made (`texts.rs`), an f64 reference answers them
//! (`python/reference.py`), every engine's answers are compared with it (`check.rs`), and then rounds are run: shape by
//! shape, the engines in shuffled order, each for a short burst (`measure.rs`), so that noise of the machine hits all
//! alike. Ratios are formed within a round (`statistics.rs`) and written as tables, CSV and a plot (`report.rs`).
//!
//! Hardware counters are deliberately absent: few virtual machines have them. CPU time is measured as well as wall time; it
//! includes helper threads, but not waiting for a processor that another process uses.
//!
//! Without `--bench` (as `cargo test` runs it), it is a test: Sconce and stock candle on a model that ships, one round.

mod check;
mod cli;
mod crew;
mod engine;
mod measure;
mod model;
mod report;
mod shape;
mod statistics;
mod texts;
mod worker;

use std::collections::BTreeMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser as _;

use check::Answers;
use cli::{Args, Plan};
use crew::{Crew, Processes};
use engine::Engine;
use model::ModelName;
use sconce_benches::python::Python;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some(worker::ARGUMENT) => worker::main(),
        _ => compare(Args::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("encoders: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: Args) -> Result<()> {
    let processes = Processes::that_end_on_ctrl_c()?;
    let (plan, python) = if args.bench {
        let plan = args.into_plan();
        let python = python_or_say_what_is_left_out(&plan.target);
        (plan, python)
    } else {
        eprintln!(
            "test run: Sconce and stock candle on encoder-mini, compared with each other. Left out: ONNX Runtime, rten, \
             the f64 reference, other models and shapes; `cargo bench -p sconce-benches --features rivals --bench encoders` runs them"
        );
        (args.into_smoke_test(), None)
    };

    let (mut runs, mut versions) = (Vec::new(), BTreeMap::new());
    for bench in benches(&plan, python.as_ref())? {
        let model = bench.model;
        for threads in &plan.threads {
            eprintln!("{}, threads: {threads}: starting and checking the engines", model.name());
            let mut crew = bench.crew(*threads, &plan, &processes)?;
            versions.extend(crew.versions());
            let cosines = bench.check(&mut crew, &plan)?;
            let engines: Vec<Engine> = cosines.keys().copied().collect();
            let bursts = measure::rounds(&mut crew, &engines, &plan)?;
            runs.push(statistics::summarise(model, *threads, &plan.shapes, &cosines, &bursts));
        }
    }
    report::write(&runs, &versions, &plan)?;
    if let Some(python) = &python {
        python.run("encoders/python/plot.py", &[plan.out.join(report::CSV), plan.out.join(report::PNG)])?;
    }
    eprintln!("written to {}", plan.out.display());
    Ok(())
}

/// The benches of the requested models that are there; if there are none, of the model that ships.
fn benches(plan: &Plan, python: Option<&Python>) -> Result<Vec<Bench>> {
    let mut benches = Vec::new();
    for model in &plan.models {
        benches.extend(Bench::prepare(*model, plan, python)?);
    }
    if benches.is_empty() {
        eprintln!("instead: encoder-mini, which ships");
        benches.extend(Bench::prepare(ModelName::EncoderMini, plan, python)?);
    }
    Ok(benches)
}

fn python_or_say_what_is_left_out(target: &Path) -> Option<Python> {
    Python::find_or_make(target)
        .inspect_err(|error| {
            eprintln!(
                "left out: ONNX Runtime, rten, bert-base, the f64 reference and the plot, which need Python: {error}"
            );
        })
        .ok()
}

/// One model with its inputs, graphs and expected answers.
struct Bench {
    model: ModelName,
    directory: PathBuf,
    inputs: PathBuf,
    graphs: PathBuf,
    python: Option<Python>,
    /// `None` without Python: stock candle's answers are the reference then.
    reference: Option<Answers>,
}

impl Bench {
    /// Prepares a bench; `None`, after a line with the reason, if the model is missing.
    fn prepare(model: ModelName, plan: &Plan, python: Option<&Python>) -> Result<Option<Self>> {
        let home = plan.target.join(model.name());
        std::fs::create_dir_all(&home)?;
        let directory = match model.directory(&home, python) {
            Ok(directory) => directory,
            Err(error) => {
                eprintln!("left out: {}: {error}", model.name());
                return Ok(None);
            }
        };
        let (inputs, graphs) = (home.join("inputs.json"), home.join("graphs"));
        texts::write(&plan.shapes, &directory, &inputs)?;
        let mut reference = None;
        if let Some(python) = python {
            eprintln!("{}: ONNX graphs and the f64 reference", model.name());
            python.run("encoders/python/graphs.py", &[&directory, &graphs])?;
            python.run("encoders/python/reference.py", &[&directory, &inputs, &home])?;
            reference = Some(check::reference(&plan.shapes, &home)?);
        }
        Ok(Some(Self { model, directory, inputs, graphs, python: python.cloned(), reference }))
    }

    fn crew(&self, threads: NonZeroUsize, plan: &Plan, processes: &Processes) -> Result<Crew> {
        let mut crew = Crew::new(processes.clone());
        for engine in &plan.engines {
            let Some(command) = self.command(*engine, threads)? else { continue };
            match crew.start(*engine, command) {
                // A rival may lack an operator or support for the processor; ours may not.
                Err(error) if engine.is_ours() => return Err(error),
                Err(error) => eprintln!("left out: {engine}: {error}"),
                Ok(()) => {}
            }
        }
        Ok(crew)
    }

    /// The command of an engine's worker; `None` if it needs Python and there is none.
    fn command(&self, engine: Engine, threads: NonZeroUsize) -> Result<Option<Command>> {
        let graph = engine.graph().map(|graph| self.graphs.join(graph));
        let source = graph.as_ref().unwrap_or(&self.directory);
        Ok(match &self.python {
            None if engine.needs_python() => None,
            Some(python) if engine.is_onnx_runtime() => {
                let mut command = python.command("encoders/python/ort_worker.py");
                command.arg(source).arg(&self.inputs).arg(threads.to_string());
                Some(command)
            }
            _ => Some(worker::command(engine, source, &self.inputs, threads)?),
        })
    }

    /// Cosines of the engines whose answers are right.
    fn check(&self, crew: &mut Crew, plan: &Plan) -> Result<BTreeMap<Engine, f64>> {
        let stand_in;
        let expected = match &self.reference {
            Some(reference) => reference,
            None if crew.engines().contains(&Engine::Candle) => {
                stand_in = check::answers(crew, Engine::Candle, &plan.shapes, &plan.target)?;
                &stand_in
            }
            None => return Err("answers are checked against Python or stock candle: add candle to --engines".into()),
        };
        let mut cosines = BTreeMap::new();
        for engine in crew.engines() {
            let answers = check::answers(crew, engine, &plan.shapes, &plan.target)?;
            let cosine = check::lowest_cosine(&answers, expected);
            let (found, wanted) = (1.0 - cosine, engine.min_cosine());
            eprintln!("  {engine:<15} 1 - cosine is at most {found:.1e}");
            if cosine >= wanted {
                cosines.insert(engine, cosine);
            } else if engine.is_ours() {
                return Err(format!("{engine} is wrong: its lowest cosine is {cosine}, and {wanted} is asked").into());
            } else {
                eprintln!("left out: {engine} is wrong: its lowest cosine is {cosine}, and {wanted} is asked");
            }
        }
        Ok(cosines)
    }
}
