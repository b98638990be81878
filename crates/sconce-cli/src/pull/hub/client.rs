//! The hub over the network: the list of a repository's files, and downloads into the local cache.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, CacheRepo};
use indicatif::ProgressBar;

use super::super::PullError;
use super::super::selection::{Lack, Shelf};
use super::super::watch::{Bytes, Watched, watch};
use super::Repository;
use super::cached::CachedFiles;
use crate::progress;
use crate::say::say;

/// Time to connect to the hub.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to get the list of a repository's files.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Attempts at a file, as long as each attempt receives some of it.
const MAX_ATTEMPTS: u32 = 5;

/// A client of the hub for one repository.
pub(super) struct Hub<'a> {
    repository: &'a Repository,
    cache: &'a Cache,
    api: Api,
    max_silence: Duration,
    /// The file for which the cache was not enough.
    lack: Lack,
}

impl<'a> Hub<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        cache: &'a Cache,
        max_silence: Duration,
        lack: Lack,
    ) -> Result<Self, PullError> {
        if let Some(value) = std::env::var("HF_ENDPOINT").ok().filter(|value| !value.starts_with("http")) {
            return Err(PullError::Endpoint { value });
        }
        let api = ApiBuilder::from_env().with_user_agent("sconce", env!("CARGO_PKG_VERSION")).build();
        let api = api.map_err(|cause| PullError::Unreachable {
            repository: repository.to_string(),
            cause: cause.to_string(),
            cache: cache.path().clone(),
            lack: lack.clone(),
        })?;
        Ok(Self { repository, cache, api, max_silence, lack })
    }

    /// Asks for the names of all files.
    pub(super) fn list(self) -> Result<HubFiles<'a>, PullError> {
        let request = self.api.repo(self.repository.repo()).info_request().config();
        let request = request.timeout_connect(Some(CONNECT_TIMEOUT)).timeout_global(Some(LIST_TIMEOUT));
        let mut response =
            request.http_status_as_error(false).build().call().map_err(|cause| self.unreachable(cause.to_string()))?;
        let status = response.status();
        if !status.is_success() {
            return Err(PullError::Refused { repository: self.repository.to_string(), status: status.as_u16() });
        }
        let info: RepoInfo = response.body_mut().read_json().map_err(|cause| self.unreachable(cause.to_string()))?;
        let names = info.siblings.into_iter().map(|file| file.rfilename).collect();
        let cached = CachedFiles::of_commit(self.cache, self.repository, &info.sha);
        Ok(HubFiles { hub: self, names, cached })
    }

    /// Downloads a file into the cache. A download that is cut resumes where it stopped.
    fn download(&self, name: &str) -> Result<PathBuf, PullError> {
        for attempt in 1.. {
            let bar = progress::bytes_bar(0, name.to_owned());
            let Watched { outcome, bytes } = self.try_download(name, &bar);
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

    fn try_download(&self, name: &str, bar: &ProgressBar) -> Watched<Result<PathBuf, ApiError>> {
        let name = name.to_owned();
        let (api, repo, cached) = (self.api.clone(), self.repository.repo(), self.cache.repo(self.repository.repo()));
        watch(self.max_silence, bar, move |reporter| {
            let file = api.repo(repo);
            forget_useless_part(&api, &file.url(&name), &cached)?;
            file.download_with_progress(&name, reporter)
        })
    }

    /// Checks the size of a downloaded file. A file of another size than the hub said is removed: the cache would keep
    /// it for good.
    fn whole(&self, name: &str, path: PathBuf, bytes: Bytes) -> Result<PathBuf, PullError> {
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

    fn cut(&self, name: &str, cause: String, bytes: Bytes) -> PullError {
        let Bytes { total, there, received } = bytes;
        if there + received == 0 {
            return self.unreachable(format!("{name}: {cause}"));
        }
        PullError::Cut {
            repository: self.repository.to_string(),
            file: name.to_owned(),
            cause,
            got: there + received,
            total,
        }
    }

    fn unreachable(&self, cause: String) -> PullError {
        PullError::Unreachable {
            repository: self.repository.to_string(),
            cause,
            cache: self.cache.path().clone(),
            lack: self.lack.clone(),
        }
    }
}

/// The files of a repository on the hub, which are downloaded into the cache.
pub(super) struct HubFiles<'a> {
    hub: Hub<'a>,
    names: BTreeSet<String>,
    /// The files of the listed commit that the cache holds.
    cached: CachedFiles,
}

impl HubFiles<'_> {
    /// All names, for an error that lists them.
    pub(super) fn all(&self) -> Vec<String> {
        self.names.iter().cloned().collect()
    }
}

impl Shelf for HubFiles<'_> {
    fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    fn is_absent(&self, name: &str) -> bool {
        let is_absent = !self.names.contains(name);
        if is_absent {
            self.cached.note_absence(name);
        }
        is_absent
    }

    fn file(&self, name: &str) -> Result<PathBuf, PullError> {
        // Downloaded by an earlier pull, or by this one.
        let path = self.cached.file(name)?;
        if path.is_file() { Ok(path) } else { self.hub.download(name) }
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
