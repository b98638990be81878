//! The model families by `model_type`, and how one of them is chosen and told to load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use sconce_kernels::Team;

use crate::settings::MODEL_FIELDS;
use crate::{DeviceName, LoadError, LoadedModel, ModelDirectory, Precision, bert, digits_cnn, magika};

/// One kind of model: how to load a directory whose `config.json` names it.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// What such models do, in a few words.
    pub summary: &'static str,
    /// The precisions that such models have on a device.
    pub precisions: fn(&Device) -> &'static [Precision],
    /// Loads both halves of a model. The target's precision is one of `precisions`, and the signature must say it.
    pub load: fn(&ModelDirectory, &Target) -> Result<LoadedModel, LoadError>,
}

/// What whoever loads a model chooses. The default is the CPU with a thread per core, in the model's own precision.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where the network runs.
    pub device: Device,
    /// The precision it is computed in. `None`: what `sconce.toml` says, else f32.
    pub precision: Option<Precision>,
    /// The CPU threads that compute batches; models share them. More than there are cores take turns and gain nothing;
    /// fewer leave cores to others.
    pub team: Arc<Team>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, precision: None, team: Arc::default() }
    }
}

/// Where and how a family's network runs: [`LoadOptions`] with nothing left open.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where the network runs.
    pub device: Device,
    /// The precision it is computed in.
    pub precision: Precision,
    /// The CPU threads that compute batches.
    pub team: Arc<Team>,
}

/// The families that can be loaded.
#[derive(Debug, Clone)]
pub struct Registry {
    families: BTreeMap<&'static str, Family>,
}

impl Default for Registry {
    /// The families of this crate.
    fn default() -> Self {
        let mut registry = Self { families: BTreeMap::new() };
        for family in [bert::FAMILY, digits_cnn::FAMILY, magika::FAMILY] {
            registry.register(family);
        }
        registry
    }
}

impl Registry {
    /// Adds a family, in place of one with the same `model_type` if there is one.
    pub fn register(&mut self, family: Family) {
        self.families.insert(family.model_type, family);
    }

    /// The families, sorted by `model_type`.
    pub fn known(&self) -> impl Iterator<Item = &Family> {
        self.families.values()
    }

    /// The family of that `model_type`.
    #[must_use]
    pub fn family(&self, model_type: &str) -> Option<&Family> {
        self.families.get(model_type)
    }

    /// Loads a model directory by the `model_type` of its `config.json`. Its precision is what `options` ask for, else
    /// what its `sconce.toml` does, else f32.
    ///
    /// # Errors
    /// [`LoadError::UnknownModelType`] and [`LoadError::UnsupportedPrecision`] list what there is; the others name the
    /// file and what is wrong with it.
    pub fn load(&self, directory: &Path, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
        let directory = ModelDirectory::new(directory);
        let model_type = directory.model_type()?;
        let Some(family) = self.family(&model_type) else {
            return Err(LoadError::UnknownModelType {
                path: directory.path().join("config.json"),
                model_type,
                known: self.families.keys().map(ToString::to_string).collect(),
            });
        };
        let LoadOptions { device, team, .. } = options.clone();
        let precision = family.precision(&directory, options)?;
        (family.load)(&directory, &Target { device, precision, team })
    }
}

impl Family {
    /// The first precision that anybody asks for, if such models have it.
    fn precision(&self, directory: &ModelDirectory, options: &LoadOptions) -> Result<Precision, LoadError> {
        // Read even where it decides nothing: a `sconce.toml` that is wrong is an error in every case.
        let settings = directory.settings(&MODEL_FIELDS)?;
        let (precision, path) = match (options.precision, settings.model.precision) {
            (Some(asked), _) => (asked, directory.path().to_owned()),
            (None, Some(set)) => (set, directory.path().join("sconce.toml")),
            (None, None) => (Precision::default(), directory.path().to_owned()),
        };
        let allowed = (self.precisions)(&options.device);
        if allowed.contains(&precision) { Ok(precision) } else { Err(self.unsupported(path, precision, options)) }
    }

    fn unsupported(&self, path: PathBuf, precision: Precision, options: &LoadOptions) -> LoadError {
        LoadError::UnsupportedPrecision {
            path,
            model_type: self.model_type.to_owned(),
            precision,
            device: DeviceName::of(&options.device),
            allowed: (self.precisions)(&options.device).to_vec(),
        }
    }
}
