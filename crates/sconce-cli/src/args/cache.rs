//! The command lines of `sconce precompute` and `sconce cache`.

use std::num::NonZeroU64;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use std::path::PathBuf;

use clap::{ArgGroup, Subcommand};

use super::numbers::positive;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use super::{BatchingArgs, OneModelArgs};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::cache::DatabaseArgs;
use crate::cache::StoredArgs;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use crate::inputs::Format;

/// Fill a database with answers ahead of time, so that `sconce serve` with the same database finds them.
///
/// Reads one input per row: JSON lines (a string, or an object with a field), CSV or TSV with a header, Parquet, or
/// plain lines. Answers that the database holds are not computed again, so the same command resumes a run that was
/// stopped or killed. An answer belongs to the content of the model's files, to the model's name, to its precision and to the prompt:
/// give those that will be served. Options that make other vectors of one answer (dimensions, element type, length 1) need no run of
/// their own.
///
/// A bad input is reported and skipped, the others are still computed, and the exit status is 1. Ctrl-C (SIGTERM) finishes
/// what was begun, and the exit status is 130 (143).
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce precompute --model minilm --cache-sqlite answers.sqlite products.jsonl --column title
  sconce precompute --model nomic --prompt document --cache-sqlite answers.sqlite texts.parquet
  sconce precompute --model minilm --precision int8 --cache-sqlite answers.sqlite texts.parquet
  psql -c '…' | sconce precompute --model minilm --cache-postgres postgres://cache@db/answers --format csv -
  sconce serve --model minilm --cache-sqlite answers.sqlite")]
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) struct PrecomputeArgs {
    /// A name on the models path (see `sconce models`), or a model directory
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,

    /// Files to read; `-` or no FILE is standard input, as JSON lines unless --format says otherwise
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Format of the files [default: by their names]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,

    /// The field or column that holds the input
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) column: String,

    /// Refuse a text of more tokens than the model takes, rather than cut its end; for requests that refuse such texts, too
    #[arg(long)]
    pub(crate) no_truncate: bool,

    /// Put the model's prompt NAME before each text, such as `query` or `document`; for requests with the same prompt
    #[arg(long, value_name = "NAME")]
    pub(crate) prompt: Option<String>,

    /// Print the summary at the end as one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) database: DatabaseArgs,

    #[command(flatten)]
    pub(crate) how: OneModelArgs,

    #[command(flatten)]
    pub(crate) batching: BatchingArgs,
}

/// Count, copy and delete the entries of the cache tiers that outlive a process.
///
/// A database that does not exist is an error; only `warm` makes one, to copy into.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct CacheCommandArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    Stats(StatsArgs),
    Warm(WarmArgs),
    Purge(PurgeArgs),
}

/// Count entries and bytes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce cache stats --cache-redis redis://localhost --cache-sqlite answers.sqlite
  sconce cache stats --cache-sqlite answers.sqlite --json | jq .entries")]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pub(crate) stored: StoredArgs,

    /// Print one JSON object per tier instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Copy the entries of a farther tier into the nearer one, so that replicas find them there.
///
/// Copies from Postgres to SQLite to Redis, as far as these are given. An entry gets a new time to live in the nearer tier.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce cache warm --cache-redis redis://localhost --cache-sqlite answers.sqlite
  sconce cache warm --cache-redis redis://localhost --cache-postgres postgres://cache@db/answers --max-entries 100000")]
pub(crate) struct WarmArgs {
    #[command(flatten)]
    pub(crate) stored: StoredArgs,

    /// Entries to copy at most
    #[arg(long, value_name = "ENTRIES", value_parser = positive::<NonZeroU64>)]
    pub(crate) max_entries: Option<NonZeroU64>,
}

/// Delete entries: the expired ones, or all.
///
/// Answers of a model or tokenizer that was replaced are never found again, but they take room until they are deleted or
/// expire.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("which").args(["expired", "all"]).required(true))]
#[command(after_long_help = "\
Examples:
  sconce cache purge --expired --cache-postgres postgres://cache@db/answers
  sconce cache purge --all --yes --cache-sqlite answers.sqlite")]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) stored: StoredArgs,

    /// Delete the entries whose time to live is over
    #[arg(long)]
    pub(crate) expired: bool,

    /// Delete every entry; needs --yes
    #[arg(long)]
    pub(crate) all: bool,

    /// Confirm --all
    #[arg(long, requires = "all")]
    pub(crate) yes: bool,
}
