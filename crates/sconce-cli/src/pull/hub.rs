//! A model from the Hugging Face hub: from the local cache if it is whole there, else over the network.

mod cached;
mod client;

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use hf_hub::{Cache, Repo, RepoType};

use super::digest::{self, WeightDigests};
use super::selection::{SelectError, Selection, Shelf, select};
use super::{PullError, UnfinishedPull};
use crate::progress;
use crate::say::say;
use cached::CachedFiles;
use client::Hub;

/// A model repository at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repository {
    id: String,
    revision: String,
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.id, self.revision)
    }
}

impl Repository {
    /// Parses `ORG/NAME` as the hub allows it: letters, digits, `-`, `_` and `.`, and no part that begins with a dot.
    pub(super) fn parse(id: &str, revision: &str) -> Option<Self> {
        let (organisation, name) = id.split_once('/')?;
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
        };
        let revision_is_plain = revision.split('/').all(plain);
        (plain(organisation) && plain(name) && revision_is_plain)
            .then(|| Self { id: id.to_owned(), revision: revision.to_owned() })
    }

    pub(super) fn model_name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.id.clone(), RepoType::Model, self.revision.clone())
    }
}

/// Puts the model's files below `directory`, and returns the SHA-256 of each file of weights.
pub(super) fn fetch(
    repository: &Repository,
    max_silence: Duration,
    directory: &Path,
    unfinished: &UnfinishedPull,
) -> Result<WeightDigests, PullError> {
    let cache = Cache::from_env();
    let cached = CachedFiles::of(&cache, repository);
    let lack = match select(&cached) {
        Ok(selection) => {
            say!("{repository} is in the local cache");
            return copy_all(&cached, &selection, directory, unfinished);
        }
        Err(SelectError::Lack(lack)) => lack,
        Err(SelectError::Pull(error)) => return Err(error),
    };
    match Hub::new(repository, &cache, max_silence, lack.clone())?.list() {
        Ok(listed) => {
            let selection = select(&listed).map_err(|error| match error {
                SelectError::Lack(lack) => {
                    PullError::Unsuitable { repository: repository.to_string(), lack, has: listed.all() }
                }
                SelectError::Pull(error) => error,
            })?;
            copy_all(&listed, &selection, directory, unfinished)
        }
        Err(error @ PullError::Unreachable { .. }) => match select(&cached.taken_as_all()) {
            Ok(selection) => {
                say!("warning: {error}\n  taking what the cache holds");
                copy_all(&cached, &selection, directory, unfinished)
            }
            Err(_) => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Copies the files of the model out of the cache, the small ones first.
fn copy_all(
    shelf: &impl Shelf,
    selection: &Selection,
    directory: &Path,
    unfinished: &UnfinishedPull,
) -> Result<WeightDigests, PullError> {
    for name in &selection.settings {
        copy(name, &shelf.file(name)?, directory, unfinished)?;
    }
    let files = selection.weights.iter().map(|name| Ok((name, shelf.file(name)?))).collect::<Result<Vec<_>, _>>()?;
    files.into_iter().map(|(name, path)| Ok((name.clone(), copy(name, &path, directory, unfinished)?))).collect()
}

/// Copies a file out of the cache, whose entries are links, and returns its SHA-256.
fn copy(name: &str, from: &Path, directory: &Path, unfinished: &UnfinishedPull) -> Result<String, PullError> {
    let blob = from.canonicalize().map_err(PullError::file(from))?;
    let to = directory.join(name);
    let mut source = File::open(&blob).map_err(PullError::file(&blob))?;
    let size = source.metadata().map_err(PullError::file(&blob))?.len();
    let bar = progress::bytes_bar(size, format!("copying {name}"));
    let mut target = unfinished.create(&to)?;
    let sha256 = digest::copy(&mut source, &mut target, &bar).map_err(PullError::file(&blob))?;
    bar.finish_and_clear();
    // The hub names the blob of a large file by its SHA-256: a damaged cache is noticed here.
    let expected = blob.file_name().and_then(|name| name.to_str()).filter(|name| is_sha256(name));
    match expected {
        Some(expected) if expected != sha256 => {
            let (file, expected) = (blob.display().to_string(), expected.to_owned());
            Err(PullError::Digest { file, got: sha256, expected, remedy: "delete it from the cache, and pull again" })
        }
        _ => Ok(sha256),
    }
}

fn is_sha256(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_an_organisation_and_a_name() {
        let table = [
            ("BAAI/bge-small-en-v1.5", true),
            ("minilm", false),
            ("a/b/c", false),
            ("../up", false),
            ("a/..", false),
            ("a/", false),
            ("/b", false),
            ("a b/c", false),
        ];
        for (id, allowed) in table {
            assert_eq!(Repository::parse(id, "main").is_some(), allowed, "{id}");
        }
        assert!(Repository::parse("a/b", "refs/pr/1").is_some());
        assert!(Repository::parse("a/b", "../main").is_none());
    }
}
