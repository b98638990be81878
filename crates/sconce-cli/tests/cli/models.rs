use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::command::{ended, path, run, sconce, zoo};

#[test]
fn the_zoo_is_found_without_being_told() {
    let ended = ended(&["models"], b"").succeeded();
    for words in ["NAME", "digits-cnn", "encoder-mini", "magika", "tiny-bert-sentiment", "384 dimensions", "214 labels"]
    {
        assert!(ended.stdout.contains(words), "no {words} in {}", ended.stdout);
    }
}

#[test]
fn json_tells_what_each_model_takes_and_gives() {
    let directory = zoo();
    let objects = ended(&["models", "--models", path(&directory), "--json"], b"").succeeded().objects();
    let find = |name: &str| objects.iter().find(|object| object["name"] == name).unwrap();
    assert_eq!(objects.len(), 4);
    assert_eq!(find("encoder-mini")["dimensions"], 384);
    assert_eq!(find("encoder-mini")["input"], json!({"kind": "text", "max_tokens": 128}));
    assert_eq!(find("tiny-bert-sentiment")["labels"], json!(["negative", "positive"]));
    assert_eq!(find("digits-cnn")["input"], json!({"kind": "image", "shape": [1, 8, 8]}));
    assert_eq!(find("magika")["labels"].as_array().map(Vec::len), Some(214));
    for object in &objects {
        assert_eq!(object["precision"], "f32", "{object}");
        assert!(object["precisions"].as_array().unwrap().contains(&json!("f32")), "{object}");
    }
    assert_eq!(find("magika")["directory"], path(&directory.join("magika")));
}

#[test]
fn languages_are_those_that_the_readme_states() {
    let directory = tempfile::tempdir().unwrap();
    let table = [("two", "---\nlicense: mit\nlanguage:\n- en\n- de\n---\n# A model\n"), ("none", "# A model\n")];
    for (name, readme) in table {
        let model = directory.path().join(name);
        fs::create_dir(&model).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(zoo().join("digits-cnn").join(file), model.join(file)).unwrap();
        }
        fs::write(model.join("README.md"), readme).unwrap();
    }
    let args = ["models", "--models", path(directory.path())];
    let shown = ended(&args, b"").succeeded().stdout;
    assert!(shown.contains("LANGUAGES") && shown.contains("  en, de  ") && shown.contains("  -  "), "{shown}");
    let objects = ended(&[&args[..], &["--json"]].concat(), b"").succeeded().objects();
    assert_eq!((objects[0].get("languages"), &objects[1]["languages"]), (None, &json!(["en", "de"])));
}

#[test]
fn a_broken_model_is_listed_and_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    symlink(zoo().join("digits-cnn"), directory.path().join("works")).unwrap();
    fs::create_dir(directory.path().join("broken")).unwrap();
    fs::write(directory.path().join("broken/config.json"), r#"{"model_type": "no-such-type"}"#).unwrap();
    fs::create_dir(directory.path().join("not-a-model")).unwrap();
    fs::create_dir(directory.path().join(".hidden")).unwrap();
    fs::write(directory.path().join(".hidden/config.json"), "{}").unwrap();

    let args = ["models", "--models", path(directory.path())];
    let table = ended(&args, b"").failed_with(1, &["1 of 2 models do not load"]);
    assert!(table.stdout.contains("works  digits-cnn"), "{}", table.stdout);
    assert!(table.stdout.contains("BROKEN broken") && table.stdout.contains("no-such-type"), "{}", table.stdout);

    let objects = ended(&[&args[..], &["--json"]].concat(), b"").failed_with(1, &[]).objects();
    assert!(objects[0]["error"].as_str().unwrap().contains("no-such-type"), "{}", objects[0]);
    assert_eq!(objects[1]["family"], "digits-cnn");
}

#[test]
fn the_first_directory_that_has_a_name_wins() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(zoo().join("digits-cnn"), first.path().join("twice")).unwrap();
    symlink(zoo().join("encoder-mini"), second.path().join("twice")).unwrap();
    symlink(zoo().join("magika"), second.path().join("once")).unwrap();
    let families = |objects: Vec<Value>| -> Vec<String> {
        objects.iter().map(|object| object["family"].as_str().unwrap().to_owned()).collect()
    };

    let mut command = sconce(&["models", "--json"]);
    command.env("SCONCE_MODELS", std::env::join_paths([first.path(), second.path()]).unwrap());
    assert_eq!(families(run(command, b"").succeeded().objects()), ["magika", "digits-cnn"]);

    let args = ["models", "--json", "--models", path(second.path()), "--models", path(first.path())];
    assert_eq!(families(ended(&args, b"").succeeded().objects()), ["magika", "bert"]);
}

#[test]
fn a_models_directory_that_is_none_is_told_with_a_remedy() {
    let empty = tempfile::tempdir().unwrap();
    ended(&["models", "--models", path(empty.path())], b"").failed_with(2, &["no model found", "sconce pull"]);
    ended(&["models", "--models", "no/such/dir"], b"").failed_with(2, &["no/such/dir", "--models"]);
    let model = zoo().join("magika");
    ended(&["models", "--models", path(&model)], b"").failed_with(2, &["is a model directory itself", "--model "]);
}

#[test]
fn nothing_said_is_answered_with_the_help() {
    let ended = ended(&[], b"");
    assert_eq!(ended.status, Some(2));
    assert!(ended.stderr.contains("Usage") && ended.stderr.contains("classify"), "{ended:?}");
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands = ["serve", "embed", "classify", "precompute", "devices", "explain", "bench", "models", "pull"];
    let cache = ["cache stats", "cache warm", "cache purge"];
    for command in commands.into_iter().chain(cache) {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = ended(&words, b"").succeeded().stdout;
        assert!(help.contains("Examples:") && help.contains(&format!("sconce {command}")), "{help}");
    }
    let help = ended(&["--help"], b"").succeeded().stdout;
    for words in ["Exit status", "130", "fp16", "gpu", "1GB"] {
        assert!(help.contains(words), "{help}");
    }
}
