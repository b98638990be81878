//! One engine in a process of its own.
//!
//! The protocol, one line each way: the worker prints `ready VERSION` once its model is loaded, then answers
//! `run SHAPE MILLISECONDS MIN_CALLS` with the times of its calls as JSON once its helper threads are quiet, and
//! `out SHAPE FILE` with `ok` once its rows are in the file (f32, little-endian, mean-pooled, not normalised). It ends
//! when its standard input does.

mod candle;
mod rten;
mod sconce;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use sconce_models::Precision;
use serde::Serialize;

use crate::Result;
use crate::engine::Engine;

/// The first argument of a worker.
pub(crate) const ARGUMENT: &str = "worker";

/// Token ids of each text, by shape.
type Inputs = BTreeMap<String, Vec<Vec<u32>>>;

/// An engine whose inputs were prepared in its own format before anything is timed.
trait Encoder {
    /// The mean-pooled rows of a shape's texts, one after the other.
    fn forward(&mut self, shape: &str) -> Result<Vec<f32>>;
}

#[derive(Parser)]
struct Args {
    engine: Engine,
    /// The model's directory, or its graph.
    source: PathBuf,
    inputs: PathBuf,
    /// Threads of Sconce; the others read an environment variable.
    threads: NonZeroUsize,
}

/// The command that starts this program as a worker.
pub(crate) fn command(engine: Engine, source: &Path, inputs: &Path, threads: NonZeroUsize) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(ARGUMENT).arg(engine.name()).arg(source).arg(inputs).arg(threads.to_string());
    // candle's pool reads the first, rten's the second.
    command.env("RAYON_NUM_THREADS", threads.to_string()).env("RTEN_NUM_THREADS", threads.to_string());
    Ok(command)
}

pub(crate) fn main() -> Result<()> {
    // clap expects the program's name first: the worker's name takes its place.
    let args = Args::parse_from(std::env::args_os().skip(1));
    let inputs: Inputs = serde_json::from_slice(&std::fs::read(&args.inputs)?)?;
    let sconce = |precision| -> Result<Box<dyn Encoder>> {
        Ok(Box::new(sconce::Sconce::load(&args.source, precision, args.threads, &inputs)?))
    };
    let mut encoder: Box<dyn Encoder> = match args.engine {
        Engine::SconceF32 => sconce(Precision::F32)?,
        Engine::SconceInt8 => sconce(Precision::Int8)?,
        Engine::Candle => Box::new(candle::Candle::load(&args.source, &inputs)?),
        Engine::RtenF32 | Engine::RtenInt8 => Box::new(rten::Rten::load(&args.source, &inputs)?),
        other => return Err(format!("{other} runs in Python").into()),
    };
    println!("ready {}", locked_version(args.engine.package()));
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words[..] {
            ["run", shape, limits] => {
                let (millis, min_calls) = limits.split_once(' ').ok_or("run wants SHAPE MILLISECONDS MIN_CALLS")?;
                let calls = time_calls(encoder.as_mut(), shape, millis.parse()?, min_calls.parse()?)?;
                println!("{}", serde_json::to_string(&calls)?);
            }
            ["out", shape, file] => {
                let rows = encoder.forward(shape)?;
                std::fs::write(file, rows.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())?;
                println!("ok");
            }
            _ => return Err(format!("'{line}' is no question; known are: run, out").into()),
        }
        io::stdout().flush()?;
    }
    Ok(())
}

#[derive(Default, Serialize)]
struct Times {
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

fn time_calls(encoder: &mut dyn Encoder, shape: &str, millis: u64, min_calls: usize) -> Result<Times> {
    encoder.forward(shape)?; // brings weights back into the cache; not counted
    let mut times = Times::default();
    let started = Instant::now();
    while times.wall_ms.len() < min_calls || started.elapsed().as_millis() < u128::from(millis) {
        // The outer clock costs more, so that wall time does not include it.
        let (cpu, wall) = (process_cpu_ms(), Instant::now());
        std::hint::black_box(encoder.forward(shape)?);
        times.wall_ms.push(wall.elapsed().as_secs_f64() * 1e3);
        times.cpu_ms.push(process_cpu_ms() - cpu);
    }
    wait_until_quiet();
    Ok(times)
}

/// Waits until helper threads, which may spin for a while after a call, no longer disturb the next engine.
fn wait_until_quiet() {
    const PERIOD: Duration = Duration::from_millis(10);
    const MAX_BUSY_MS: f64 = 1.0;
    loop {
        let before = process_cpu_ms();
        thread::sleep(PERIOD);
        if process_cpu_ms() - before < MAX_BUSY_MS {
            return;
        }
    }
}

/// CPU time of this process, helper threads included.
fn process_cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// The locked version of a package.
fn locked_version(package: &str) -> &'static str {
    const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));
    let entry = LOCK.split_once(&format!("name = \"{package}\"\nversion = \"")).map(|(_, entry)| entry);
    entry.and_then(|entry| entry.split('"').next()).expect("the lock file holds every package that is linked")
}

/// Texts padded to the longest, for engines that do not pack.
struct Padded {
    texts: usize,
    tokens: usize,
    /// [texts, tokens], padded with 0.
    ids: Vec<u32>,
    /// 1 at each token, 0 at the padding.
    mask: Vec<u32>,
}

impl Padded {
    fn new(texts: &[Vec<u32>]) -> Self {
        let tokens = texts.iter().map(Vec::len).max().unwrap_or(0);
        let fill = |text: &[u32], padding: u32| {
            let mut row = text.to_vec();
            row.resize(tokens, padding);
            row
        };
        Self {
            texts: texts.len(),
            tokens,
            ids: texts.iter().flat_map(|text| fill(text, 0)).collect(),
            mask: texts.iter().flat_map(|text| fill(&vec![1; text.len()], 0)).collect(),
        }
    }
}

fn of_shape<'a, T>(by_shape: &'a BTreeMap<String, T>, shape: &str) -> Result<&'a T> {
    by_shape.get(shape).ok_or_else(|| format!("shape '{shape}' is not in the inputs").into())
}
