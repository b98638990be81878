//! Precisions and numbers of threads: flags, environment, `sconce.toml`, and messages.

use std::fs;
use std::os::unix::fs::symlink;

use sconce_grpc::proto::infer_parameter::ParameterChoice;
use serde_json::json;
use tempfile::TempDir;

use crate::command::{ended, path, run, sconce, zoo};
use crate::serve::{Server, classify};

const ALL: &str = "f32, f16, bf16, int8, q8_0, q4k";

#[test]
fn an_embedding_in_each_precision_says_which_and_is_near_that_in_f32() {
    let embed = |flags: &[&str]| {
        let args = [&["embed", "--model", "encoder-mini", "--allow-undecided"], flags].concat();
        let object = ended(&args, b"a sconce holds candles").succeeded().objects().swap_remove(0);
        let embedding: Vec<f64> = serde_json::from_value(object["embedding"].clone()).unwrap();
        (object["precision"].as_str().unwrap().to_owned(), embedding)
    };
    let (precision, exact) = embed(&[]);
    assert_eq!(precision, "f32");
    for (flag, min_cosine) in [("f32", 1.0 - 1e-6), ("int8", 0.99), ("q8_0", 0.99), ("q4k", 0.99)] {
        let (precision, embedding) = embed(&["--precision", flag]);
        assert_eq!(precision, flag);
        assert_eq!(embedding == exact, flag == "f32", "{flag} is computed in another way than f32");
        let cosine: f64 = exact.iter().zip(&embedding).map(|(a, b)| a * b).sum();
        assert!(cosine >= min_cosine, "{flag}: {cosine}");
    }
}

#[test]
fn a_label_says_which_precision_made_it() {
    for flags in [&[][..], &["--precision", "int8"]] {
        let args = [&["classify", "--model", "tiny-bert-sentiment", "--allow-undecided"], flags].concat();
        let objects = ended(&args, b"What a wonderful day!").succeeded().objects();
        assert_eq!(objects[0]["precision"], *flags.last().unwrap_or(&"f32"));
        let decision = objects[0].get("decision").cloned();
        assert_eq!(decision, (!flags.is_empty()).then(|| json!("undecided")));
        assert_eq!(objects[0]["label"], "positive");
    }
}

#[test]
fn a_precision_that_nothing_allows_is_refused_with_the_way_to_decide() {
    let said = ["may not serve in int8 on cpu: there is no decision on it", "sconce decide", "--allow-undecided"];
    let int8 = ["--model", "tiny-bert-sentiment", "--precision", "int8"];
    for command in [&["classify"][..], &["serve", "--grpc", "127.0.0.1:0", "--http", "none"]] {
        ended(&[command, &int8].concat(), b"a lovely day").failed_with(2, &said);
    }
    let args = ["classify", "--model", "tiny-bert-sentiment", "--allowed-signers"];
    ended(&[&args[..], &["/no/such/file"]].concat(), b"").failed_with(2, &["--allowed-signers", "No such file"]);
    let place = tempfile::tempdir().unwrap();
    let signers = place.path().join("allowed_signers");
    fs::write(&signers, "# who may approve\ncto@example.com ssh-rsa\n").unwrap();
    ended(&[&args[..], &[path(&signers)]].concat(), b"").failed_with(2, &["--allowed-signers", "line 2: "]);
}

#[test]
fn a_precision_that_a_model_does_not_have_is_refused_with_what_it_has() {
    let said = ["model 'digits-cnn': ", "no precision 'q4k' on device 'cpu'; choose one of: f32"];
    ended(&["classify", "--model", "digits-cnn", "--precision", "q4k"], b"").failed_with(2, &said);
    let serve = ["serve", "--grpc", "127.0.0.1:0", "--http", "none", "--model", "digits-cnn", "--precision"];
    for flag in ["q4k", "digits-cnn=q4k"] {
        ended(&[&serve[..], &[flag]].concat(), b"").failed_with(2, &said);
    }
}

/// A models directory with one model, `copy`, which is a shipped model with another `sconce.toml`.
fn models(model: &str, toml: &str) -> TempDir {
    let models = tempfile::tempdir().expect("there is room for a directory");
    let copy = models.path().join("copy");
    fs::create_dir(&copy).expect("the directory is new");
    for file in zoo().join(model).read_dir().expect("the model ships") {
        let file = file.expect("the directory can be read");
        symlink(file.path(), copy.join(file.file_name())).expect("the link is new");
    }
    fs::write(copy.join("sconce.toml"), toml).expect("there is room for a file");
    models
}

#[test]
fn sconce_toml_decides_unless_a_flag_does() {
    let models = models("tiny-bert-sentiment", "[model]\nprecision = \"int8\"");
    let args = ["classify", "--models", path(models.path()), "--model", "copy", "--allow-undecided"];
    for (flags, expected) in [(&[][..], "int8"), (&["--precision", "f32"], "f32")] {
        let objects = ended(&[&args[..], flags].concat(), b"What a wonderful day!").succeeded().objects();
        assert_eq!(objects[0]["precision"], expected);
    }
    let listed = ended(&["models", "--models", path(models.path()), "--json"], b"").succeeded().objects();
    assert_eq!((&listed[0]["precision"], &listed[0]["precisions"][0]), (&json!("int8"), &json!("f32")));
    let table = ended(&["models", "--models", path(models.path())], b"").succeeded().stdout;
    assert!(table.contains("int8 (or f32, q8_0, q4k)"), "{table}");
}

#[test]
fn a_sconce_toml_that_asks_for_what_a_model_does_not_have_is_named() {
    let models = models("digits-cnn", "[model]\nprecision = \"q4k\"");
    let args = ["classify", "--models", path(models.path()), "--model", "copy"];
    let said = ["copy/sconce.toml: ", "no precision 'q4k' on device 'cpu'; choose one of: f32"];
    ended(&args, b"").failed_with(2, &said);
}

#[test]
fn names_from_elsewhere_are_taken_where_they_can_mean_one_precision_alone() {
    for (name, precision) in [("fp32", "f32"), ("float32", "f32"), ("INT8", "int8"), ("i8", "int8"), ("q4_k", "q4k")] {
        let args = ["classify", "--model", "tiny-bert-sentiment", "--allow-undecided", "--precision", name];
        assert_eq!(ended(&args, b"a lovely day").succeeded().objects()[0]["precision"], precision, "{name}");
    }
    // These names are known, so the error lists what the model has.
    for name in ["fp16", "half", "float16"] {
        let args = ["classify", "--model", "tiny-bert-sentiment", "--precision", name];
        ended(&args, b"").failed_with(2, &["no precision 'f16' on device 'cpu'"]);
    }
    for (name, question) in [("q8", "did you mean int8 or q8_0?"), ("int4", "did you mean q4k?")] {
        let args = ["bench", "tiny-bert-sentiment", "--precisions", name];
        ended(&args, b"").failed_with(2, &["--precisions", ALL, question]);
    }
    let models = models("tiny-bert-sentiment", "[model]\nprecision = \"i8\"\ndevice = \"CPU\"");
    let args = ["classify", "--models", path(models.path()), "--model", "copy", "--allow-undecided"];
    assert_eq!(ended(&args, b"a lovely day").succeeded().objects()[0]["precision"], "int8");
}

#[tokio::test]
async fn a_precision_for_every_model_is_for_those_that_have_it() {
    let mut server = Server::start(&["--precision", "int8", "--allow-undecided"]);
    let line = |name: &str| server.banner.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    for (name, precision) in [("tiny-bert", "int8"), ("encoder-mini", "int8"), ("magika", "f32"), ("digits", "f32")] {
        assert!(line(name).contains(&format!("parameters in {precision}")), "{}", server.banner);
    }
    server.wait_until_it_says("warning: --precision int8: digits-cnn has f32 alone, and runs in f32");
    server.wait_until_it_says("warning: --precision int8: magika has f32 alone, and runs in f32");
}

#[test]
fn a_precision_that_no_model_has_or_that_a_named_one_lacks_is_refused() {
    let serve = |flags: &[&str]| ended(&[&["serve", "--grpc", "127.0.0.1:0", "--http", "none"], flags].concat(), b"");
    let both = ["--model", "magika", "--model", "digits-cnn"];
    serve(&[&both[..], &["--precision", "int8"]].concat())
        .failed_with(2, &["no precision 'int8'", "choose one of: f32"]);
    let said = ["model 'magika'", "no precision 'int8'", "choose one of: f32"];
    serve(&["--strict", "--precision", "magika=int8"]).failed_with(2, &said);
    serve(&["--model", "magika", "--model", "encoder-mini", "--precision", "magika=int8"]).failed_with(2, &said);
}

#[test]
fn a_precision_that_is_unknown_or_of_an_unknown_model_is_told_with_the_known_ones() {
    for command in ["embed", "classify"] {
        let args = [command, "--model", "encoder-mini", "--precision", "int4"];
        ended(&args, b"").failed_with(2, &["--precision", "'int4' is not known", ALL]);
    }
    ended(&["serve", "--precision", "magika=int4"], b"").failed_with(2, &["'int4' is not known", ALL]);
    let known = "digits-cnn, encoder-mini, magika, tiny-bert-sentiment";
    ended(&["serve", "--precision", "minilm=f32"], b"").failed_with(2, &["no model is named 'minilm'", known]);
    ended(&["serve", "--precision", "f32", "--precision", "int8"], b"")
        .failed_with(2, &["given twice", "f32 and int8"]);
}

#[tokio::test]
async fn a_server_says_its_precisions_and_threads() {
    let models = ["--model", "digits-cnn", "--model", "tiny-bert-sentiment"];
    let flags = ["--precision", "tiny-bert-sentiment=int8", "--cpu-threads", "3", "--allow-undecided"];
    let server = Server::start(&[&models[..], &flags].concat());
    let line = |name: &str| server.banner.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("digits-cnn").contains("parameters in f32"), "{}", server.banner);
    assert!(line("tiny-bert-sentiment").contains("parameters in int8"), "{}", server.banner);
    assert!(server.banner.contains("CPU threads: 3\n"), "{}", server.banner);
    let answer = classify(server.address, "a wonderful day").await.unwrap();
    let precision = answer.parameters["precision"].parameter_choice.clone();
    assert_eq!(precision, Some(ParameterChoice::StringParam("int8".to_owned())));

    let mut command = sconce(&["serve", "--grpc", "127.0.0.1:0", "--http", "none", "--model", "digits-cnn"]);
    command.env("SCONCE_CPU_THREADS", "5");
    assert!(Server::run(command).banner.contains("CPU threads: 5\n"));
}

#[test]
fn threads_are_a_flag_else_the_environment_else_one_a_core() {
    let cores = std::thread::available_parallelism().unwrap().to_string();
    let table: [(&[&str], Option<&str>, &str); 4] = [
        (&[], None, &cores),
        (&[], Some("5"), "5"),
        (&["--cpu-threads", "3"], None, "3"),
        (&["--cpu-threads", "3"], Some("5"), "3"),
    ];
    for (flags, environment, expected) in table {
        let mut command = sconce(&[&["classify", "--model", "digits-cnn"], flags].concat());
        command.env("RUST_LOG", "sconce=info").env("NO_COLOR", "1");
        command.envs(environment.map(|threads| ("SCONCE_CPU_THREADS", threads)));
        let said = run(command, b"").succeeded().stderr;
        assert!(said.contains(&format!("cpu_threads={expected}\n")), "{flags:?}, {environment:?}: {said}");
    }
    for threads in ["0", "-1", "many"] {
        let args = ["classify", "--model", "digits-cnn", &format!("--cpu-threads={threads}")];
        ended(&args, b"").failed_with(2, &["--cpu-threads", threads]);
    }
}
