//! The command line of `sconce decide`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use sconce::decide::DecisionRecord;
use sconce::{DeviceName, Precision};

use super::ModelsPathArgs;
use super::numbers::{positive, whole};
use crate::decide::{ColumnArg, VariantArg};
use crate::inputs::Format;

/// Decide in which precision and on which device a model should serve: measured, by a policy, on the record.
///
/// Measures every candidate (precision, device, size of batches) on labelled data: its accuracy against f32 on the same
/// examples with a confidence interval (paired bootstrap), its latency and throughput through the real queue, in rounds that
/// take turns, its memory, and what a million requests cost. The policy says how much accuracy may be lost, how slow a request
/// may be, and what machines cost; the cheapest candidate that keeps to it is chosen.
///
/// Writes the decision record decision.json, the page decision.md and the picture decision.svg. Once the approver has signed
/// the record, the model may serve in the precision that was chosen (`ssh-keygen -Y sign`, or --sign-with).
///
/// The columns say what is measured: `input`, `second` and `score` (two texts and how alike people find them) give
/// Spearman's correlation; `query`, `passage` and `label` MAP, MRR and nDCG; `input` and `label` accuracy and macro F1; `input`
/// alone the likeness to f32 (cosine, or agreement of labels). Columns are found by usual names, such as text, sentence1 and
/// sentence2, question and answer, label and score; --column names others.
///
/// Ctrl-C keeps what was measured, and the same command goes on from there.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  sconce decide minilm --data pairs.csv --policy policy.toml
  sconce decide minilm --data stsb-en-dev.csv --header sentence1,sentence2,score --policy policy.toml --precisions int8,q8_0
  sconce decide tiny-bert-sentiment --data test.tsv --header label,rating,source,text --policy policy.toml --out decision
  sconce decide digits-cnn --data test.safetensors --policy policy.toml --max-batch-size 8,32
  sconce decide minilm --data pairs.csv --policy policy.toml --candidate pruned=/models/minilm-pruned
  sconce decide minilm --data pairs.csv --verify decision.json

A policy:
  owner = \"search@example.com\"            # runs the model
  approver = \"cto@example.com\"            # signs the record
  expires = 2027-06-30                    # the last day of the decision
  metric = \"spearman\"                     # or accuracy, macro_f1, map, mrr, ndcg, cosine, agreement
  max_drop = { absolute = 0.005, confidence = 0.95 }   # or relative
  slo_p99_ms = 50
  price_per_hour = { cpu = 0.096, cuda = 2.5 }
  fallback = \"f32\"")]
pub(crate) struct DecideArgs {
    /// A name on the models path, or a model directory
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,

    /// Labelled examples: CSV, TSV, JSON lines, Parquet, or safetensors with one element of each tensor for each example
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,

    /// The policy, in TOML
    #[arg(long, value_name = "FILE", required_unless_present = "verify")]
    pub(crate) policy: Option<PathBuf>,

    /// Format of the data [default: by its name]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,

    /// Names of the columns of a CSV or TSV file that has no header, such as `label,-,text`
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) header: Option<Vec<String>>,

    /// The column of a role (`input`, `second`, `score`, `label`, `query`, `passage`), such as `input=review`; repeatable
    #[arg(long = "column", value_name = "ROLE=NAME")]
    pub(crate) columns: Vec<ColumnArg>,

    /// Precisions to compare beside f32 [default: all that the model has on each device]
    #[arg(long, value_name = "PRECISIONS", value_delimiter = ',')]
    pub(crate) precisions: Vec<Precision>,

    /// Devices to compare; the reference is f32 on the first [default: all of this machine that the policy has a price for]
    #[arg(long, value_name = "DEVICES", value_delimiter = ',')]
    pub(crate) devices: Vec<DeviceName>,

    /// Items per batch at most, each a candidate of its own [default: as the model serves]
    #[arg(long = "max-batch-size", value_name = "ITEMS", value_delimiter = ',', value_parser = batch_size)]
    pub(crate) max_batch_sizes: Vec<NonZeroUsize>,

    /// Also measure the weights in another directory, such as pruned ones; repeatable. They are compared, and never chosen
    #[arg(long = "candidate", value_name = "NAME=DIR")]
    pub(crate) candidates: Vec<VariantArg>,

    /// Directory of the record, the page and the picture [default: the model's]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,

    /// Sign the record with this Ed25519 key in OpenSSH's format
    #[arg(long, value_name = "KEY", conflicts_with = "verify")]
    pub(crate) sign_with: Option<PathBuf>,

    /// Measure again the candidates of this record, and say which figures are within its intervals; the exit status is 1 if
    /// any is not
    #[arg(long, value_name = "RECORD", conflicts_with_all = ["policy", "precisions", "devices", "max_batch_sizes"])]
    pub(crate) verify: Option<PathBuf>,

    /// Seed of the bootstrap and of the order of requests
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = whole::<u64>)]
    pub(crate) seed: u64,

    /// Rounds in which each candidate is timed; with fewer rounds one disturbance spoils more
    #[arg(long, value_name = "ROUNDS", default_value = "7", value_parser = rounds)]
    pub(crate) rounds: NonZeroUsize,

    /// Milliseconds of each candidate in each round, for requests alone and again for full load
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 500, value_parser = turn_ms)]
    pub(crate) turn_ms: u64,

    /// Print the record instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// CPU threads that compute one batch [default: one per core]
    #[arg(long = "cpu-threads", value_name = "THREADS", env = "SCONCE_CPU_THREADS", value_parser = positive::<NonZeroUsize>)]
    pub(crate) threads: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) models: ModelsPathArgs,
}

/// Items of a batch: a request waits for each while a candidate is timed.
fn batch_size(arg: &str) -> Result<NonZeroUsize, String> {
    at_most(arg, DecisionRecord::MAX_BATCH_SIZE)
}

fn rounds(arg: &str) -> Result<NonZeroUsize, String> {
    at_most(arg, 1000)
}

/// A turn is not cut short by a signal.
fn turn_ms(arg: &str) -> Result<u64, String> {
    match whole(arg)? {
        ms if ms <= 60_000 => Ok(ms),
        _ => Err("give at most 60000 milliseconds".to_owned()),
    }
}

fn at_most(arg: &str, max: usize) -> Result<NonZeroUsize, String> {
    match positive::<NonZeroUsize>(arg)? {
        number if number.get() <= max => Ok(number),
        _ => Err(format!("give a whole number from 1 to {max}")),
    }
}
