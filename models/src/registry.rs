//! The registry of model families by `model_type`: it chooses a family and a precision, and loads models.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::inferred::ModelType;
use crate::settings::MODEL_FIELDS;
use crate::{
    Blueprint, Demand, Device, Family, Halves, LoadError, LoadedModel, ModelDirectory, ModelFiles, Precision, Settings,
    Signature, Target, albert, backend, bert, digits_cnn, distilbert, electra, excerpt, gte, magika, modernbert, mpnet,
    nomic_bert, qwen3, roberta,
};

/// The device and the precision to load a model for. The default is the CPU with a thread per core, and no precision.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The device that the network runs on.
    pub device: Arc<dyn Device>,
    /// The precision that the network is computed in. `None`: that of `sconce.toml`, else f32.
    pub precision: Option<Precision>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: backend::cpu(Arc::default()), precision: None }
    }
}

/// The properties that a model would have on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// The family.
    pub model_type: &'static str,
    /// The place in the directory that the family was inferred from, in words; `None` if `config.json` names it.
    pub inferred_from: Option<&'static str>,
    /// The precision that it would be computed in.
    pub precision: Precision,
    /// All precisions that it has on the device.
    pub precisions: Vec<Precision>,
    /// The memory and operations that it would need.
    pub demand: Demand,
    /// The settings of its `sconce.toml`, or the defaults.
    pub settings: Settings,
}

/// The families of this crate.
const FAMILIES: [Family; 15] = [
    albert::FAMILY,
    bert::FAMILY,
    digits_cnn::FAMILY,
    distilbert::FAMILY,
    electra::FAMILY,
    gte::GTE,
    gte::NEW,
    magika::FAMILY,
    modernbert::FAMILY,
    mpnet::FAMILY,
    nomic_bert::FAMILY,
    qwen3::FAMILY,
    roberta::CAMEMBERT,
    roberta::ROBERTA,
    roberta::XLM_ROBERTA,
];

/// The known families, by `model_type`.
#[derive(Debug, Clone)]
pub struct Registry {
    families: BTreeMap<&'static str, Family>,
}

impl Default for Registry {
    /// The families of this crate.
    fn default() -> Self {
        let mut registry = Self { families: BTreeMap::new() };
        for family in FAMILIES {
            registry.register(family);
        }
        registry
    }
}

/// The message of a panic, if it has one.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.map_or_else(|| "no message".to_owned(), |text| excerpt(text).to_string())
}

impl Registry {
    /// Adds a family. It replaces one with the same `model_type`.
    pub fn register(&mut self, family: Family) {
        self.families.insert(family.model_type, family);
    }

    /// The families, sorted by `model_type`.
    pub fn known(&self) -> impl Iterator<Item = &Family> {
        self.families.values()
    }

    /// The family of a `model_type`.
    #[must_use]
    pub fn family(&self, model_type: &str) -> Option<&Family> {
        self.families.get(model_type)
    }

    /// Loads a model directory with the family of its `model_type` in `config.json`. The precision is that of `options`,
    /// else that of `sconce.toml`, else f32.
    ///
    /// # Errors
    /// [`LoadError::UnknownModelType`] lists the known families, [`LoadError::UnsupportedPrecision`] the precisions of
    /// the model; the others name the file and its fault.
    pub fn load(&self, directory: &Path, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
        self.load_with_files(directory, options).map(|(model, _)| model)
    }

    /// As [`load`](Self::load), and returns the files that the model was made of.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_files(
        &self,
        directory: &Path,
        options: &LoadOptions,
    ) -> Result<(LoadedModel, ModelFiles), LoadError> {
        let directory = ModelDirectory::of_encoder(directory)?;
        let LoadPlan { family, blueprint, settings, precision, .. } = self.plan(&directory, options)?;
        let target = Target { device: Arc::clone(&options.device), precision };
        // One model that panics leaves the others to be loaded.
        let load = || blueprint.load(&directory, &target);
        let loaded = panic::catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| {
            Err(LoadError::Panicked { path: directory.location().to_owned(), message: panic_message(&*panic) })
        });
        let Halves { input, task, processor, network } = loaded?;
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

    /// The properties that a model would have on a device, without loading it: settings, precisions, the precision that
    /// [`load`](Self::load) would choose, memory and operations.
    ///
    /// # Errors
    /// As [`load`](Self::load), except for errors of the weights, which are not read.
    pub fn survey(&self, directory: &Path, options: &LoadOptions) -> Result<Survey, LoadError> {
        let directory = ModelDirectory::of_encoder(directory)?;
        let LoadPlan { family, blueprint, settings, precision, precisions, inferred_from } =
            self.plan(&directory, options)?;
        let derived = || Demand::of_weights(directory.weight_bytes());
        let demand = blueprint.demand(precision).unwrap_or_else(derived);
        Ok(Survey { model_type: family.model_type, inferred_from, precision, precisions, demand, settings })
    }

    /// The settings of a model's `sconce.toml`, or the defaults.
    ///
    /// # Errors
    /// [`LoadError`] if there is no such model, or its settings are invalid.
    pub fn settings(&self, directory: &Path) -> Result<Settings, LoadError> {
        let directory = ModelDirectory::of_encoder(directory)?;
        self.family_of(&directory)?;
        directory.settings(&MODEL_FIELDS)
    }

    /// Makes all decisions about a model that come before its weights are read.
    fn plan(&self, directory: &ModelDirectory, options: &LoadOptions) -> Result<LoadPlan<'_>, LoadError> {
        let (family, inferred_from) = self.family_of(directory)?;
        // `sconce.toml` is checked even if `options` override it: an invalid one is always an error.
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
        Ok(LoadPlan { family, blueprint, settings, precision, precisions, inferred_from })
    }

    fn family_of(&self, directory: &ModelDirectory) -> Result<(&Family, Option<&'static str>), LoadError> {
        let known: Vec<&'static str> = self.families.keys().copied().collect();
        let ModelType { name, inferred_from } = ModelType::read(directory, &known)?;
        match self.family(&name) {
            Some(family) => Ok((family, inferred_from)),
            None => Err(LoadError::UnknownModelType {
                path: directory.config_path(),
                model_type: name,
                known: known.iter().map(ToString::to_string).collect(),
            }),
        }
    }
}

struct LoadPlan<'a> {
    family: &'a Family,
    blueprint: Box<dyn Blueprint>,
    settings: Settings,
    precision: Precision,
    precisions: Vec<Precision>,
    inferred_from: Option<&'static str>,
}

impl Family {
    /// The precision `asked`, if it is one of `precisions`. `path` is the file or directory that an error names.
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
