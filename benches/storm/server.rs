//! The server: its process, and how this process starts and observes it.

use std::ops::Sub;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use sconce::{Model, Runtime};
use sconce_benches::wire::model::{self, Cost};
use sconce_benches::wire::process::{self, ServerProcess, Usage};
use sconce_benches::{Error, wire, zoo};
use serde::{Deserialize, Serialize};

/// The model to serve, as arguments that both processes read.
#[derive(Debug, Clone, Args)]
pub(crate) struct Served {
    /// The model: `first-ten`, whose cost can be chosen, or a model that takes texts, by its name in models/zoo or its directory
    #[arg(long, default_value = wire::message::MODEL, value_name = "MODEL")]
    pub(crate) model: String,

    /// Processor time of a batch of `first-ten`, however small
    #[arg(long, default_value = "2", value_name = "MILLISECONDS")]
    batch_ms: f64,

    /// Processor time of each of its items
    #[arg(long, default_value = "1", value_name = "MILLISECONDS")]
    item_ms: f64,
}

/// A running server, and the build that it is of.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) build: &'static str,
    process: ServerProcess,
}

/// Figures of a server at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) used: Usage,
    pub(crate) figures: Figures,
}

/// Statistics of the queue of the model, and its learned cost.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) admitted: u64,
    pub(crate) dropped: u64,
    pub(crate) cancelled: u64,
    pub(crate) batched: u64,
    pub(crate) batches: u64,
    /// Running time of all batches.
    pub(crate) run: Duration,
    /// Batches of 1, 2, 3–4, 5–8, … items.
    pub(crate) batch_sizes: Vec<u64>,
    pub(crate) fixed: Duration,
    pub(crate) per_weight: Duration,
    pub(crate) margin: Duration,
}

/// The name of `model` in requests.
pub(crate) fn model_name(model: &str) -> &str {
    Path::new(model).file_name().and_then(|name| name.to_str()).unwrap_or(model)
}

/// Serves until standard input ends.
pub(crate) fn run(served: &Served) -> Result<(), Error> {
    // The same runtime as that of `sconce serve`.
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(served))
}

async fn serve(served: &Served) -> Result<(), Error> {
    let directory = tempfile::tempdir()?;
    let runtime = if served.model == wire::message::MODEL {
        let ms = |milliseconds: f64| Duration::try_from_secs_f64(milliseconds / 1000.0);
        model::builder(directory.path(), Cost { batch: ms(served.batch_ms)?, item: ms(served.item_ms)? })?.build()?
    } else {
        let given = PathBuf::from(&served.model);
        Runtime::builder().model(if given.is_dir() { given } else { zoo(&served.model) }).build()?
    };
    let model = runtime.model(model_name(&served.model))?;
    let figures = move || serde_json::to_string(&Figures::of(&model)).unwrap_or_default();
    let listener = process::listen().await?;
    Ok(sconce_grpc::serve(runtime, listener, process::parent(figures)).await?)
}

impl Server {
    /// Runs `command`, this program or another build of it, as a server.
    pub(crate) fn start(mut command: Command, served: &Served, build: &'static str) -> Result<Self, Error> {
        let Served { model, batch_ms, item_ms } = served;
        command.args(["--role", "server", "--model", model]);
        command.args(["--batch-ms", &batch_ms.to_string(), "--item-ms", &item_ms.to_string()]);
        Ok(Self { build, process: ServerProcess::start(&mut command)? })
    }

    pub(crate) fn address(&self) -> &str {
        self.process.address()
    }

    /// Figures of the server since it started.
    pub(crate) fn observe(&self) -> Result<Observed, Error> {
        Ok(Observed { used: self.process.usage()?, figures: serde_json::from_str(&self.process.figures()?)? })
    }
}

impl Figures {
    fn of(model: &Model) -> Self {
        let (stats, cost) = (model.stats(), model.cost());
        Self {
            admitted: stats.admitted,
            dropped: stats.dropped,
            cancelled: stats.cancelled,
            batched: stats.batched,
            batches: stats.batches,
            run: stats.run,
            batch_sizes: stats.batch_sizes.to_vec(),
            fixed: cost.fixed().unwrap_or_default(),
            per_weight: cost.per_weight().unwrap_or_default(),
            margin: cost.margin().unwrap_or_default(),
        }
    }
}

impl Sub for Observed {
    type Output = Self;

    /// The difference from `before`; the learned cost is the one of now.
    fn sub(self, before: Self) -> Self {
        let (now, then) = (self.figures, before.figures);
        let figures = Figures {
            admitted: now.admitted - then.admitted,
            dropped: now.dropped - then.dropped,
            cancelled: now.cancelled - then.cancelled,
            batched: now.batched - then.batched,
            batches: now.batches - then.batches,
            run: now.run.saturating_sub(then.run),
            batch_sizes: now.batch_sizes.iter().zip(&then.batch_sizes).map(|(now, then)| now - then).collect(),
            ..now
        };
        Self { used: self.used - before.used, figures }
    }
}
