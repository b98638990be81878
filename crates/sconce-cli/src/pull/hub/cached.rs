//! The files of a repository that the local cache of the hub's clients holds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::Cache;

use super::super::PullError;
use super::super::selection::Shelf;
use super::Repository;

/// The files of one revision in the cache.
#[derive(Debug, Clone)]
pub(super) struct CachedFiles {
    names: BTreeSet<String>,
    /// The directory of the revision's files.
    snapshot: PathBuf,
    /// The directory in which the hub's clients note the files that a revision does not have.
    absent: PathBuf,
    /// Set if a file that is not in the cache counts as one that the repository does not have.
    is_all: bool,
}

impl CachedFiles {
    /// The files of a repository's revision: a branch or tag as it was last seen, or a commit.
    pub(super) fn of(cache: &Cache, repository: &Repository) -> Self {
        let reference = folder(cache, repository).join("refs").join(&repository.revision);
        let commit = fs::read_to_string(reference).unwrap_or_else(|_| repository.revision.clone());
        Self::of_commit(cache, repository, commit.trim())
    }

    pub(super) fn of_commit(cache: &Cache, repository: &Repository, commit: &str) -> Self {
        let folder = folder(cache, repository);
        let snapshot = folder.join("snapshots").join(commit);
        let mut names = BTreeSet::new();
        list(&snapshot, "", &mut names);
        Self { names, snapshot, absent: folder.join(".no_exist").join(commit), is_all: false }
    }

    /// The same files, as if the repository had no others.
    pub(super) fn taken_as_all(&self) -> Self {
        Self { is_all: true, ..self.clone() }
    }

    /// Notes, as other clients do, that the repository has no such file.
    pub(super) fn note_absence(&self, name: &str) {
        let path = self.absent.join(name);
        // Without the note the hub is asked again.
        let _ = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, b""));
    }
}

impl Shelf for CachedFiles {
    fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    fn is_absent(&self, name: &str) -> bool {
        !self.names.contains(name) && (self.is_all || self.absent.join(name).exists())
    }

    fn file(&self, name: &str) -> Result<PathBuf, PullError> {
        Ok(self.snapshot.join(name))
    }
}

fn folder(cache: &Cache, repository: &Repository) -> PathBuf {
    cache.path().join(repository.repo().folder_name())
}

/// Lists the files below `directory`; a link whose file is gone is none.
fn list(directory: &Path, prefix: &str, names: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        // Files are links to blobs; directories are not, so that no loop can be followed.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&entry.path(), &format!("{name}/"), names);
        } else if entry.path().is_file() {
            names.insert(name);
        }
    }
}
