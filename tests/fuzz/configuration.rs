//! The files of models, as somebody may have written them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sconce::Registry;
use sconce::models::LoadOptions;

use crate::mutate::Mutator;
use crate::{MAX_WAIT, inputs, models, seed, watch_panics};

/// The largest file that is changed: vocabularies are as good when they are small.
const MAX_BYTES: u64 = 64 << 10;
/// Inputs of which one is loaded, not only surveyed.
const LOAD_ONE_OF: u32 = 8;

/// Settings as a model's `sconce.toml` may have them.
const SETTINGS: &str = r#"[model]
precision = "int8"
device = "cpu"

[batching]
max_batch_size = 8
max_queue_delay_us = 200

[cache]
answers = true
higher_precisions = false
"#;

/// A copy of a model, one of whose files is changed at a time.
struct Copy {
    directory: tempfile::TempDir,
    /// The files to change, with their good content.
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Copy {
    fn of(model: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut files = Vec::new();
        copy(model, directory.path(), &mut files);
        let settings = directory.path().join("sconce.toml");
        fs::write(&settings, SETTINGS).expect("there is room");
        files.push((settings, SETTINGS.as_bytes().to_vec()));
        Self { directory, files }
    }
}

fn copy(from: &Path, to: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("it is listed").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir(&to).expect("there is room");
            copy(&path, &to, files);
            continue;
        }
        fs::copy(&path, &to).expect("there is room");
        let is_text = path.extension().is_some_and(|it| it == "json" || it == "txt" || it == "safetensors");
        if is_text && fs::metadata(&path).expect("it is there").len() <= MAX_BYTES {
            files.push((to.clone(), fs::read(&path).expect("it is read")));
        }
    }
}

#[test]
fn no_file_of_a_model_makes_loading_it_panic_or_hang() {
    watch_panics();
    let families = fs::read_dir(models().join("tests/families")).expect("they ship");
    let mut directories: Vec<PathBuf> = families.map(|entry| entry.expect("it is listed").path()).collect();
    directories.retain(|directory| directory.join("config.json").is_file() || directory.join("modules.json").is_file());
    directories.sort();
    let copies: Vec<Copy> = directories.iter().map(|directory| Copy::of(directory)).collect();
    let (registry, mut mutator, options) = (Registry::default(), Mutator::new(seed() + 3), LoadOptions::default());
    for number in 0..inputs() {
        let Copy { directory, files } = mutator.choose(&copies);
        let (path, good) = mutator.choose(files);
        let is_json = path.extension().is_some_and(|it| it == "json");
        let changed = match std::str::from_utf8(good) {
            Ok(text) if is_json => mutator.json(text),
            _ => mutator.bytes(good),
        };
        fs::write(path, &changed).expect("there is room");
        let began = Instant::now();
        // Either outcome is right: what the files say is what is loaded. A panic of a reader, as the library of tokenizers has
        // some, is caught and told as an error; one that is not caught fails this test.
        let _ = registry.survey(directory.path(), &options);
        if mutator.once_in(LOAD_ONE_OF) {
            let _ = registry.load(directory.path(), &options);
        }
        let shown = || format!("input {number}, {}: {}", path.display(), String::from_utf8_lossy(&changed));
        assert!(began.elapsed() < MAX_WAIT, "it took {:?}: {}", began.elapsed(), shown());
        fs::write(path, good).expect("there is room");
    }
}
