//! A model from the Hugging Face hub: from the local cache if it is complete there, else over the network.

use std::fmt;
use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use indicatif::ProgressBar;
use serde_json::Value;

use super::watch::{Bytes, Watched, watch};
use super::{PullError, WEIGHTS, digest};
use crate::progress;
use crate::say::say;

/// Files that a model must have.
const REQUIRED: [&str; 2] = ["config.json", WEIGHTS];
/// Files that are taken if the repository has them.
const OPTIONAL: [&str; 7] =
    ["tokenizer.json", "modules.json", "sentence_bert_config.json", POOLING, "sconce.toml", "README.md", "LICENSE"];
/// The file in which sentence-transformers says how token vectors are pooled; `modules.json` points to it.
const POOLING: &str = "1_Pooling/config.json";

/// Time to connect to the hub.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to get the list of a repository's files.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts at a file, as long as each attempt receives some of it.
const MAX_ATTEMPTS: u32 = 5;

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

/// Puts the model's files below `directory`, and returns the SHA-256 of its weights.
pub(super) fn fetch(repository: &Repository, max_silence: Duration, directory: &Path) -> Result<String, PullError> {
    let cache = Cache::from_env();
    let cached = cache.repo(repository.repo());
    let files = if is_whole(&cached) {
        say!("{repository} is in the local cache");
        cached_files(&cached)
    } else {
        Hub::new(repository, &cache, max_silence)?.files()?
    };
    let mut weights_sha256 = None;
    for (name, path) in files {
        let sha256 = copy(name, &path, directory)?;
        if name == WEIGHTS {
            weights_sha256 = Some(sha256);
        }
    }
    Ok(weights_sha256.expect("the weights are a required file"))
}

/// Returns true if the cache holds all files that matter. A cache cannot tell a file that was never downloaded from one
/// that the repository does not have; the files that must not be missed are those that say how an encoder's vectors are
/// pooled.
fn is_whole(cached: &CacheRepo) -> bool {
    let has = |file| cached.get(file).is_some();
    REQUIRED.into_iter().all(has) && (!has("tokenizer.json") || !pools(cached) || (has("modules.json") && has(POOLING)))
}

/// Returns true if the model is an encoder without a head, for instance a `BertModel`.
fn pools(cached: &CacheRepo) -> bool {
    let config = cached.get("config.json").and_then(|path| fs::read(path).ok());
    let config: Value = config.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    let architectures = config["architectures"].as_array().map_or(&[][..], Vec::as_slice);
    architectures.is_empty()
        || architectures.iter().filter_map(Value::as_str).any(|architecture| architecture.ends_with("Model"))
}

fn cached_files(cached: &CacheRepo) -> Vec<(&'static str, PathBuf)> {
    REQUIRED.into_iter().chain(OPTIONAL).filter_map(|file| Some((file, cached.get(file)?))).collect()
}

/// A client of the hub for one repository.
struct Hub<'a> {
    repository: &'a Repository,
    cache: &'a Cache,
    api: Api,
    max_silence: Duration,
}

impl<'a> Hub<'a> {
    fn new(repository: &'a Repository, cache: &'a Cache, max_silence: Duration) -> Result<Self, PullError> {
        if let Some(value) = std::env::var("HF_ENDPOINT").ok().filter(|value| !value.starts_with("http")) {
            return Err(PullError::Endpoint { value });
        }
        let api = ApiBuilder::from_env().with_user_agent("sconce", env!("CARGO_PKG_VERSION")).build();
        let api = api.map_err(|cause| PullError::Unreachable {
            repository: repository.to_string(),
            cause: cause.to_string(),
            cache: cache.path().clone(),
        })?;
        Ok(Self { repository, cache, api, max_silence })
    }

    /// Downloads the files that Sconce reads into the cache, and returns their names and paths.
    fn files(&self) -> Result<Vec<(&'static str, PathBuf)>, PullError> {
        let cached = self.cache.repo(self.repository.repo());
        let has = match self.list() {
            Ok(has) => has,
            Err(error @ PullError::Unreachable { .. }) if REQUIRED.iter().all(|file| cached.get(file).is_some()) => {
                say!("warning: {error}\n  taking what the cache holds; without modules.json, pooling is the mean");
                return Ok(cached_files(&cached));
            }
            Err(error) => return Err(error),
        };
        if let Some(file) = REQUIRED.into_iter().find(|&file| !has.iter().any(|name| name == file)) {
            return Err(PullError::Unsuitable { repository: self.repository.to_string(), file, has });
        }
        let wanted = REQUIRED.into_iter().chain(OPTIONAL).filter(|&file| has.iter().any(|name| name == file));
        wanted.map(|file| Ok((file, self.file(file, &cached)?))).collect()
    }

    fn list(&self) -> Result<Vec<String>, PullError> {
        let request = self.api.repo(self.repository.repo()).info_request().config();
        let request = request.timeout_connect(Some(CONNECT_TIMEOUT)).timeout_global(Some(LIST_TIMEOUT));
        let mut response =
            request.http_status_as_error(false).build().call().map_err(|cause| self.unreachable(cause.to_string()))?;
        let status = response.status();
        if !status.is_success() {
            return Err(PullError::Refused { repository: self.repository.to_string(), status: status.as_u16() });
        }
        let info: RepoInfo = response.body_mut().read_json().map_err(|cause| self.unreachable(cause.to_string()))?;
        Ok(info.siblings.into_iter().map(|file| file.rfilename).collect())
    }

    /// Returns the file's path in the cache, and downloads it if it is not there. A download that is cut resumes where
    /// it stopped.
    fn file(&self, name: &'static str, cached: &CacheRepo) -> Result<PathBuf, PullError> {
        if let Some(path) = cached.get(name) {
            return Ok(path);
        }
        for attempt in 1.. {
            let bar = progress::bytes_bar(0, name.to_owned());
            let Watched { outcome, bytes } = self.download(name, &bar);
            bar.finish_and_clear();
            let cause = match outcome {
                Some(Ok(path)) => return self.whole(name, path, bytes),
                Some(Err(ApiError::RequestError(cause))) if let ureq::Error::StatusCode(status) = *cause => {
                    return Err(PullError::Refused { repository: format!("{name} of {}", self.repository), status });
                }
                Some(Err(cause)) => cause.to_string(),
                None => {
                    let cause = format!("nothing came for {:?} (--max-silence-s)", self.max_silence);
                    return Err(self.cut(name, cause, bytes));
                }
            };
            if bytes.received == 0 || attempt == MAX_ATTEMPTS {
                return Err(self.cut(name, cause, bytes));
            }
            say!("{name}: {cause}; going on after {} bytes", bytes.there + bytes.received);
        }
        unreachable!("there are more numbers than attempts")
    }

    fn download(&self, name: &'static str, bar: &ProgressBar) -> Watched<Result<PathBuf, ApiError>> {
        let (api, repo, cached) = (self.api.clone(), self.repository.repo(), self.cache.repo(self.repository.repo()));
        watch(self.max_silence, bar, move |reporter| {
            let file = api.repo(repo);
            forget_useless_part(&api, &file.url(name), &cached)?;
            file.download_with_progress(name, reporter)
        })
    }

    /// Checks the size of a downloaded file. A file of another size than the hub said is removed: the cache would keep
    /// it for good.
    fn whole(&self, name: &'static str, path: PathBuf, bytes: Bytes) -> Result<PathBuf, PullError> {
        let blob = path.canonicalize().map_err(PullError::file(&path))?;
        let size = blob.metadata().map_err(PullError::file(&blob))?.len();
        if size == bytes.total {
            return Ok(path);
        }
        for file in [&path, &blob] {
            fs::remove_file(file).map_err(PullError::file(file))?;
        }
        Err(self.unreachable(format!("{name} came with {size} bytes instead of {}", bytes.total)))
    }

    fn cut(&self, name: &'static str, cause: String, bytes: Bytes) -> PullError {
        let Bytes { total, there, received } = bytes;
        if there + received == 0 {
            return self.unreachable(format!("{name}: {cause}"));
        }
        PullError::Cut { repository: self.repository.to_string(), file: name, cause, got: there + received, total }
    }

    fn unreachable(&self, cause: String) -> PullError {
        PullError::Unreachable { repository: self.repository.to_string(), cause, cache: self.cache.path().clone() }
    }
}

/// Removes the part of an earlier download that the client cannot resume, because it is as long as the whole file or longer.
fn forget_useless_part(api: &Api, url: &str, cached: &CacheRepo) -> Result<(), ApiError> {
    let Some(blobs) = cached.blob_path("any").parent().map(Path::to_owned) else { return Ok(()) };
    let is_part =
        |entry: io::Result<DirEntry>| entry.is_ok_and(|entry| entry.path().extension() == Some("part".as_ref()));
    // Most often there is no part, and the round trip to the hub is saved.
    if !fs::read_dir(blobs).is_ok_and(|mut entries| entries.any(is_part)) {
        return Ok(());
    }
    let metadata = api.metadata(url)?;
    let part = cached.blob_path(metadata.etag()).with_extension("part");
    if fs::metadata(&part).is_ok_and(|part| part.len() >= metadata.size() as u64) {
        fs::remove_file(part)?;
    }
    Ok(())
}

/// Copies a file out of the cache, whose entries are links, and returns its SHA-256.
fn copy(name: &str, from: &Path, directory: &Path) -> Result<String, PullError> {
    let blob = from.canonicalize().map_err(PullError::file(from))?;
    let to = directory.join(name);
    let parent = to.parent().expect("a file below a directory has a parent");
    fs::create_dir_all(parent).map_err(PullError::file(parent))?;
    let mut source = File::open(&blob).map_err(PullError::file(&blob))?;
    let size = source.metadata().map_err(PullError::file(&blob))?.len();
    let bar = progress::bytes_bar(size, format!("copying {name}"));
    let mut target = File::create(&to).map_err(PullError::file(&to))?;
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
