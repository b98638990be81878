//! `sconce tune`: the threads, bounds of batches and replicas that meet a latency objective at the least cost.
//!
//! `calibrate` measures the model under the load, `search` simulates settings (`simulate` is the batcher in virtual time, with
//! times drawn from `samples`), and `check` runs the advice and the default side by side. `report` says what came of it, and
//! `settings` writes `sconce.toml`.

mod caches;
mod calibrate;
mod check;
mod report;
mod samples;
mod search;
mod settings;
mod simulate;

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sconce::{BatcherConfig, Precision};
use sconce_trace::RequestTrace;

use crate::args::{BatchingArgs, OneModelArgs};
use crate::error::Error;
use crate::models_path::ModelsPath;
use crate::profile::EarlyEnd;
use crate::progress;
use crate::replay::{LoadArgs, PlannedRequest, positive_number};
use crate::signals::{Signals, uninterrupted};
use caches::CacheDemand;
use calibrate::Bench;
use report::{Advice, Findings};
use search::{Objective, Search};

/// Advise threads, bounds of batches and replicas that meet a latency objective at the least cost, with figures.
///
/// The model is measured in this process under the load; then the batcher that serves requests is simulated over the load with
/// the measured times, for many settings and numbers of replicas. The advice and the default are run in turns, and predicted and
/// measured figures are shown side by side. Settings that measured slower than the default are never advised.
///
/// Lower precisions are considered if the decision record beside the model allows them (see --allowed-signers). The load should
/// have the rate at which the service shall run, over all replicas; the machine should do nothing else meanwhile.
///
/// Ctrl-C ends it early, without an advice.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce tune tiny-bert-sentiment --rate 2000 --slo-p99 20ms
  sconce tune minilm --trace requests.jsonl --slo-p99 50ms --price-per-hour 0.10
  sconce tune minilm --trace requests.jsonl --rate 500 --slo-p99 100ms --write")]
pub(crate) struct TuneArgs {
    /// A name on the models path, or a model directory
    #[arg(value_name = "MODEL")]
    model: String,

    /// The objective: 99 of 100 requests are answered within this time, for instance 50ms or 0.2s
    #[arg(long, value_name = "TIME", value_parser = time)]
    slo_p99: Duration,

    /// The price of an hour of a machine like this one, in any currency
    #[arg(long, value_name = "PRICE", value_parser = positive_number)]
    price_per_hour: Option<f64>,

    /// Replicas at most
    #[arg(long, value_name = "REPLICAS", default_value = "64")]
    max_replicas: NonZeroUsize,

    /// Milliseconds of each measurement; there are sixteen for each number of threads and each precision
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    turn_ms: u64,

    /// Runs of the advice and of the default, in turns
    #[arg(long, value_name = "ROUNDS", default_value = "3")]
    rounds: NonZeroUsize,

    /// Write the advice into the model's sconce.toml, and keep what else is in it
    #[arg(long)]
    write: bool,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    load: LoadArgs,

    #[command(flatten)]
    how: OneModelArgs,

    #[command(flatten)]
    batching: BatchingArgs,
}

/// The settings that are advised.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    /// CPU threads that compute one batch.
    pub(crate) threads: NonZeroUsize,
    pub(crate) precision: Precision,
    pub(crate) config: BatcherConfig,
}

/// A reason why nothing can be advised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TuneError {
    #[error("{name} serves on {devices}, and a simulation has one device; name one with --device")]
    SeveralDevices { name: String, devices: String },
    #[error(
        "too few batches of {name} were answered to say what they take; give longer measurements (--turn-ms), or a load that it \
         can answer"
    )]
    TooFew { name: String },
}

pub(crate) async fn run(args: &TuneArgs, signals: Signals) -> Result<ExitCode, Error> {
    let early = EarlyEnd::on(signals);
    let advice = advise(args, &early.flag).await;
    if let Some(signal) = early.signal() {
        return Ok(signal.exit_code());
    }
    let advice = advice?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", advice.object())?;
    } else {
        advice.write_text(&mut out)?;
    }
    if args.write {
        let directory = ModelsPath::new(&args.how.models).find(&args.model)?.newest();
        writeln!(out, "{}", write_settings(&directory.join("sconce.toml"), &advice.chosen().setting)?)?;
    }
    out.flush()?;
    Ok(if advice.meets() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures, simulates and checks.
async fn advise(args: &TuneArgs, stop: &AtomicBool) -> Result<Advice, Error> {
    let batching = args.batching.config()?;
    let (name, source) = args.how.find(&args.model)?;
    let trace = args.load.load(&name)?;
    let bench = Bench { name: &name, source, compute: &args.how.compute, batching, stop };
    let calibrated = bench.calibrate(&trace, Duration::from_millis(args.turn_ms)).await?;
    let requests = bench.plan(&trace)?;
    let objective = Objective { slo: args.slo_p99, max_replicas: args.max_replicas.get() };
    let spinner = progress::spinner("simulating settings".to_owned());
    let search = Search { calibrated: &calibrated, objective, requests: &requests };
    let found = tokio::task::block_in_place(|| search.run());
    spinner.finish_and_clear();
    let checked = check::check(&bench, &found, &trace, args.rounds.get()).await?;
    let caches = CacheDemand::of(&trace, &bench).await?;
    Ok(Advice::new(&bench, &trace, args, Findings { calibrated, found, checked, caches }))
}

/// Writes the settings into the file; returns words about it.
fn write_settings(path: &Path, setting: &Setting) -> Result<String, Error> {
    let failed = |source| Error::Write { path: PathBuf::from(path), source };
    let old = match std::fs::read_to_string(path) {
        Ok(old) => old,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => String::new(),
        Err(cause) => return Err(failed(cause)),
    };
    let new = settings::with(&old, setting).map_err(|cause| failed(io::Error::other(cause)))?;
    if new == old {
        return Ok(format!("{} says so already", path.display()));
    }
    let written = uninterrupted(|| -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(new.as_bytes())?;
        file.persist(path)?;
        Ok(())
    });
    written.map_err(failed)?;
    Ok(format!("written to {}", path.display()))
}

/// The load of one of so many replicas, as requests that a simulation reads.
pub(crate) fn share(requests: &[PlannedRequest], replicas: usize) -> Vec<PlannedRequest> {
    requests.iter().step_by(replicas.max(1)).cloned().collect()
}

/// The trace of one of so many replicas.
pub(crate) fn share_of_trace(trace: &RequestTrace, replicas: usize) -> RequestTrace {
    trace.share(replicas.max(1)).expect("there is a replica at least")
}

/// Parses a time: a number with its unit, `us`, `ms` or `s`.
fn time(value: &str) -> Result<Duration, String> {
    let value = value.trim();
    let number = value.trim_end_matches(|letter: char| letter.is_alphabetic() || letter == 'µ');
    let scale = match value[number.len()..].trim() {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => f64::NAN,
    };
    let seconds = number.trim().parse::<f64>().ok().map(|number| number * scale);
    let seconds = seconds.filter(|seconds| (1e-6..=3600.0).contains(seconds));
    let seconds = seconds.ok_or("give a number with its unit, from 1us to an hour, for instance 50ms or 0.2s")?;
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit_and_others_refused() {
        let table = [("50ms", 50_000), ("0.2s", 200_000), ("7 us", 7), ("1.5 ms", 1500)];
        for (value, us) in table {
            assert_eq!(time(value), Ok(Duration::from_micros(us)), "{value}");
        }
        for value in ["50", "ms", "-1ms", "1h", "0s", "NaNs", "1e9s"] {
            assert!(time(value).unwrap_err().contains("with its unit"), "{value}");
        }
    }
}
