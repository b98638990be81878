//! The command lines of what outlives a server: precomputed answers, and the tiers that hold them.

use std::num::NonZeroU64;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use std::path::PathBuf;

use clap::Subcommand;

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
/// Reads one input a row: JSON lines (a string, or an object with a field), CSV or TSV with a header, Parquet, or plain
/// lines. What the database has is not computed again, so a run that was stopped or killed goes on where it was by the same
/// command, and nothing is done twice. An answer belongs to the content of the model's files, to its name and to its
/// precision: give those that will be served.
///
/// A bad input is told and passed over, the others go on, and the exit status is 1. Ctrl-C finishes what was begun, and the exit
/// status is 130.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce precompute --model minilm --cache-sqlite answers.sqlite products.jsonl --column title
  sconce precompute --model minilm --precision int8 --cache-sqlite answers.sqlite texts.parquet
  psql -c '…' | sconce precompute --model minilm --cache-postgres postgres://cache@db/answers --format csv -
  sconce serve --model minilm --cache-sqlite answers.sqlite")]
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) struct PrecomputeArgs {
    /// A name on the models path (see `sconce models`), or a model directory
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,

    /// What to read; `-` or nothing is standard input, as JSON lines unless --format says otherwise
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// What the files hold [default: by their names]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,

    /// The field or column that holds the input
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) column: String,

    /// Refuse a text of more tokens than the model takes, rather than cut its end; found by requests that refuse, too
    #[arg(long)]
    pub(crate) no_truncate: bool,

    /// Say at the end what was done as one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) database: DatabaseArgs,

    #[command(flatten)]
    pub(crate) how: OneModelArgs,

    #[command(flatten)]
    pub(crate) batching: BatchingArgs,
}

/// Look into the tiers of cache that outlive a process, copy from one to another, delete.
///
/// A database that is not there is an error; none is made but by `warm`, to copy into.
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

    /// One JSON object a tier instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Copy what a farther tier holds into the nearer one, so that replicas find it there.
///
/// From Postgres to SQLite to Redis, as far as they are given. Entries in a nearer tier are given a new time to live there.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce cache warm --cache-redis redis://localhost --cache-sqlite answers.sqlite
  sconce cache warm --cache-redis redis://localhost --cache-postgres postgres://cache@db/answers --max-entries 100000")]
pub(crate) struct WarmArgs {
    #[command(flatten)]
    pub(crate) stored: StoredArgs,

    /// Copy no more than so many
    #[arg(long, value_name = "ENTRIES", value_parser = positive::<NonZeroU64>)]
    pub(crate) max_entries: Option<NonZeroU64>,
}

/// Delete entries: those whose time is over, or all.
///
/// Answers of a model or tokenizer that was replaced are never found again, but they take room until they are deleted or
/// their time is over.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce cache purge --expired --cache-postgres postgres://cache@db/answers
  sconce cache purge --all --yes --cache-sqlite answers.sqlite")]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    pub(crate) stored: StoredArgs,

    /// Those whose time is over
    #[arg(long, required_unless_present = "all")]
    pub(crate) expired: bool,

    /// Every entry
    #[arg(long, conflicts_with = "expired")]
    pub(crate) all: bool,

    /// Mean it, with --all
    #[arg(long, requires = "all")]
    pub(crate) yes: bool,
}
