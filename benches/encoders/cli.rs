//! Command line of the bench.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::engine::Engine;
use crate::model::ModelName;
use crate::shape::BatchShape;

const MORE: &str = "\
It needs Python 3 (for ONNX Runtime, its graphs, the f64 reference and the plot; a virtual environment is made below the \
target directory) and, for the model minilm, SCONCE_MINILM. What is missing is left out, and said.

Examples:
  SCONCE_MINILM=DIRECTORY cargo bench -p sconce-benches --features rivals --bench encoders
  … -- --quick                                       does it work, and roughly how fast?
  … -- --model bert-base --threads 1 --shapes 1x128,8x128
  … -- --engines sconce-f32,ort-f32-fused --shapes mixed --rounds 40

How to read it: in the first table, the engine's time is divided into that of ort-f32-fused, which is 1; larger is \
faster. Three figures: by wall time and by CPU time (medians over the rounds, where both engines had the same noise), and \
by the fastest call of each (what is left when every disturbance is taken away). On a busy machine the first is the \
noisiest; more rounds help. With several threads, CPU time counts what helper threads spin. In the second table: \
milliseconds, with the quartiles in brackets; two engines whose quartiles overlap are hardly different.";

/// Compares CPU encoders side by side in one interleaved run: checks every answer, then prints times and ratios.
#[derive(Debug, Parser)]
#[command(name = "encoders", after_long_help = MORE)]
pub(crate) struct Args {
    /// Models to encode with
    #[arg(long, value_enum, value_delimiter = ',', default_value = "minilm", value_name = "MODEL,…")]
    model: Vec<ModelName>,

    /// Threads of each engine
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_name = "N,…")]
    threads: Vec<NonZeroUsize>,

    /// Batches as texts and tokens of each, such as 8x64, or 'mixed': 32 texts of 8 to 128 tokens, which all but Sconce pad to the longest
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = BatchShape::ALL,
        hide_default_value = true,
        value_name = "SHAPE,…"
    )]
    shapes: Vec<BatchShape>,

    /// Engines to compare
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ENGINE,…")]
    engines: Vec<Engine>,

    /// Turns of each engine at each shape. Too few: quartiles mean little; many: hours
    #[arg(long, default_value = "15", value_name = "N", value_parser = positive)]
    rounds: usize,

    /// Length of a turn, of at least three calls. Too short: the processor's clock has not settled; too long: a
    /// disturbance hits one engine alone
    #[arg(long, default_value = "150", value_name = "MILLISECONDS")]
    burst: u64,

    /// Three rounds of 50 ms: minutes, not a measurement to publish
    #[arg(long, conflicts_with_all = ["rounds", "burst"])]
    quick: bool,

    /// Seed of the order in which engines take turns
    #[arg(long, default_value = "1", value_name = "N")]
    seed: u64,

    /// Directory of the tables, the CSV and the plot [default: encoders/ in the target directory]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,

    /// The flag that cargo bench passes
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "a whole number above 0 is wanted".to_owned())
}

/// A comparison to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) models: Vec<ModelName>,
    pub(crate) threads: Vec<NonZeroUsize>,
    pub(crate) shapes: Vec<BatchShape>,
    pub(crate) engines: Vec<Engine>,
    pub(crate) rounds: usize,
    pub(crate) burst_ms: u64,
    pub(crate) min_calls: usize,
    pub(crate) seed: u64,
    /// Directory for files that outlast a run: Python, models, graphs.
    pub(crate) target: PathBuf,
    pub(crate) out: PathBuf,
}

impl Args {
    pub(crate) fn into_plan(self) -> Plan {
        use clap::ValueEnum as _;
        let target = target();
        let all = || Engine::value_variants().to_vec();
        Plan {
            models: self.model,
            threads: self.threads,
            shapes: self.shapes,
            engines: if self.engines.is_empty() { all() } else { self.engines },
            rounds: if self.quick { 3 } else { self.rounds },
            burst_ms: if self.quick { 50 } else { self.burst },
            min_calls: if self.quick { 1 } else { 3 },
            seed: self.seed,
            out: self.out.unwrap_or_else(|| target.clone()),
            target,
        }
    }

    /// A plan that takes seconds and needs only files that ship.
    pub(crate) fn into_smoke_test(self) -> Plan {
        let target = target();
        Plan {
            models: vec![ModelName::EncoderMini],
            threads: vec![NonZeroUsize::MIN],
            shapes: vec![
                BatchShape::Uniform { texts: 1, tokens: 16 },
                BatchShape::Uniform { texts: 4, tokens: 32 },
                BatchShape::Mixed,
            ],
            engines: vec![Engine::SconceF32, Engine::SconceInt8, Engine::Candle],
            rounds: 1,
            burst_ms: 0,
            min_calls: 1,
            seed: self.seed,
            out: self.out.unwrap_or_else(|| target.join("smoke-test")),
            target,
        }
    }
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("encoders")
}
