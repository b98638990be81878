//! A model directory as Hugging Face ships it, and the errors of its files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokenizers::Tokenizer;

use crate::files::FileRecorder;
use crate::{LoadError, ModelFiles, Settings, Weights};

const WEIGHTS: &str = "model.safetensors";

/// A directory with `config.json`, `model.safetensors`, and the other files that a family needs. It records the files
/// that were read or looked for, and their contents ([`files`](Self::files)).
#[derive(Debug, Clone)]
pub struct ModelDirectory {
    path: PathBuf,
    record: Arc<FileRecorder>,
}

impl ModelDirectory {
    /// The directory at `path`. Nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { record: Arc::new(FileRecorder::of(path.clone())), path }
    }

    /// The directory's path, for a family that reads files in ways that this type does not offer. From then on the model
    /// counts as made of every file in the directory, and a cache of answers digests them all, whatever their size. A
    /// family that uses [`read`](Self::read) does not need the path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.record.path_was_given();
        &self.path
    }

    /// The files that were read or looked for so far.
    #[must_use]
    pub fn files(&self) -> ModelFiles {
        self.record.files()
    }

    /// Reads `model_type` of `config.json`, which chooses the family.
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

    /// Reads `config.json` as a family's own struct. Fields that the struct lacks are ignored.
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Invalid`] that names the field.
    pub fn config<C: DeserializeOwned>(&self) -> Result<C, LoadError> {
        self.json("config.json")
    }

    /// Reads any JSON file of the directory.
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

    /// Reads `model.safetensors` and checks its header.
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Weights`] if the file is cut short or is not a safetensors file.
    pub fn weights(&self) -> Result<Weights, LoadError> {
        let bytes = self.read_unrecorded(WEIGHTS)?;
        self.record.weights_were_read(WEIGHTS, &bytes);
        let weights = Weights::new(self.path.join(WEIGHTS), bytes)?;
        self.record.parameters_are(weights.parameters());
        Ok(weights)
    }

    /// The number of weights in the weights file, if it was read; else 0.
    pub(crate) fn parameters(&self) -> usize {
        self.record.parameters()
    }

    /// Bytes of the weights file; 0 if there is none.
    pub(crate) fn weight_bytes(&self) -> u64 {
        std::fs::metadata(self.path.join(WEIGHTS)).map_or(0, |file| file.len())
    }

    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`LoadError::Read`] or [`LoadError::Invalid`].
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        let file = "tokenizer.json";
        Tokenizer::from_bytes(self.read(file)?).map_err(|error| self.invalid(file, error.to_string()))
    }

    /// Reads `sconce.toml`, or gives the defaults if there is none. `used` lists the fields of `[model]` that the family
    /// reads; any other field that is set would do nothing, so it is refused. The file is not among
    /// [`files`](Self::files): the [`Settings`] count, not the bytes.
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

    /// Reads any file of the directory or its subdirectories, such as `1_Pooling/config.json`.
    ///
    /// # Errors
    /// [`LoadError::Read`].
    pub fn read(&self, file: &str) -> Result<Vec<u8>, LoadError> {
        let bytes = self.read_unrecorded(file)?;
        self.record.was_read(file, &bytes);
        Ok(bytes)
    }

    /// True if the directory has such a file.
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

    /// An error about one of the files. The message names the field or position, the value, and the allowed values.
    #[must_use]
    pub fn invalid(&self, file: &str, message: impl Into<String>) -> LoadError {
        LoadError::Invalid { path: self.path.join(file), message: message.into() }
    }

    /// The directory's path, for error messages only.
    pub(crate) fn location(&self) -> &Path {
        &self.path
    }

    /// Reads a file. The caller records its content; a missing file is recorded here, since a family may do without it.
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

/// The path of a field and the cause. For a missing field, the cause names it, and the path is that of the table around
/// it.
fn field_and_cause(path: &serde_path_to_error::Path, cause: impl std::fmt::Display) -> String {
    match path.to_string().as_str() {
        "." => cause.to_string(),
        field => format!("field '{field}': {cause}"),
    }
}
