//! The models path: a list of directories of model directories, of which the first match wins.

use std::collections::HashSet;
use std::env;
use std::path::{Path, PathBuf};

use sconce::models::ModelDirectory;

use crate::args::ModelsPathArgs;
use crate::error::Error;

/// Directories of model directories, in the order of the search.
#[derive(Debug)]
pub(crate) struct ModelsPath {
    directories: Vec<PathBuf>,
    /// Set if the user named these directories; one that is absent is then an error.
    named: bool,
}

/// A model directory and the model's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundModel {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
}

impl FoundModel {
    /// The directory of the highest version, if there are versions, else the model's.
    pub(crate) fn newest(&self) -> PathBuf {
        ModelDirectory::versions(&self.directory)
            .pop_last()
            .map_or_else(|| self.directory.clone(), |(_, newest)| newest)
    }
}

impl ModelsPath {
    /// The directories of the flags, else of `SCONCE_MODELS`, else the zoo and the directory that `pull` fills.
    pub(crate) fn new(args: &ModelsPathArgs) -> Self {
        if !args.directories.is_empty() {
            return Self { directories: args.directories.clone(), named: true };
        }
        if let Some(list) = env::var_os("SCONCE_MODELS").filter(|list| !list.is_empty()) {
            let directories = env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
            return Self { directories, named: true };
        }
        Self { directories: zoo().into_iter().chain(pull_directory()).collect(), named: false }
    }

    /// The model of that name on the path, else the model directory of that path.
    pub(crate) fn find(&self, model: &str) -> Result<FoundModel, Error> {
        // Names have no separator; `Path::join` with one could leave the directory.
        if !model.contains(std::path::is_separator) && !model.starts_with('.') {
            let directories = self.directories.iter().map(|directory| directory.join(model));
            if let Some(directory) = directories.into_iter().find(|directory| is_model(directory)) {
                return Ok(FoundModel { name: model.to_owned(), directory });
            }
        }
        let directory = Path::new(model);
        if directory.is_dir() {
            return Ok(FoundModel { name: name_of(directory), directory: directory.to_owned() });
        }
        let known = self.list()?.into_iter().map(|found| found.name).collect();
        Err(Error::UnknownModel { name: model.to_owned(), known, searched: self.directories.clone() })
    }

    /// Does what [`find`](Self::find) does for several models, each of which may also be NAME=DIR; two of the same name are an
    /// error.
    pub(crate) fn find_all(&self, models: &[String]) -> Result<Vec<FoundModel>, Error> {
        let mut all: Vec<FoundModel> = Vec::new();
        for model in models {
            let found = self.find_named(model)?;
            if let Some(FoundModel { name, directory: first }) = all.iter().find(|other| other.name == found.name) {
                let (name, first) = (name.clone(), first.clone());
                return Err(Error::ModelTwice { name, first, second: found.directory });
            }
            all.push(found);
        }
        Ok(all)
    }

    /// The model that `model` names, or, if it is none and has a `=`, the model NAME in DIR.
    fn find_named(&self, model: &str) -> Result<FoundModel, Error> {
        let found = self.find(model);
        let Some((name, directory)) = model.split_once('=').filter(|(name, _)| found.is_err() && !name.is_empty())
        else {
            return found;
        };
        let directory = PathBuf::from(directory);
        if !directory.is_dir() {
            return Err(Error::NoModelDirectory { name: name.to_owned(), directory });
        }
        Ok(FoundModel { name: name.to_owned(), directory })
    }

    /// Every model on the path, sorted by name.
    pub(crate) fn list(&self) -> Result<Vec<FoundModel>, Error> {
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        for directory in &self.directories {
            if !self.named && !directory.exists() {
                continue;
            }
            if ModelDirectory::is_at(directory) {
                return Err(Error::ModelInsteadOfModels { path: directory.clone() });
            }
            all.extend(models_in(directory)?.into_iter().filter(|found| seen.insert(found.name.clone())));
        }
        all.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(all)
    }

    /// Does what [`list`](Self::list) does; an empty list is an error.
    pub(crate) fn list_some(&self) -> Result<Vec<FoundModel>, Error> {
        let all = self.list()?;
        if all.is_empty() {
            return Err(Error::NoModel { searched: self.directories.clone() });
        }
        Ok(all)
    }
}

/// The directory that `sconce pull` fills; `None` if the user has no home directory.
pub(crate) fn pull_directory() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = set("SCONCE_HOME") {
        return Some(home.join("models"));
    }
    // The XDG specification says to pass over a relative path.
    let data = set("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data = data.or_else(|| env::home_dir().map(|home| home.join(".local").join("share")));
    data.map(|data| data.join("sconce").join("models"))
}

/// `models/zoo` of the checkout around the current directory, else of the checkout around this executable.
fn zoo() -> Option<PathBuf> {
    let upwards =
        |from: &Path| from.ancestors().map(|directory| directory.join("models").join("zoo")).find(|zoo| zoo.is_dir());
    let here = env::current_dir().ok();
    let built = env::current_exe().ok();
    here.as_deref().and_then(upwards).or_else(|| built.as_deref().and_then(upwards))
}

fn models_in(directory: &Path) -> Result<Vec<FoundModel>, Error> {
    let unreadable = |source| Error::ModelsDirectory { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in directory.read_dir().map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = name_of(&path);
        // Names with a leading dot: unfinished downloads of `pull`, and files of other tools.
        if !name.starts_with('.') && is_model(&path) {
            found.push(FoundModel { name, directory: path });
        }
    }
    Ok(found)
}

/// Returns true if the directory is meant to be a model, or to hold versions of one; one with weights and no `config.json` is
/// a broken model.
fn is_model(directory: &Path) -> bool {
    ModelDirectory::is_at(directory)
        || directory.join("model.safetensors").is_file()
        || !ModelDirectory::versions(directory).is_empty()
}

fn name_of(directory: &Path) -> String {
    // `.` and `..` have no last component of their own.
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    name(directory)
        .or_else(|| directory.canonicalize().ok().as_deref().and_then(name))
        .unwrap_or_else(|| directory.to_string_lossy().into_owned())
}
