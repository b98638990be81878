//! The model families by `model_type`, and how one of them is chosen and told to load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::settings::MODEL_FIELDS;
use crate::{
    Blueprint, Demand, Device, Family, Halves, LoadError, LoadedModel, ModelDirectory, ModelFiles, Precision, Settings,
    Signature, Target, backend, bert, digits_cnn, distilbert, magika,
};

/// The device and the precision to load a model for. The default is the CPU with a thread per core, in the model's own precision.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The device that the network runs on.
    pub device: Arc<dyn Device>,
    /// The precision it is computed in. `None`: that of `sconce.toml`, else f32.
    pub precision: Option<Precision>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: backend::cpu(Arc::default()), precision: None }
    }
}

/// A model as it would be on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// The precision it would be computed in.
    pub precision: Precision,
    /// Every precision that it has there.
    pub precisions: Vec<Precision>,
    /// The work and memory that it asks of the device.
    pub demand: Demand,
    /// The settings of its `sconce.toml`, or the defaults.
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
        for family in [bert::FAMILY, digits_cnn::FAMILY, distilbert::FAMILY, magika::FAMILY] {
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

    /// Loads a model directory by the `model_type` of its `config.json`. Its precision is that of `options`, else that of its
    /// `sconce.toml`, else f32.
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
        let Plan { family, blueprint, settings, precision, .. } = self.plan(&directory, options)?;
        let target = Target { device: Arc::clone(&options.device), precision };
        let Halves { input, task, processor, network } = blueprint.load(&directory, &target)?;
        let signature = Signature {
            model_type: family.model_type.to_owned(),
            input,
            task,
            precision,
            device: options.device.capability().device,
            parameters: directory.parameters(),
        };
        Ok((LoadedModel { signature, processor, network, settings }, directory.files()))
    }

    /// A model as it would be on a device, told without loading it: its settings, its precisions, and the one that
    /// [`load`](Self::load) would choose, and the work and memory that it asks of the device.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for the weights, which are not read.
    pub fn survey(&self, directory: &Path, options: &LoadOptions) -> Result<Survey, LoadError> {
        let directory = ModelDirectory::new(directory);
        let Plan { blueprint, settings, precision, precisions, .. } = self.plan(&directory, options)?;
        let derived = || Demand::of_weights(directory.weight_bytes());
        let demand = blueprint.demand(precision).unwrap_or_else(derived);
        Ok(Survey { precision, precisions, demand, settings })
    }

    /// The settings of a model's `sconce.toml`, or the defaults.
    ///
    /// # Errors
    /// [`LoadError`] if there is no such model, or its settings are wrong.
    pub fn settings(&self, directory: &Path) -> Result<Settings, LoadError> {
        let directory = ModelDirectory::new(directory);
        self.family_of(&directory)?;
        directory.settings(&MODEL_FIELDS)
    }

    /// Everything that is decided of a model before its weights are read.
    fn plan(&self, directory: &ModelDirectory, options: &LoadOptions) -> Result<Plan<'_>, LoadError> {
        let family = self.family_of(directory)?;
        // `sconce.toml` is read even where it decides nothing: one that is wrong is an error in every case.
        let all = directory.settings(&MODEL_FIELDS)?;
        let blueprint = (family.read)(directory)?;
        let (asked, path) = match (options.precision, all.model.precision) {
            (Some(asked), _) => (asked, directory.location().to_owned()),
            (None, Some(set)) => (set, directory.location().join("sconce.toml")),
            (None, None) => (Precision::default(), directory.location().to_owned()),
        };
        let precisions = blueprint.precisions(&*options.device);
        let precision = family.offered(asked, path, &precisions, &*options.device)?;
        let settings = directory.settings(blueprint.settings())?;
        Ok(Plan { family, blueprint, settings, precision, precisions })
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

struct Plan<'a> {
    family: &'a Family,
    blueprint: Box<dyn Blueprint>,
    settings: Settings,
    precision: Precision,
    precisions: Vec<Precision>,
}

impl Family {
    /// The precision that is asked for, if it is among those that there are.
    fn offered(
        &self,
        asked: Precision,
        path: PathBuf,
        precisions: &[Precision],
        device: &dyn Device,
    ) -> Result<Precision, LoadError> {
        if precisions.contains(&asked) {
            return Ok(asked);
        }
        Err(LoadError::UnsupportedPrecision {
            path,
            model_type: self.model_type.to_owned(),
            precision: asked,
            device: device.capability().device,
            allowed: precisions.to_vec(),
        })
    }
}
