//! The load of `profile` and `tune`: a recorded trace, or one that is made up.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sconce_trace::{ArrivalProcess, Lengths, RequestTrace, Synthetic, TraceError, TraceLimits, TraceSettingError};

use crate::error::Error;

/// Bytes of a file of texts at most.
const MAX_TEXTS_BYTES: u64 = 256 << 20;

/// The requests to send.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct LoadArgs {
    /// Replay the requests of this trace: as `sconce serve --record-trace` writes it, or a trace of Azure (LLM inference, CSV),
    /// `BurstGPT` (CSV) or Mooncake (JSON lines), whose input tokens count
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,

    /// The model whose requests are taken from the trace, if that names models [default: MODEL]
    #[arg(long, value_name = "NAME", requires = "trace")]
    trace_model: Option<String>,

    /// Requests per second: the trace is made faster or slower, or so many are made up, at random times
    #[arg(long, value_name = "RATE", value_parser = positive_number)]
    pub(crate) rate: Option<f64>,

    /// Seconds of the load: of a longer trace the busiest part is taken
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive_number)]
    pub(crate) seconds: f64,

    /// Make requests up with the lines of this file, in any order
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    texts: Option<PathBuf>,

    /// Make requests up of this many tokens: half are shorter, half longer, up to five times
    #[arg(long, value_name = "MEDIAN", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with_all = ["trace", "texts"])]
    tokens: u32,

    /// Make requests up that come in bursts of ON milliseconds with pauses of OFF, on average
    #[arg(long, value_name = "ON,OFF", conflicts_with = "trace", value_parser = bursts)]
    bursts: Option<(Duration, Duration)>,

    /// The seed of everything that is made up
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
}

/// A load that cannot be found or made up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayLoadError {
    #[error("--trace {}: {source}", path.display())]
    Trace { path: PathBuf, source: TraceError },
    #[error(
        "--trace {}: none of its requests is to '{model}'; it has requests to: {}\n  choose those of one with --trace-model NAME",
        path.display(), known.join(", ")
    )]
    NotOfModel { path: PathBuf, model: String, known: Vec<String> },
    #[error("cannot read --texts {}: {message}\n  give a file of one text a line, of at most {} MiB", path.display(), MAX_TEXTS_BYTES >> 20)]
    Texts { path: PathBuf, message: String },
    #[error("no load is given\n  name a trace with --trace FILE, or a rate of requests to make up with --rate RATE")]
    Nothing,
    #[error("the load: {0}\n  --rate and --seconds set it")]
    Setting(#[from] TraceSettingError),
}

impl LoadArgs {
    /// Reads or makes the load for the model of this name.
    pub(crate) fn load(&self, model: &str) -> Result<RequestTrace, Error> {
        Ok(self.trace_for(model)?)
    }

    fn trace_for(&self, model: &str) -> Result<RequestTrace, ReplayLoadError> {
        let length = Duration::from_secs_f64(self.seconds);
        let Some(path) = &self.trace else {
            let rate = self.rate.ok_or(ReplayLoadError::Nothing)?;
            let arrivals = match self.bursts {
                Some((on, off)) => ArrivalProcess::Bursts { rate, on, off },
                None => ArrivalProcess::Poisson { rate },
            };
            let lengths = match &self.texts {
                Some(path) => Lengths::Texts(texts(path)?.into()),
                None => Lengths::LogNormal { median: self.tokens, sigma: 0.6, max: self.tokens.saturating_mul(5) },
            };
            return Ok(Synthetic { arrivals, lengths, length, seed: self.seed }.trace()?);
        };
        let failed = |source| ReplayLoadError::Trace { path: path.clone(), source };
        let file = File::open(path).map_err(|cause| failed(cause.into()))?;
        let trace = RequestTrace::read(file, &TraceLimits::default()).map_err(failed)?;
        let wanted = self.trace_model.as_deref().unwrap_or(model);
        let of_model = trace.of_model(wanted);
        if of_model.is_empty() {
            let known = trace.models().iter().map(ToString::to_string).collect();
            return Err(ReplayLoadError::NotOfModel { path: path.clone(), model: wanted.to_owned(), known });
        }
        let at_rate = match self.rate {
            Some(rate) => of_model.with_rate(rate)?,
            None => of_model,
        };
        Ok(at_rate.busiest(length))
    }
}

fn texts(path: &Path) -> Result<Vec<String>, ReplayLoadError> {
    let wrong = |message: String| ReplayLoadError::Texts { path: path.to_owned(), message };
    let size = fs::metadata(path).map_err(|cause| wrong(cause.to_string()))?.len();
    if size > MAX_TEXTS_BYTES {
        return Err(wrong(format!("it has {} MiB", size >> 20)));
    }
    let content = fs::read_to_string(path).map_err(|cause| wrong(cause.to_string()))?;
    let texts: Vec<String> = content.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if texts.is_empty() { Err(wrong("it has no text".to_owned())) } else { Ok(texts) }
}

/// Parses a number above 0.
pub(crate) fn positive_number(value: &str) -> Result<f64, String> {
    let number = value.parse().ok().filter(|it: &f64| it.is_finite() && *it > 0.0 && *it <= 1e9);
    number.ok_or_else(|| "give a number above 0 and up to 1e9".to_owned())
}

fn bursts(value: &str) -> Result<(Duration, Duration), String> {
    let ms = |part: &str| part.trim().parse().ok().filter(|ms: &u64| (1..=86_400_000).contains(ms));
    let parsed = value.split_once(',').and_then(|(on, off)| Some((ms(on)?, ms(off)?)));
    let (on, off) = parsed.ok_or("give two numbers of milliseconds from 1 to a day, for instance 200,800")?;
    Ok((Duration::from_millis(on), Duration::from_millis(off)))
}
