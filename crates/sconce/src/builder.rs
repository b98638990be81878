//! From directories to a running runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;
use sconce_batch::BatcherConfig;
use sconce_models::{BatchingSettings, Registry};

use crate::prepare::PreparePool;
use crate::{BuildError, Model, Runtime};

/// Says which models a [`Runtime`] runs and how.
#[derive(Default)]
pub struct RuntimeBuilder {
    sources: Vec<Source>,
    registry: Registry,
    batching: BatcherConfig,
}

enum Source {
    Model {
        name: Option<String>,
        directory: PathBuf,
    },
    /// A directory of model directories.
    Directory(PathBuf),
}

impl RuntimeBuilder {
    /// Adds the model in `directory`, named by the directory's last component.
    #[must_use]
    pub fn model(mut self, directory: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::Model { name: None, directory: directory.into() });
        self
    }

    /// Adds the model in `directory` under another name.
    #[must_use]
    pub fn named_model(mut self, name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::Model { name: Some(name.into()), directory: directory.into() });
        self
    }

    /// Adds every model in `directory`: each subdirectory that holds a `config.json`.
    #[must_use]
    pub fn models_in(mut self, directory: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::Directory(directory.into()));
        self
    }

    /// Replaces the built-in model families.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Bounds of each model's queue and batches, where its `sconce.toml` sets nothing else.
    #[must_use]
    pub fn batching(mut self, batching: BatcherConfig) -> Self {
        self.batching = batching;
        self
    }

    /// Loads the models, one after the other, and starts a device thread for each.
    ///
    /// # Errors
    /// [`BuildError`] for the first model that does not load, a name taken twice, a value out of bounds, or no model.
    pub fn build(self) -> Result<Runtime, BuildError> {
        let pool = PreparePool::new();
        let mut models = BTreeMap::new();
        for (name, directory) in self.directories()? {
            let started = Instant::now();
            let loaded = self
                .registry
                .load(&directory, &Device::Cpu)
                .map_err(|source| BuildError::Load { name: name.clone(), source: Box::new(source) })?;
            let batching = with_settings(&self.batching, &loaded.settings.batching);
            let load_time = started.elapsed();
            tracing::info!(model = name, ?load_time, parameters = loaded.signature.parameters, "loaded");
            let model = Model::start(name.clone(), directory, loaded, load_time, batching, pool.clone())?;
            models.insert(name, model);
        }
        if models.is_empty() {
            return Err(BuildError::NoModel);
        }
        Ok(Runtime::new(models))
    }

    /// Every model's name with its directory, before anything is loaded: a clash is found in no time.
    fn directories(&self) -> Result<BTreeMap<String, PathBuf>, BuildError> {
        let mut directories = BTreeMap::new();
        let mut add = |name: String, directory: PathBuf| match directories.insert(name.clone(), directory.clone()) {
            None => Ok(()),
            Some(first) => Err(BuildError::DuplicateName { name, first, second: directory }),
        };
        for source in &self.sources {
            match source {
                Source::Model { name: Some(name), directory } => add(name.clone(), directory.clone())?,
                Source::Model { name: None, directory } => add(last_component(directory)?, directory.clone())?,
                Source::Directory(path) => {
                    for directory in model_directories(path)? {
                        add(last_component(&directory)?, directory)?;
                    }
                }
            }
        }
        Ok(directories)
    }
}

fn model_directories(path: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let failed = |source| BuildError::List { path: path.to_owned(), source };
    let mut directories = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let directory = entry.map_err(failed)?.path();
        if directory.join("config.json").is_file() {
            directories.push(directory);
        }
    }
    Ok(directories)
}

fn last_component(directory: &Path) -> Result<String, BuildError> {
    directory
        .file_name()
        .and_then(|name| name.to_str())
        .map(str::to_owned)
        .ok_or_else(|| BuildError::NoName { path: directory.to_owned() })
}

/// What a model's `sconce.toml` sets goes before the runtime's defaults.
fn with_settings(defaults: &BatcherConfig, settings: &BatchingSettings) -> BatcherConfig {
    let BatchingSettings { max_batch_size, max_batch_weight, max_queue_size, max_queue_weight, max_queue_delay_us } =
        *settings;
    BatcherConfig {
        max_batch_size: max_batch_size.unwrap_or(defaults.max_batch_size),
        max_batch_weight: max_batch_weight.unwrap_or(defaults.max_batch_weight),
        max_queue_size: max_queue_size.unwrap_or(defaults.max_queue_size),
        max_queue_weight: max_queue_weight.unwrap_or(defaults.max_queue_weight),
        max_queue_delay: max_queue_delay_us.map_or(defaults.max_queue_delay, Duration::from_micros),
    }
}
