//! The model families by `model_type`, and how one of them is chosen and told to load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use sconce_kernels::Team;

use crate::settings::MODEL_FIELDS;
use crate::{
    Demand, DeviceName, LoadError, LoadedModel, ModelDirectory, ModelFiles, Precision, Settings, bert, digits_cnn,
    magika,
};

/// One kind of model: how to load a directory whose `config.json` names it.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// What such models do, in a few words.
    pub summary: &'static str,
    /// The precisions that such models have on a device.
    pub precisions: fn(&Device) -> &'static [Precision],
    /// What such a model asks of a device in a precision, told by its configuration without loading it.
    pub demand: fn(&ModelDirectory, Precision) -> Result<Demand, LoadError>,
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

/// What a model would be on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// What it would be computed in.
    pub precision: Precision,
    /// What it asks of the device.
    pub demand: Demand,
    /// What its `sconce.toml` sets, or the defaults.
    pub settings: Settings,
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
        self.load_with_files(directory, options).map(|(model, _)| model)
    }

    /// As [`load`](Self::load), and tells the files that the model was made of.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_files(
        &self,
        directory: &Path,
        options: &LoadOptions,
    ) -> Result<(LoadedModel, ModelFiles), LoadError> {
        let directory = ModelDirectory::new(directory);
        let family = self.family_of(&directory)?;
        let LoadOptions { device, team, .. } = options.clone();
        let precision = family.precision(&directory, options)?;
        let model = (family.load)(&directory, &Target { device, precision, team })?;
        Ok((model, directory.files()))
    }

    /// What the model in a directory would be on a device, told without loading it: its settings, the precision that
    /// [`load`](Self::load) would choose, and what it asks of the device.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for the weights, which are not looked at.
    pub fn survey(&self, directory: &Path, options: &LoadOptions) -> Result<Survey, LoadError> {
        let directory = ModelDirectory::new(directory);
        let family = self.family_of(&directory)?;
        let precision = family.precision(&directory, options)?;
        let settings = directory.settings(&MODEL_FIELDS)?;
        Ok(Survey { precision, demand: (family.demand)(&directory, precision)?, settings })
    }

    /// What the `sconce.toml` of a model sets, or the defaults.
    ///
    /// # Errors
    /// [`LoadError`] if there is no such model, or its settings are wrong.
    pub fn settings(&self, directory: &Path) -> Result<Settings, LoadError> {
        let directory = ModelDirectory::new(directory);
        self.family_of(&directory)?;
        directory.settings(&MODEL_FIELDS)
    }

    fn family_of(&self, directory: &ModelDirectory) -> Result<&Family, LoadError> {
        let model_type = directory.model_type()?;
        self.family(&model_type).ok_or_else(|| LoadError::UnknownModelType {
            path: directory.location().join("config.json"),
            model_type: model_type.clone(),
            known: self.families.keys().map(ToString::to_string).collect(),
        })
    }
}

impl Family {
    /// The first precision that anybody asks for, if such models have it.
    fn precision(&self, directory: &ModelDirectory, options: &LoadOptions) -> Result<Precision, LoadError> {
        // Read even where it decides nothing: a `sconce.toml` that is wrong is an error in every case.
        let settings = directory.settings(&MODEL_FIELDS)?;
        let (precision, path) = match (options.precision, settings.model.precision) {
            (Some(asked), _) => (asked, directory.location().to_owned()),
            (None, Some(set)) => (set, directory.location().join("sconce.toml")),
            (None, None) => (Precision::default(), directory.location().to_owned()),
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
