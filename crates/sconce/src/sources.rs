//! The models that a runtime may load, by name and version, as its directories list them right now.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sconce_models::ModelDirectory;
use walkdir::WalkDir;

use crate::{BuildError, ModelSource};

/// Most files of a model directory that are looked at to see if it changed.
const MAX_FILES: usize = 10_000;
/// Deepest folder of a model directory that is looked at.
const MAX_DEPTH: usize = 16;

/// The sources of models by name and version.
pub(crate) type NamedSources = BTreeMap<String, BTreeMap<u64, ModelSource>>;

/// Lists sources of models; its errors are for people.
pub(crate) type ListSources =
    dyn Fn() -> Result<Vec<ModelSource>, Box<dyn std::error::Error + Send + Sync>> + Send + Sync;

/// The choice of versions to serve, where a model's directory has several: folders whose names are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VersionPolicy {
    /// The highest numbers, this many of them.
    Latest(NonZeroUsize),
    /// All versions.
    All,
}

impl Default for VersionPolicy {
    /// The highest number alone.
    fn default() -> Self {
        Self::Latest(NonZeroUsize::MIN)
    }
}

impl VersionPolicy {
    fn chosen(self, versions: BTreeMap<u64, PathBuf>) -> impl Iterator<Item = (u64, PathBuf)> {
        let count = match self {
            Self::Latest(count) => count.get(),
            Self::All => usize::MAX,
        };
        versions.into_iter().rev().take(count)
    }
}

/// Models as they were added, one or many at a time.
pub(crate) enum AddedModels {
    Model(Box<ModelSource>),
    /// A directory that holds model directories.
    Directory(PathBuf),
    /// Models that a function lists.
    Listed(Box<ListSources>),
}

/// The sources of a runtime.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) added: Vec<AddedModels>,
    pub(crate) policy: VersionPolicy,
}

impl Sources {
    /// All sources by name and version, listed anew.
    pub(crate) fn named(&self) -> Result<NamedSources, BuildError> {
        let mut named = NamedSources::new();
        for added in &self.added {
            match added {
                AddedModels::Model(source) => self.add(source, &mut named)?,
                AddedModels::Directory(path) => {
                    for directory in model_directories(path)? {
                        self.add(&ModelSource::new(directory), &mut named)?;
                    }
                }
                AddedModels::Listed(list) => {
                    for source in list().map_err(|source| BuildError::Sources { source })? {
                        self.add(&source, &mut named)?;
                    }
                }
            }
        }
        Ok(named)
    }

    fn add(&self, source: &ModelSource, named: &mut NamedSources) -> Result<(), BuildError> {
        let name = source.resolved_name()?;
        let mut versions = ModelDirectory::versions(&source.directory);
        if versions.is_empty() || source.version.is_some() {
            versions = [(source.version.map_or(1, NonZeroU64::get), source.directory.clone())].into();
        }
        let of_name = named.entry(name.clone()).or_default();
        for (version, directory) in self.policy.chosen(versions) {
            let second = directory.clone();
            if let Some(first) = of_name.insert(version, ModelSource { directory, ..source.clone() }) {
                return Err(BuildError::DuplicateName { name, first: first.directory, second });
            }
        }
        Ok(())
    }
}

/// Names, sizes and times of the files of a model directory. Two that are equal show no change in between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DirectoryStamp(BTreeMap<PathBuf, (u64, Option<SystemTime>, u64)>);

impl DirectoryStamp {
    /// The directory as it is. What cannot be read is left out.
    pub(crate) fn of(directory: &Path) -> Self {
        let files = WalkDir::new(directory)
            .follow_links(true)
            .max_depth(MAX_DEPTH)
            .sort_by_file_name()
            .into_iter()
            .filter_map(Result::ok);
        let files = files.filter(|entry| !entry.file_type().is_dir());
        let seen = |entry: walkdir::DirEntry| {
            let metadata = entry.metadata().ok()?;
            let seen = (metadata.len(), metadata.modified().ok(), file_number(&metadata));
            Some((entry.into_path(), seen))
        };
        Self(files.take(MAX_FILES).filter_map(seen).collect())
    }
}

/// The number by which the file system tells files apart; 0 where there is none.
#[cfg(unix)]
fn file_number(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn file_number(_: &std::fs::Metadata) -> u64 {
    0
}

fn model_directories(path: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let failed = |source| BuildError::List { path: path.to_owned(), source };
    let mut directories = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let directory = entry.map_err(failed)?.path();
        if ModelDirectory::is_at(&directory) || !ModelDirectory::versions(&directory).is_empty() {
            directories.push(directory);
        }
    }
    Ok(directories)
}
