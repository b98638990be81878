//! Errors of commands, by what the user can do about them.

#[cfg(feature = "grpc")]
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(feature = "sqlite")]
use sconce::cache::SqliteOpenError;
use sconce::cache::TierError;
use sconce::{InputError, Precision};

use crate::decide::DecideError;
use crate::inputs::{Format, InputLocation, ReadError};
use crate::pull::PullError;
use crate::replay::ReplayLoadError;
#[cfg(feature = "grpc")]
use crate::serve::Failed;
use crate::tune::TuneError;

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "--model '{name}' is neither a known model nor a directory; known are: {}\n  \
         looked in: {}\n  see `sconce models`; `sconce pull` fetches more",
        or_none(known.iter().cloned()), paths(searched)
    )]
    UnknownModel { name: String, known: Vec<String>, searched: Vec<PathBuf> },

    #[error(
        "no model found in: {}\n  give a directory of model directories with --models DIR, or fetch a model: \
         `sconce pull minilm`",
        paths(searched)
    )]
    NoModel { searched: Vec<PathBuf> },

    #[error("cannot read the models directory {}: {source}\n  give another with --models DIR or SCONCE_MODELS", path.display())]
    ModelsDirectory { path: PathBuf, source: io::Error },

    #[error(
        "--models {0} is a model directory itself\n  give the directory above it, or use this model alone: --model {0}",
        path.display()
    )]
    ModelInsteadOfModels { path: PathBuf },

    #[error("--model '{name}' does {task}; use: sconce {command} --model {name}")]
    WrongTask { name: String, task: &'static str, command: &'static str },

    #[error("--model '{name}': {source}")]
    Option { name: String, source: InputError },

    #[error("--precision {name}={precision}: no model is named '{name}'; those to be served: {}", known.join(", "))]
    PrecisionOfUnknownModel { name: String, precision: Precision, known: Vec<String> },

    #[error("--precision is given twice for {name}: {first} and {second}; give one")]
    PrecisionTwice { name: String, first: Precision, second: Precision },

    #[cfg(feature = "grpc")]
    #[error("--ladder {name}: no model is named '{name}'; those to be served: {}", known.join(", "))]
    LadderOfUnknownModel { name: String, known: Vec<String> },

    #[cfg(feature = "grpc")]
    #[error("--ladder is given twice for {name}; name all its lower precisions in one, such as {name}=q8_0,int8")]
    LadderTwice { name: String },

    #[error("--model {name}={}: there is no such directory; give the directory that holds the model's config.json", directory.display())]
    NoModelDirectory { name: String, directory: PathBuf },

    #[error("--model {name} is given twice: {first} and {second}; give it once", first = first.display(), second = second.display())]
    ModelTwice { name: String, first: PathBuf, second: PathBuf },

    #[cfg(feature = "grpc")]
    #[error("{}", each_once(failed))]
    NoneLoads { failed: Failed },

    #[error(transparent)]
    Build(Box<sconce::BuildError>),

    #[error("{0}\n  the flag of that name sets it; see --help")]
    Batching(#[from] sconce::ConfigError),

    #[error("{flag}: {cause}{}", makes_it(flag, &**cause))]
    Cache { flag: &'static str, cause: Box<dyn std::error::Error + Send + Sync> },

    #[error("{flag} '{address}': {cause}\n  give for instance {example}")]
    Address {
        flag: &'static str,
        /// The address without its password.
        address: String,
        cause: Box<dyn std::error::Error + Send + Sync>,
        example: &'static str,
    },

    #[error("{what}\n  give one: {flags}")]
    NoTier { what: &'static str, flags: &'static str },

    #[error("{}{}", .0, remains(.0))]
    Precompute(#[from] sconce::PrecomputeError),

    #[error("the {tier} tier at {place}: {source}\n  {}", remedy(tier, flag, source))]
    Tier { tier: &'static str, place: String, flag: &'static str, source: TierError },

    #[error(
        "cannot tell by its name what {} holds\n  say it with --format: text, jsonl, csv, tsv or parquet",
        path.display()
    )]
    Format { path: PathBuf },

    #[error(
        "cannot read {location} as {format}: {source}\n  give another file, or say with --format what it holds: text, jsonl, csv, tsv or parquet"
    )]
    Table { location: InputLocation, format: Format, source: ReadError },

    #[error("Parquet is not read from standard input, because its index is at its end; give a file")]
    ParquetFromPipe,

    #[error("--all deletes every entry of: {tiers}\n  add --yes to mean it")]
    NotConfirmed { tiers: String },

    #[error("cannot read {}: {source}", path.display())]
    Input { path: PathBuf, source: io::Error },

    #[error(
        "nothing could be measured: {}\n  give other --precisions, --batches or --devices; `sconce models` lists what each model has",
        left_out.join("; ")
    )]
    NothingToMeasure { left_out: Vec<String> },

    #[error("{what}: {cause}")]
    Forward { what: String, cause: sconce::models::ForwardError },

    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },

    #[error("cannot draw {}: {message}\n  give a file whose name ends in .png", path.display())]
    Plot { path: PathBuf, message: String },

    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),

    #[cfg(feature = "grpc")]
    #[error("{flag} {address}: {source}\n  {remedy}")]
    Listen { flag: &'static str, address: String, source: io::Error, remedy: &'static str },

    #[cfg(feature = "grpc")]
    #[error("--grpc and --http are both none: give at least one of them an address")]
    NoAddress,

    #[cfg(feature = "grpc")]
    #[error("--otlp {endpoint}: {reason}")]
    Collector { endpoint: String, reason: String },

    #[cfg(feature = "grpc")]
    #[error(
        "{flag} {address} is reached by other machines, and no token is asked for\n  \
         name the tokens with --token-file FILE (or SCONCE_TOKEN), or let everyone in with --allow-anonymous"
    )]
    Unguarded { flag: &'static str, address: String },

    #[cfg(feature = "grpc")]
    #[error("--tls-cert, --tls-key or --tls-client-ca: {0}")]
    Tls(#[from] sconce_grpc::TlsError),

    #[cfg(feature = "grpc")]
    #[error("--token-file: {0}")]
    TokenFile(#[from] sconce_grpc::TokenFileError),

    #[cfg(feature = "grpc")]
    #[error("{variable}: {problem}")]
    Token { variable: &'static str, problem: &'static str },

    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),

    #[error("cannot start threads: {0}")]
    Threads(io::Error),

    #[error("RUST_LOG is '{value}': {message}\n  give a level or target=level, for instance RUST_LOG=sconce=debug")]
    LogFilter { value: String, message: String },

    #[error(transparent)]
    Load(#[from] ReplayLoadError),

    #[error(transparent)]
    Tune(#[from] TuneError),

    #[error(transparent)]
    Pull(#[from] PullError),

    #[error(transparent)]
    Decide(#[from] DecideError),
}

impl From<sconce::BuildError> for Error {
    fn from(cause: sconce::BuildError) -> Self {
        Self::Build(Box::new(cause))
    }
}

impl Error {
    /// Returns true if the reader of standard output went away, as `head` does.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(cause) if cause.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Exit status: 2 for a fault in what the user gave, 1 for a failure on the way.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Precompute(sconce::PrecomputeError::NeverCached { .. } | sconce::PrecomputeError::Prompt(_)) => {
                ExitCode::from(2)
            }
            Self::Forward { .. }
            | Self::Output(_)
            | Self::Signals(_)
            | Self::Threads(_)
            | Self::Precompute(_)
            | Self::Tier { source: TierError::Unavailable(_) | TierError::Full | TierError::Busy { .. }, .. } => {
                ExitCode::FAILURE
            }
            Self::Pull(error) if error.went_wrong_on_the_way() => ExitCode::FAILURE,
            Self::Decide(error) if error.went_wrong_on_the_way() => ExitCode::FAILURE,
            _ => ExitCode::from(2),
        }
    }
}

/// The reasons why no model loads, each told once.
#[cfg(feature = "grpc")]
fn each_once(failed: &Failed) -> String {
    let reasons: BTreeSet<String> = failed.values().map(ToString::to_string).collect();
    let reasons: Vec<String> = reasons.into_iter().collect();
    match &reasons[..] {
        [one] => one.clone(),
        several => format!("none of {} models loads:\n  {}", failed.len(), several.join("\n  ")),
    }
}

/// Nothing: without SQLite no cache is a file.
#[cfg(not(feature = "sqlite"))]
fn makes_it(_: &str, _: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    String::new()
}

/// The commands that make a cache, if the error is that there is none.
#[cfg(feature = "sqlite")]
fn makes_it(flag: &str, cause: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    match cause.downcast_ref() {
        Some(SqliteOpenError::Missing { .. }) => format!("\n  {}", MAKES_IT.replace("FLAG", flag)),
        _ => String::new(),
    }
}

const MAKES_IT: &str = "check the name; `sconce serve` or `sconce precompute` with the same FLAG makes and fills it";

/// The line about the answers that were stored before the error; none was before an error of what the user gave.
fn remains(error: &sconce::PrecomputeError) -> String {
    let room = match error {
        sconce::PrecomputeError::NeverCached { .. } | sconce::PrecomputeError::Prompt(_) => return String::new(),
        sconce::PrecomputeError::Full { .. } => "make room on its disk or beneath its bound, and ",
        _ => "",
    };
    format!("\n  what was stored until then stays; {room}the same command goes on from there")
}

fn remedy(tier: &str, flag: &str, error: &TierError) -> String {
    match error {
        TierError::Unavailable(_) if tier == "sqlite" => {
            "check the file and its directory: both must be readable, and writable to change anything".to_owned()
        }
        TierError::Missing { .. } => MAKES_IT.replace("FLAG", flag),
        TierError::Full => "make room there, for instance with `sconce cache purge --expired`".to_owned(),
        TierError::Busy { .. } => "try again in a moment".to_owned(),
        _ => format!("check that it is up and that {flag} names it"),
    }
}

fn paths(paths: &[PathBuf]) -> String {
    or_none(paths.iter().map(|path| path.display().to_string()))
}

fn or_none(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { "(none)".to_owned() } else { words.join(", ") }
}
