//! A model directory as Hugging Face ships it, and the errors of its files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokenizers::Tokenizer;

use crate::checkpoint::Checkpoint;
use crate::files::FileRecorder;
use crate::weights::WeightFile;
use crate::{LoadError, ModelFiles, Settings, Weights, json, sentence_transformers, stand_in, text, weights};

const CONFIG: &str = "config.json";
const SETTINGS: &str = "sconce.toml";

/// A directory with `config.json`, `model.safetensors`, and the other files that a family needs. It records the files
/// that were read or looked for, and their contents ([`files`](Self::files)).
///
/// The encoder of a sentence-transformers model may lie in a folder of the directory, such as `0_Transformer`. Names of
/// files are relative to that folder; [`top`](Self::top) and [`within`](Self::within) give the other folders.
#[derive(Debug, Clone)]
pub struct ModelDirectory {
    path: PathBuf,
    /// The folder below `path` that names of files are relative to: empty, or ending with `/`.
    folder: String,
    record: Arc<FileRecorder>,
}

impl ModelDirectory {
    /// The directory at `path`. Nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { record: Arc::new(FileRecorder::of(path.clone())), folder: String::new(), path }
    }

    /// True if a model is meant to be at `path`: there is a `config.json`, or a `modules.json` that may name its folder.
    #[must_use]
    pub fn is_at(path: &Path) -> bool {
        path.join(CONFIG).is_file() || path.join(sentence_transformers::MODULES).is_file()
    }

    /// The versions of the model that is meant to be at `path`, each in a subdirectory whose name is its number, as in
    /// Triton's model repositories: `minilm/1`, `minilm/2`. None if a model is at `path` itself, or nothing can be listed.
    #[must_use]
    pub fn versions(path: &Path) -> BTreeMap<u64, PathBuf> {
        if Self::is_at(path) {
            return BTreeMap::new();
        }
        let version = |entry: io::Result<std::fs::DirEntry>| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let number: u64 = name.to_str()?.parse().ok()?;
            // One name a number: `1`, not `01`.
            let canonical = number > 0 && name == number.to_string().as_str();
            (canonical && Self::is_at(&entry.path())).then(|| (number, entry.path()))
        };
        std::fs::read_dir(path).into_iter().flatten().filter_map(version).collect()
    }

    /// The directory at `path`, seen from the folder of its encoder, which `modules.json` names if there is one.
    ///
    /// # Errors
    /// [`LoadError`] if `modules.json` is not valid.
    pub fn of_encoder(path: impl Into<PathBuf>) -> Result<Self, LoadError> {
        let top = Self::new(path);
        let folder = sentence_transformers::encoder_folder(&top)?;
        Ok(top.within(&folder))
    }

    /// The same directory, seen from its top.
    #[must_use]
    pub fn top(&self) -> Self {
        Self { folder: String::new(), ..self.clone() }
    }

    /// The same directory, seen from a folder of the one that it is seen from now, such as `1_Pooling`.
    #[must_use]
    pub fn within(&self, folder: &str) -> Self {
        let end = if folder.is_empty() || folder.ends_with('/') { "" } else { "/" };
        Self { folder: format!("{}{folder}{end}", self.folder), ..self.clone() }
    }

    /// True if names of files are relative to the directory itself.
    #[must_use]
    pub fn is_top(&self) -> bool {
        self.folder.is_empty()
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

    /// Reads `config.json` as a family's own struct. Fields that the struct lacks are ignored, and a field that is
    /// `null` counts as missing.
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Invalid`] that names the field.
    pub fn config<C: DeserializeOwned>(&self) -> Result<C, LoadError> {
        let mut fields: serde_json::Map<String, serde_json::Value> = self.json(CONFIG)?;
        fields.retain(|_, value| !value.is_null());
        serde_path_to_error::deserialize(serde_json::Value::Object(fields))
            .map_err(|error| self.invalid(CONFIG, field_and_cause(error.path(), error.inner())))
    }

    /// Reads any JSON file of the directory. A byte order mark is skipped, and Python's `NaN` and `Infinity` are allowed
    /// in fields that are not read.
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Invalid`] that names the field.
    pub fn json<C: DeserializeOwned>(&self, file: &str) -> Result<C, LoadError> {
        let bytes = self.read(file)?;
        let bytes = json::plain(&bytes);
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| self.invalid(file, field_and_cause(error.path(), error.inner())))?;
        json.end().map_err(|error| self.invalid(file, error.to_string()))?;
        Ok(value)
    }

    /// Reads the weights and checks their headers: `model.safetensors` or its parts by `model.safetensors.index.json`,
    /// else `pytorch_model.bin` or its parts.
    ///
    /// # Errors
    /// [`LoadError::Read`], [`LoadError::Invalid`] for an index, or [`LoadError::Weights`] if a file is cut short or is
    /// not of its format.
    pub fn weights(&self) -> Result<Weights, LoadError> {
        let Checkpoint { files, index } = Checkpoint::find(self)?.ok_or_else(|| Checkpoint::missing(self))?;
        let mut read = Vec::new();
        for file in &files {
            let bytes = self.read_unrecorded(file)?;
            let name = self.name(file);
            if bytes.is_empty() {
                return Err(self.invalid(file, "it is empty, as a download that was cut short leaves it"));
            }
            self.record.weights_were_read(&name, &bytes);
            read.push(WeightFile::new(self.path.join(name), bytes)?);
        }
        let named = index.as_ref().map_or(files[0].as_str(), |(index, _)| index);
        let weights = Weights::of_files(self.path.join(self.name(named)), read);
        if let Some((file, tensors)) = &index
            && let Some((tensor, shard)) = tensors.iter().find(|(tensor, _)| !weights.contains(tensor))
        {
            return Err(self.invalid(file, format!("it says that {shard} holds tensor '{tensor}', which it does not")));
        }
        self.record.parameters_are(weights.parameters());
        Ok(weights)
    }

    /// The names of the tensors, without reading them; empty if there are no weights that can be read.
    pub(crate) fn tensor_names(&self) -> Vec<String> {
        let Ok(Some(Checkpoint { files, index })) = Checkpoint::find(self) else { return Vec::new() };
        match index {
            Some((_, tensors)) => tensors.into_keys().collect(),
            None => weights::names(&self.path.join(self.name(&files[0]))),
        }
    }

    /// The number of weights in the weights file, if it was read; else 0.
    pub(crate) fn parameters(&self) -> usize {
        self.record.parameters()
    }

    /// Bytes of all files of weights; 0 if there are none.
    pub(crate) fn weight_bytes(&self) -> u64 {
        let size = |file: &String| std::fs::metadata(self.path.join(self.name(file))).map_or(0, |file| file.len());
        let found = Checkpoint::find(self).ok().flatten();
        found.map_or(0, |checkpoint| checkpoint.files.iter().map(size).sum())
    }

    /// Reads the tokenizer as transformers makes it: of `tokenizer.json`, else of `vocab.txt` or of `vocab.json` with
    /// `merges.txt`; and of `tokenizer_config.json`. Padding and truncation are off.
    ///
    /// # Errors
    /// [`LoadError::Read`] or [`LoadError::Invalid`].
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        text::read_tokenizer(self).map(|files| files.tokenizer)
    }

    /// Reads `sconce.toml`, or gives the defaults if there is none. `used` lists the fields of `[model]` that the family
    /// reads; any other field that is set would do nothing, so it is refused. The file is not among
    /// [`files`](Self::files): the [`Settings`] count, not the bytes.
    ///
    /// # Errors
    /// [`LoadError::Read`], or [`LoadError::Invalid`] that names the field.
    pub fn settings(&self, used: &[&str]) -> Result<Settings, LoadError> {
        if !self.is_top() {
            return self.top().settings(used);
        }
        let file = SETTINGS;
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
        self.record.was_read(&self.name(file), &bytes);
        Ok(bytes)
    }

    /// True if the directory has such a file.
    #[must_use]
    pub fn contains(&self, file: &str) -> bool {
        let name = self.name(file);
        let is_there = self.path.join(&name).exists();
        if is_there {
            self.record.was_there(&name);
        } else {
            self.record.was_not_there(&name);
        }
        is_there
    }

    /// An error about one of the files. The message names the field or position, the value, and the allowed values.
    #[must_use]
    pub fn invalid(&self, file: &str, message: impl Into<String>) -> LoadError {
        // The operator's file is always at the top.
        let path = if file == SETTINGS { self.path.join(file) } else { self.path.join(self.name(file)) };
        LoadError::Invalid { path, message: message.into() }
    }

    /// The path of `config.json`, for error messages only.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.path.join(self.name(CONFIG))
    }

    /// The directory's path, for error messages only.
    pub(crate) fn location(&self) -> &Path {
        &self.path
    }

    /// Reads a file. The caller records its content; a missing file is recorded here, since a family may do without it.
    fn read_unrecorded(&self, file: &str) -> Result<Vec<u8>, LoadError> {
        let name = self.name(file);
        let path = self.path.join(&name);
        let bytes = std::fs::read(&path).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                self.record.was_not_there(&name);
            }
            LoadError::Read { path, source }
        })?;
        match stand_in::found(&bytes) {
            Some(message) => Err(self.invalid(file, message)),
            None => Ok(bytes),
        }
    }

    /// The name of a file, relative to the top of the directory.
    fn name(&self, file: &str) -> String {
        format!("{}{file}", self.folder)
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
