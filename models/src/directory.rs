//! A model directory as Hugging Face ships it, and what can be wrong with its files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokenizers::Tokenizer;

use crate::files::Record;
use crate::{LoadError, ModelFiles, Settings, Weights};

const WEIGHTS: &str = "model.safetensors";

/// A directory with `config.json`, `model.safetensors`, and what else a family needs. It takes down which files it was asked for and
/// what they held ([`files`](Self::files)).
#[derive(Debug, Clone)]
pub struct ModelDirectory {
    path: PathBuf,
    record: Arc<Record>,
}

impl ModelDirectory {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { record: Arc::new(Record::of(path.clone())), path }
    }

    /// Where it is, for a family that reads files in other ways than this type offers. From then on every file in the directory
    /// counts as one that the model was made of: a cache of answers digests all of them, whatever their size. A family that
    /// [`read`](Self::read)s its files does not need it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.record.path_was_given();
        &self.path
    }

    /// The files that were asked for so far.
    #[must_use]
    pub fn files(&self) -> ModelFiles {
        self.record.files()
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

    /// `model.safetensors`, its header checked.
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Weights`] if the file is cut short or is no safetensors file.
    pub fn weights(&self) -> Result<Weights, LoadError> {
        let bytes = self.read_unrecorded(WEIGHTS)?;
        self.record.weights_were_read(WEIGHTS, &bytes);
        let weights = Weights::new(self.path.join(WEIGHTS), bytes)?;
        self.record.parameters_are(weights.parameters());
        Ok(weights)
    }

    /// Weights in the files of weights that were read so far.
    pub(crate) fn parameters(&self) -> usize {
        self.record.parameters()
    }

    /// Bytes of the file of weights; 0 if there is none.
    pub(crate) fn weight_bytes(&self) -> u64 {
        std::fs::metadata(self.path.join(WEIGHTS)).map_or(0, |file| file.len())
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
    /// another that is set would do nothing, so it is refused. What it sets counts, not its bytes: see [`Settings`].
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Invalid`] that names the field.
    pub fn settings(&self, used: &[&str]) -> Result<Settings, LoadError> {
        let file = "sconce.toml";
        if !self.path.join(file).exists() {
            return Ok(Settings::default());
        }
        let bytes = self.read_unrecorded(file)?;
        let text = String::from_utf8(bytes).map_err(|error| self.invalid(file, error.to_string()))?;
        let toml = toml::Deserializer::parse(&text).map_err(|error| self.invalid(file, error.to_string()))?;
        let settings: Settings = serde_path_to_error::deserialize(toml)
            .map_err(|error| self.invalid(file, field_and_cause(error.path(), error.inner().message())))?;
        settings.check(used).map_err(|message| self.invalid(file, message))?;
        Ok(settings)
    }

    /// Any file of the directory, or of a directory in it: `1_Pooling/config.json`.
    ///
    /// # Errors
    /// [`LoadError::Read`].
    pub fn read(&self, file: &str) -> Result<Vec<u8>, LoadError> {
        let bytes = self.read_unrecorded(file)?;
        self.record.was_read(file, &bytes);
        Ok(bytes)
    }

    /// Whether the directory has such a file.
    #[must_use]
    pub fn contains(&self, file: &str) -> bool {
        let is_there = self.path.join(file).exists();
        if is_there {
            self.record.was_there(file);
        } else {
            self.record.was_not_there(file);
        }
        is_there
    }

    /// An error about one of the files: the field or position, the value, and what is allowed.
    #[must_use]
    pub fn invalid(&self, file: &str, message: impl Into<String>) -> LoadError {
        LoadError::Invalid { path: self.path.join(file), message: message.into() }
    }

    /// Where it is, for errors.
    pub(crate) fn location(&self) -> &Path {
        &self.path
    }

    /// What is read is for the caller to take down. A file that is not there is taken down here: a family may do without it.
    fn read_unrecorded(&self, file: &str) -> Result<Vec<u8>, LoadError> {
        let path = self.path.join(file);
        std::fs::read(&path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                self.record.was_not_there(file);
            }
            LoadError::Read { path, source }
        })
    }
}

/// A missing field is named in the cause itself, and its path is that of the table around it.
fn field_and_cause(path: &serde_path_to_error::Path, cause: impl std::fmt::Display) -> String {
    match path.to_string().as_str() {
        "." => cause.to_string(),
        field => format!("field '{field}': {cause}"),
    }
}
