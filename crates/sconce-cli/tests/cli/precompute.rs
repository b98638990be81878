//! A database is filled from files, used by a server, and filled further after a run that was stopped or killed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use sconce_test_servers::PostgresServer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::command::{Ended, Signal, ended, path, sconce, signal, zoo};
use crate::serve::{Server, first_source, sources};
use crate::stores::{entries, names};

const TEXTS: [&str; 4] = ["a wonderful day", "dull, and far too long", "she said \"yes\"", "zwölf Boxkämpfer"];

/// A directory for a database and input files.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn database(&self) -> PathBuf {
        self.0.path().join("answers.sqlite")
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.0.path().join(name);
        fs::write(&file, content).expect("it can be written");
        file
    }

    fn args<'a>(&self, model: &'a str, more: &[&'a str]) -> Vec<String> {
        let database = self.database();
        let own = ["precompute", "--json", "--model", model, "--cache-sqlite", path(&database)];
        own.iter().chain(more).map(|&arg| arg.to_owned()).collect()
    }

    fn precompute(&self, more: &[&str], stdin: &[u8]) -> Ended {
        let args = self.args("tiny-bert-sentiment", more);
        ended(&args.iter().map(String::as_str).collect::<Vec<_>>(), stdin)
    }

    /// Number of entries in the database.
    fn entries(&self) -> u64 {
        entries(&["--cache-sqlite", path(&self.database())])[0]
    }
}

/// The counts of the summary: stored, found, duplicates, failed.
fn counts(ended: &Ended) -> [u64; 4] {
    let summary = ended.objects().pop().expect("it says what it did");
    ["stored", "found", "duplicates", "failed"].map(|count| summary[count].as_u64().expect("a count"))
}

fn write_parquet(file: &Path) {
    let numbers: ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![1, 2, 3, 4]));
    let texts: ArrayRef = Arc::new(StringArray::from(TEXTS.to_vec()));
    let batch = RecordBatch::try_from_iter([("id", numbers), ("text", texts)]).expect("columns of one length");
    let zstd = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let target = fs::File::create(file).expect("it can be written");
    let mut writer = ArrowWriter::try_new(target, batch.schema(), Some(zstd)).expect("a schema that can be written");
    writer.write(&batch).expect("rows can be written");
    writer.close().expect("the index can be written");
}

#[test]
fn each_format_gives_the_same_inputs_and_none_is_computed_twice() {
    let place = Place::new();
    let lines = |of: &dyn Fn(&str) -> Value| TEXTS.map(|text| format!("{}\n", of(text))).concat();
    let objects = place.file("objects.jsonl", lines(&|text| json!({"id": 1, "text": text})));
    assert_eq!(counts(&place.precompute(&[path(&objects)], b"").succeeded()), [4, 0, 0, 0]);

    let parquet = place.0.path().join("table.parquet");
    write_parquet(&parquet);
    let quoted = TEXTS.map(|text| format!("1,\"{}\"\r\n", text.replace('"', "\"\""))).concat();
    let others = [
        place.file("strings.ndjson", lines(&|text| json!(text))),
        place.file("table.csv", format!("id,text\r\n{quoted}")),
        place.file("table.tsv", format!("text\tid\n{}", TEXTS.map(|text| format!("{text}\t1\n")).concat())),
        place.file("lines.txt", TEXTS.join("\n")),
        parquet,
    ];
    for file in &others {
        let ended = place.precompute(&[path(file)], b"").succeeded();
        assert_eq!(counts(&ended), [0, 4, 0, 0], "{}: {ended:?}", file.display());
    }
    let all: Vec<_> = others.iter().map(|file| path(file)).collect();
    assert_eq!(counts(&place.precompute(&all, b"").succeeded()).iter().sum::<u64>(), 20);

    let piped = lines(&|text| json!({"body": text}));
    let ended = place.precompute(&["--column", "body"], piped.as_bytes()).succeeded();
    assert_eq!(counts(&ended), [0, 4, 0, 0]);
    let ended = place.precompute(&["-", "--column", "body"], piped.as_bytes()).succeeded();
    assert_eq!(counts(&ended), [0, 4, 0, 0]);
    let ended = place.precompute(&["-", "--format", "csv"], b"text\na new one\na new one\n").succeeded();
    assert_eq!((counts(&ended), place.entries()), ([1, 0, 1, 0], 5));
}

#[test]
fn bad_rows_are_told_with_their_place_and_the_others_go_on() {
    let place = Place::new();
    let rows =
        place.file("rows.jsonl", "\"good\"\n{\"text\": 7}\n{\"title\": \"x\"}\nnot JSON\n{\"text\": \"good too\"}\n");
    let ended = place.precompute(&[path(&rows)], b"").failed_with(
        1,
        &[
            "line 2: field 'text' holds a number",
            "line 3: there is no field 'text'; there are: title; --column names another",
            "line 4: not JSON",
        ],
    );
    assert_eq!((counts(&ended), place.entries()), ([2, 0, 0, 3], 2));

    let table = place.file("table.csv", "id,text\n1,fine\n2\n3,fine as well\n");
    let ended =
        place.precompute(&[path(&table), path(&rows)], b"").failed_with(1, &["table.csv:3: ", "rows.jsonl:4: "]);
    assert_eq!(counts(&ended), [2, 2, 0, 4]);
}

#[test]
fn json_lines_that_are_no_texts_are_told_with_what_they_are_and_what_is_allowed() {
    let place = Place::new();
    let rows = place.file("rows.jsonl", "\"good\"\n[0, 1]\n17\n\n{\"text\": [0, 1]}\nover\n\"good too\"\n\n \n");
    let remedy = "give a string, or an object with that in its field 'text' (--column names another)";
    let ended = place.precompute(&[path(&rows)], b"").failed_with(
        1,
        &[
            &format!("line 2: the line is an array, [0,1]; {remedy}"),
            &format!("line 3: the line is a number, 17; {remedy}"),
            "line 4: the line is blank; give one JSON string or object per line",
            "line 5: field 'text' holds an array, [0,1]; it must be a string",
            "line 6: not JSON: expected value at column 1: over; give one JSON string or object per line",
        ],
    );
    assert_eq!(counts(&ended), [2, 0, 0, 5], "blank lines at the end are none");

    let images = place.file("images.jsonl", format!("{}\n\"text\"\n7\n", json!(vec![0; 64])));
    let args = place.args("digits-cnn", &[path(&images)]);
    let ended =
        ended_with(&args).failed_with(1, &["line 2: ", "line 3: the line is a number, 7; give an array of numbers"]);
    assert_eq!(counts(&ended), [1, 0, 0, 2]);
}

#[test]
fn a_reranker_reads_pairs_of_texts_bare_and_in_a_field_and_says_what_is_no_pair() {
    let model = zoo().join("../tests/families/bert-cross-encoder");
    let pair = json!(["hello world", "the cat sat on the mat"]);
    let score = ended(&["classify", "--model", path(&model)], pair.to_string().as_bytes()).succeeded();
    let score = score.objects()[0]["score"].as_f64().expect("a score");
    // The sigmoid of the logit in `families/expected.json`.
    assert!((score - 1.0 / (1.0 + (-1.324_047_8_f64).exp())).abs() < 1e-5, "{score}");

    let place = Place::new();
    let rows = place.file("rows.jsonl", format!("{pair}\n{}\n[\"one\"]\n", json!({"text": pair})));
    let args = place.args(path(&model), &[path(&rows)]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let ended = ended(&args, b"").failed_with(1, &["line 3: not a pair of texts", "give a JSON array of two strings"]);
    assert_eq!((counts(&ended), place.entries()), ([1, 0, 1, 1], 1));
}

#[test]
fn a_quote_that_is_never_closed_and_a_column_with_two_places_are_told_with_their_line() {
    let place = Place::new();
    let open = place.file("open.csv", "id,text\n1,\"of two\nlines\"\n2,\"never closed\n3,swallowed\n");
    let ended =
        place.precompute(&[path(&open)], b"").failed_with(1, &["line 4: a quote that begins here is never closed"]);
    assert_eq!((counts(&ended), place.entries()), ([1, 0, 0, 1], 1));

    let twice = "text,id,text\na,1,b\n";
    let said = "the header names 'text' twice, in columns 1 and 3; rename one of them";
    let file = place.file("twice.csv", twice);
    place.precompute(&[path(&file)], b"").failed_with(2, &["twice.csv:1 as CSV: ", said]);
    let ended = place.precompute(&["-", "--format", "csv"], twice.as_bytes()).failed_with(1, &["line 1: ", said]);
    assert_eq!(counts(&ended), [0, 0, 0, 1]);
    // Of a column that is not read nothing depends on.
    let other = place.file("other.csv", "id,text,id\n1,a text,2\n");
    assert_eq!(counts(&place.precompute(&[path(&other)], b"").succeeded()), [1, 0, 0, 0]);
}

#[test]
fn what_cannot_be_done_is_refused_before_it_begins() {
    let place = Place::new();
    let rows = place.file("rows", "\"one\"\n");
    place.precompute(&[path(&rows)], b"").failed_with(2, &["rows", "--format"]);
    place.precompute(&["-", "--format", "parquet"], b"").failed_with(2, &["Parquet"]);
    place.precompute(&[path(&place.0.path().join("missing.csv"))], b"").failed_with(2, &["missing.csv"]);
    let none = ended(&["precompute", "--model", "tiny-bert-sentiment"], b"");
    none.failed_with(2, &["there is no database to fill", "--cache-sqlite FILE or --cache-postgres URL"]);
    ended_with(&place.args("no-such-model", &["-"])).failed_with(2, &["no-such-model"]);
    let good = place.file("good.txt", "one");
    ended_with(&place.args("digits-cnn", &[path(&good), "--precision", "int8"]))
        .failed_with(2, &["no precision 'int8'"]);
    place.precompute(&[path(&good), "--precision", "int3"], b"").failed_with(2, &["int3"]);
    place.precompute(&[path(&good), "--device", "cuda:99"], b"").failed_with(2, &["device cuda:99"]);
    let remedy = "say with --format what it holds: text, jsonl, csv, tsv or parquet";
    let said = ["cannot read ", "good.txt as Parquet: ", "the table is not valid: EOF: Parquet file too small", remedy];
    place.precompute(&[path(&good), "--format", "parquet"], b"").failed_with(2, &said);
    let said = ["good.txt:1 as CSV: ", "there is no field 'text'; there are: one; --column names another"];
    place.precompute(&[path(&good), "--format", "csv"], b"").failed_with(2, &said);
    let uncached = place.0.path().join("uncached");
    copy_with_settings(&zoo().join("tiny-bert-sentiment"), &uncached, "[cache]\nanswers = false");
    ended_with(&place.args(path(&uncached), &[path(&good)])).failed_with(2, &["answers are not cached"]);
    let refused =
        place.precompute(&[path(&good), "--prompt", "nope"], b"").failed_with(2, &["prompt 'nope' is not known"]);
    assert!(!refused.stderr.contains("was stored"), "nothing was: {}", refused.stderr);
    assert_eq!(names(place.0.path()), ["good.txt", "rows", "uncached"], "a refused command makes nothing");
}

/// Links a model's files into a new directory, with another `sconce.toml`.
fn copy_with_settings(model: &Path, copy: &Path, toml: &str) {
    fs::create_dir(copy).expect("the directory is new");
    for file in model.read_dir().expect("the model ships") {
        let file = file.expect("the directory can be read");
        symlink(file.path(), copy.join(file.file_name())).expect("the link is new");
    }
    fs::write(copy.join("sconce.toml"), toml).expect("there is room for a file");
}

fn ended_with(args: &[String]) -> Ended {
    ended(&args.iter().map(String::as_str).collect::<Vec<_>>(), b"")
}

#[tokio::test]
async fn a_server_finds_what_was_precomputed_in_either_database() {
    let (place, postgres) = (Place::new(), PostgresServer::start());
    let url = postgres.url();
    let texts = || (0..1000).map(|number| format!("day {number}"));
    for (name, tier) in
        [("sqlite", ["--cache-sqlite", path(&place.database())]), ("postgres", ["--cache-postgres", &url])]
    {
        let precompute = ["precompute", "--model", "tiny-bert-sentiment", "--format", "text", "-"];
        let said =
            ended(&[&precompute[..], &tier].concat(), texts().collect::<Vec<_>>().join("\n").as_bytes()).succeeded();
        assert!(said.stdout.contains("1000 computed and stored"), "{said:?}");
        let server = Server::start(&[&["--model", "tiny-bert-sentiment"], &tier[..]].concat());
        let others = texts().take(50).map(|text| text + " of others");
        assert_eq!(sources(server.address, others).await, BTreeSet::from([None]), "they are computed");
        assert_eq!(first_source(server.address, texts()).await.as_deref(), Some(name));
    }
}

/// Lines of 3,000 texts of 2 to 25 words, a tenth of them twice; and the number of distinct texts.
fn many() -> (String, u64) {
    let text = |number: usize| format!("{} number {number}", "word ".repeat(number % 24));
    let texts: Vec<_> = (0..3000).chain((0..3000).step_by(10)).map(text).collect();
    (texts.join("\n"), 3000)
}

fn start(place: &Place, file: &Path) -> Child {
    let args = place.args("encoder-mini", &[path(file)]);
    let mut command = sconce(&args.iter().map(String::as_str).collect::<Vec<_>>());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs")
}

fn wait_for_entries(place: &Place, least: u64) {
    let started = Instant::now();
    // Counting fails until the database is made.
    let entries = || {
        let stats = ended(&["cache", "stats", "--json", "--cache-sqlite", path(&place.database())], b"");
        (stats.status == Some(0)).then(|| stats.objects()[0]["entries"].as_u64().expect("a count"))
    };
    while entries().is_none_or(|entries| entries < least) {
        assert!(started.elapsed() < Duration::from_mins(1), "after a minute there are fewer than {least} entries");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn finish(place: &Place, file: &Path) -> [u64; 4] {
    let output = start(place, file).wait_with_output().expect("it ends");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("it prints UTF-8");
    counts(&Ended { status: Some(0), stdout: text, stderr: String::new() })
}

#[test]
fn after_kill_9_nothing_is_lost_and_nothing_is_done_twice() {
    let place = Place::new();
    let (texts, distinct) = many();
    let file = place.file("texts.txt", texts);
    let mut killed = 0;
    for least in [1, 1000] {
        let mut child = start(&place, &file);
        wait_for_entries(&place, least);
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "it was killed before it was done");
        let kept = place.entries();
        assert!(kept >= killed && kept < distinct, "{kept}");
        killed = kept;
    }
    let [stored, found, duplicates, failed] = finish(&place, &file);
    assert_eq!((stored, place.entries()), (distinct - killed, distinct));
    assert_eq!((stored + found + duplicates, failed), (3300, 0));
    assert_eq!(finish(&place, &file)[0], 0);
}

#[test]
fn a_signal_stores_what_was_begun_and_the_same_command_goes_on() {
    for (name, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let place = Place::new();
        let (texts, distinct) = many();
        let file = place.file("texts.txt", texts);
        let child = start(&place, &file);
        wait_for_entries(&place, 1);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &summary["stopped"]), (Some(status), &json!(true)), "it was not done");
        let stored = summary["stored"].as_u64().unwrap();
        assert!(stored < distinct && place.entries() == stored, "{summary}");
        assert_eq!(names(place.0.path()), ["answers.sqlite", "texts.txt"]);
        if name == Signal::INT {
            // Once is enough: this takes a while.
            assert_eq!(finish(&place, &file)[0], distinct - stored);
        }
    }
}

#[test]
fn on_a_terminal_a_bar_tells_how_many_how_fast_and_how_long() {
    let place = Place::new();
    let file = place.file("texts.txt", many().0);
    let command = sconce(&place.args("encoder-mini", &[path(&file)]).iter().map(String::as_str).collect::<Vec<_>>());
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ");
    // Gives the command a terminal for both its outputs.
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    let shown = String::from_utf8_lossy(&terminal.output().unwrap().stdout).into_owned();
    assert!(shown.contains(" inputs, ") && shown.contains("/s") && shown.contains(" left"), "{shown}");
}
