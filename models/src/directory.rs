//! A model directory as Hugging Face ships it, and what can be wrong with its files.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::de::DeserializeOwned;
use tokenizers::Tokenizer;

use crate::{LoadError, Settings, Weights};

/// A directory with `config.json`, `model.safetensors`, and what else a family needs.
#[derive(Debug, Clone)]
pub struct ModelDirectory {
    path: PathBuf,
}

impl ModelDirectory {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `model_type` of `config.json`, which chooses the family.
    ///
    /// # Errors
    /// [`LoadError::Read`] or [`LoadError::Invalid`].
    pub fn model_type(&self) -> Result<String, LoadError> {
        #[derive(serde::Deserialize)]
        struct Typed {
            model_type: String,
        }
        self.config::<Typed>().map(|config| config.model_type)
    }

    /// `config.json` as a family's own struct. Fields that the struct does not know are passed over.
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Invalid`] that names the field.
    pub fn config<C: DeserializeOwned>(&self) -> Result<C, LoadError> {
        self.json("config.json")
    }

    /// Any JSON file of the directory.
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Invalid`] that names the field.
    pub fn json<C: DeserializeOwned>(&self, file: &str) -> Result<C, LoadError> {
        let bytes = self.read(file)?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| self.invalid(file, field_and_cause(error.path(), error.inner())))?;
        json.end().map_err(|error| self.invalid(file, error.to_string()))?;
        Ok(value)
    }

    /// `model.safetensors`, its header checked. Tensors come to `device` one by one as a family asks for them.
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Weights`] if the file is cut short or is no safetensors file.
    pub fn weights(&self, device: &Device) -> Result<Weights, LoadError> {
        let file = "model.safetensors";
        Weights::new(self.path.join(file), self.read(file)?, device)
    }

    /// `tokenizer.json`.
    ///
    /// # Errors
    /// [`LoadError::Read`] or [`LoadError::Invalid`].
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        let file = "tokenizer.json";
        Tokenizer::from_bytes(self.read(file)?).map_err(|error| self.invalid(file, error.to_string()))
    }

    /// `sconce.toml`, or the defaults where there is none. `used` lists the fields of `[model]` that the family reads;
    /// another that is set would do nothing, so it is refused.
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Invalid`] that names the field.
    pub fn settings(&self, used: &[&str]) -> Result<Settings, LoadError> {
        let file = "sconce.toml";
        if !self.contains(file) {
            return Ok(Settings::default());
        }
        let text = String::from_utf8(self.read(file)?).map_err(|error| self.invalid(file, error.to_string()))?;
        let toml = toml::Deserializer::parse(&text).map_err(|error| self.invalid(file, error.to_string()))?;
        let settings: Settings = serde_path_to_error::deserialize(toml)
            .map_err(|error| self.invalid(file, field_and_cause(error.path(), error.inner().message())))?;
        settings.check(used).map_err(|message| self.invalid(file, message))?;
        Ok(settings)
    }

    /// Whether the directory has such a file.
    #[must_use]
    pub fn contains(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }

    /// An error about one of the files: the field or position, the value, and what is allowed.
    #[must_use]
    pub fn invalid(&self, file: &str, message: impl Into<String>) -> LoadError {
        LoadError::Invalid { path: self.path.join(file), message: message.into() }
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, LoadError> {
        let path = self.path.join(file);
        std::fs::read(&path).map_err(|source| LoadError::Read { path, source })
    }
}

/// A missing field is named in the cause itself, and its path is that of the table around it.
fn field_and_cause(path: &serde_path_to_error::Path, cause: impl std::fmt::Display) -> String {
    match path.to_string().as_str() {
        "." => cause.to_string(),
        field => format!("field '{field}': {cause}"),
    }
}
