//! The model families by `model_type`.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;

use crate::{LoadError, LoadedModel, ModelDirectory, bert, digits_cnn, magika};

/// One kind of model: how to load a directory whose `config.json` names it.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// What such models do, in a few words.
    pub summary: &'static str,
    /// Loads both halves of a model, the network onto the device.
    pub load: fn(&ModelDirectory, &Device) -> Result<LoadedModel, LoadError>,
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

    /// Loads a model directory by the `model_type` of its `config.json`.
    ///
    /// # Errors
    /// [`LoadError::UnknownModelType`] lists what is known; the others name the file and what is wrong with it.
    pub fn load(&self, directory: &Path, device: &Device) -> Result<LoadedModel, LoadError> {
        let directory = ModelDirectory::new(directory);
        let model_type = directory.model_type()?;
        match self.families.get(model_type.as_str()) {
            Some(family) => (family.load)(&directory, device),
            None => Err(LoadError::UnknownModelType {
                path: directory.path().join("config.json"),
                model_type,
                known: self.families.keys().map(ToString::to_string).collect(),
            }),
        }
    }
}
