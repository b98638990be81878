use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::command::{Signal, ended, path, run, sconce, signal, zoo};

const GOOD: &str = "What a wonderful day, I love it!";
const BAD: &str = "This is horrible, I hate it.";

#[test]
fn a_text_gets_an_embedding_of_length_one() {
    let objects = ended(&["embed", "--model", "encoder-mini"], b"a sconce holds candles\n").succeeded().objects();
    let embedding: Vec<f64> = serde_json::from_value(objects[0]["embedding"].clone()).unwrap();
    assert_eq!(embedding.len(), 384);
    let norm = embedding.iter().map(|value| value * value).sum::<f64>().sqrt();
    assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    assert_eq!(objects.len(), 1);
}

#[test]
fn a_text_gets_a_label_with_all_scores() {
    let stdin = format!("{GOOD}\n{BAD}");
    let objects = ended(&["classify", "--model", "tiny-bert-sentiment", "-"], stdin.as_bytes()).succeeded().objects();
    let labels: Vec<&Value> = objects.iter().map(|object| &object["label"]).collect();
    assert_eq!(labels, ["positive", "negative"]);
    for object in objects {
        let label = object["label"].as_str().unwrap();
        assert_eq!(object["score"], object["scores"][label]);
        let sum: f64 = object["scores"].as_object().unwrap().values().map(|score| score.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }
}

#[test]
fn a_file_of_lines_is_answered_as_standard_input_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines.txt");
    let text = format!("{GOOD}\r\n{BAD}\r\n");
    fs::write(&file, &text).unwrap();
    let from_file = ended(&["classify", "--model", "tiny-bert-sentiment", path(&file)], b"").succeeded();
    let from_stdin = ended(&["classify", "--model", "tiny-bert-sentiment"], text.as_bytes()).succeeded();
    let unix = ended(&["classify", "--model", "tiny-bert-sentiment"], text.replace('\r', "").as_bytes()).succeeded();
    assert_eq!(from_file.objects(), from_stdin.objects());
    assert_eq!(from_file.objects(), unix.objects());
    assert_eq!(from_file.objects().len(), 2);
}

#[test]
fn a_content_model_takes_each_file_as_one_input() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (rust, toml) = (here.join("src/main.rs"), here.join("Cargo.toml"));
    let missing = here.join("no-such-file");
    let args = ["classify", "--model", "magika", path(&rust), path(&missing), path(&toml)];
    let objects = ended(&args, b"").failed_with(1, &["1 of 3 inputs failed"]).objects();
    assert_eq!((&objects[0]["label"], &objects[0]["file"]), (&json!("rust"), &json!(path(&rust))));
    assert!(objects[1]["error"].as_str().unwrap().contains("cannot read"), "{}", objects[1]);
    assert_eq!(objects[1]["file"], path(&missing));
    assert_eq!((&objects[2]["label"], &objects[2]["file"]), (&json!("toml"), &json!(path(&toml))));
}

#[test]
fn a_content_model_takes_standard_input_as_one_input() {
    let source = fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs")).unwrap();
    let objects = ended(&["classify", "--model", "magika"], &source).succeeded().objects();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0]["label"], "rust");
}

#[test]
fn images_are_lines_of_pixels_flat_or_nested() {
    let bytes = fs::read(zoo().join("digits-cnn/test.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let pixels = tensors.tensor("images").unwrap().data().to_vec();
    let bytes = fs::read(zoo().join("digits-cnn/test_logits.safetensors")).unwrap();
    let logits = SafeTensors::deserialize(&bytes).unwrap();
    let (_, logits) = logits.tensors().into_iter().next().unwrap();
    let logits: Vec<f32> = logits.data().chunks(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect();
    let expected = logits.chunks(10).map(|row| {
        let best = (0..10).max_by(|&left, &right| row[left].total_cmp(&row[right])).unwrap();
        best.to_string()
    });

    let mut lines = String::new();
    for (index, image) in pixels.chunks(64).enumerate() {
        let rows: Vec<&[u8]> = image.chunks(8).collect();
        let line = match index % 3 {
            0 => json!(image),
            1 => json!(rows),
            _ => json!([rows]),
        };
        lines.extend([line.to_string().as_str(), "\n"]);
    }
    let objects = ended(&["classify", "--model", "digits-cnn"], lines.as_bytes()).succeeded().objects();
    let labels: Vec<String> = objects.iter().map(|object| object["label"].as_str().unwrap().to_owned()).collect();
    assert_eq!(labels.len(), 450);
    assert_eq!(labels, expected.collect::<Vec<_>>());
}

#[test]
fn a_bad_line_fails_alone_and_in_its_place() {
    let lines = [GOOD.as_bytes(), b"", b"  \t", b"caf\xe9", BAD.as_bytes()].join(&b'\n');
    let ended = ended(&["classify", "--model", "tiny-bert-sentiment"], &lines);
    let objects = ended.failed_with(1, &["1 of 5 inputs failed"]).objects();
    assert_eq!(objects.len(), 5);
    assert_eq!(objects[0]["label"], "positive");
    // An empty text is a text without tokens.
    assert_eq!(objects[1]["scores"], objects[2]["scores"]);
    assert!(objects[1]["label"].is_string(), "{}", objects[1]);
    let object = &objects[3];
    assert_eq!(object["line"], 4);
    assert!(object["error"].as_str().unwrap().contains("UTF-8"), "{object}");
    assert!(object.get("label").is_none(), "{object}");
    assert_eq!(objects[4]["label"], "negative");
}

#[test]
fn a_bad_image_says_what_is_wrong_with_it() {
    let good = json!(vec![0; 64]).to_string();
    let table = [
        ("[1, 2", "not JSON"),
        ("[[1, 2], [3]]", "ragged"),
        ("[\"seven\"]", "only numbers"),
        ("[1, 2, 3]", "shape"),
        ("[1e999]", "JSON"),
    ];
    let lines: Vec<&str> = table.iter().map(|(line, _)| *line).chain([good.as_str()]).collect();
    let objects = ended(&["classify", "--model", "digits-cnn"], lines.join("\n").as_bytes())
        .failed_with(1, &["5 of 6 inputs failed"])
        .objects();
    for (object, (line, words)) in objects.iter().zip(table) {
        assert!(object["error"].as_str().is_some_and(|error| error.contains(words)), "{line}: {object}");
    }
    assert!(objects[5]["label"].is_string(), "{}", objects[5]);
}

#[test]
fn a_long_text_is_cut_and_says_so_or_is_refused() {
    let text = "word ".repeat(1000);
    let cut = ended(&["classify", "--model", "tiny-bert-sentiment"], text.as_bytes()).succeeded().objects();
    assert_eq!(cut[0]["truncated"], true);
    let args = ["classify", "--model", "tiny-bert-sentiment", "--no-truncate"];
    let refused = ended(&args, text.as_bytes()).failed_with(1, &["1 of 1 inputs failed"]).objects();
    assert!(refused[0]["error"].as_str().unwrap().contains("tokens"), "{}", refused[0]);
    let short = ended(&args, GOOD.as_bytes()).succeeded().objects();
    assert!(short[0].get("truncated").is_none(), "{}", short[0]);
}

#[test]
fn the_order_is_kept_over_many_lines_of_every_length() {
    let table = fs::read_to_string(zoo().join("tiny-bert-sentiment/test.tsv")).unwrap();
    let texts: Vec<&str> = table.lines().filter_map(|row| row.split('\t').nth(3)).take(500).collect();
    assert_eq!(texts.len(), 500);
    // Every seventh line is an error, whose line number proves where it was read.
    let lines: Vec<&[u8]> =
        texts.iter().enumerate().map(|(at, text)| if at % 7 == 3 { &b"\xe9"[..] } else { text.as_bytes() }).collect();
    let forward = ended(&["classify", "--model", "tiny-bert-sentiment"], &lines.join(&b'\n')).objects();
    let reversed: Vec<&[u8]> = lines.iter().rev().copied().collect();
    let mut backward = ended(&["classify", "--model", "tiny-bert-sentiment"], &reversed.join(&b'\n')).objects();
    backward.reverse();
    assert_eq!((forward.len(), backward.len()), (500, 500));
    for (at, (one, other)) in forward.iter().zip(&backward).enumerate() {
        if at % 7 == 3 {
            assert_eq!((&one["line"], &other["line"]), (&json!(at + 1), &json!(500 - at)));
            continue;
        }
        assert_eq!(one["label"], other["label"], "line {}", at + 1);
        let difference = one["score"].as_f64().unwrap() - other["score"].as_f64().unwrap();
        assert!(difference.abs() < 1e-5, "line {}: {difference}", at + 1);
    }
}

#[test]
fn a_line_is_answered_while_standard_input_stays_open() {
    let mut command = sconce(&["classify", "--model", "tiny-bert-sentiment"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for (text, label) in [(GOOD, "positive"), (BAD, "negative")] {
        writeln!(stdin, "{text}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["label"], label);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let mut command = sconce(&["classify", "--model", "digits-cnn"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let line = format!("{}\n", json!(vec![1; 64]));
    let feeder = std::thread::spawn(move || while stdin.write_all(line.as_bytes()).is_ok() {});
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn batches_are_as_large_as_the_flags_say_and_answers_are_the_same() {
    let lines = (0..40).map(|number| format!("text {number}\n")).collect::<Vec<_>>().concat();
    let embed = |flags: &[&str]| {
        let mut command = sconce(&[&["embed", "--model", "encoder-mini"], flags].concat());
        command.env("RUST_LOG", "warn");
        run(command, lines.as_bytes()).succeeded().stdout
    };
    let expected = embed(&[]);
    assert_eq!(expected.lines().count(), 40);
    for flags in [&["--max-batch-size", "1"][..], &["--max-batch-size", "5000", "--max-batch-weight", "1000000"]] {
        assert_eq!(embed(flags), expected, "{flags:?}");
    }
    // A text heavier than a batch may be is refused, which proves that the bound holds.
    let ended = ended(&["classify", "--model", "tiny-bert-sentiment", "--max-batch-weight", "4"], GOOD.as_bytes());
    let objects = ended.failed_with(1, &["1 of 1 inputs failed"]).objects();
    assert!(objects[0]["error"].as_str().unwrap().contains("at most 4"), "{}", objects[0]);
    for command in ["embed", "classify"] {
        for flag in ["--max-batch-size", "--max-batch-weight"] {
            let field = flag.trim_start_matches('-').replace('-', "_");
            let said = [&format!("{field} is 0, but must be at least 1")[..]];
            crate::command::ended(&[command, "--model", "magika", flag, "0"], b"").failed_with(2, &said);
        }
    }
}

#[test]
fn no_input_at_all_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("empty.txt");
    fs::write(&file, "").unwrap();
    for files in [&[][..], &[path(&file)]] {
        let ended = ended(&[&["classify", "--model", "tiny-bert-sentiment"], files].concat(), b"").succeeded();
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", "nothing to do: there was no input\n"));
    }
}

#[test]
fn a_signal_answers_what_was_begun_and_says_that_it_was_not_all() {
    for (name, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = sconce(&["classify", "--model", "tiny-bert-sentiment"]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        writeln!(stdin, "{GOOD}").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains("positive"), "{line}");
        // Standard input stays open: without the signal the command would wait for more.
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains("stopped after 1 inputs"), "{stderr}");
    }
}

#[test]
fn a_standard_error_that_nobody_reads_is_no_reason_to_fail() {
    let mut command = sconce(&["classify", "--model", "tiny-bert-sentiment"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    drop(child.stderr.take());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[GOOD.as_bytes(), b"caf\xe9\n"].join(&b'\n')).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "a line that is no UTF-8 fails");
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
}

#[test]
fn an_unknown_model_is_told_with_the_known_ones() {
    let said = ["no-such", "digits-cnn, encoder-mini, magika, tiny-bert-sentiment", "sconce pull"];
    ended(&["embed", "--model", "no-such"], b"").failed_with(2, &said);
}

#[test]
fn the_wrong_command_names_the_right_one() {
    ended(&["embed", "--model", "magika"], b"").failed_with(2, &["sconce classify --model magika"]);
    ended(&["classify", "--model", "encoder-mini"], b"").failed_with(2, &["sconce embed --model encoder-mini"]);
}

/// The numbers of an embedding of "hello" by a command with these options.
fn hello(options: &[&str]) -> Vec<f64> {
    let ended = ended(&[&["embed", "--model", "encoder-mini"], options].concat(), b"hello").succeeded();
    let numbers = ended.objects()[0]["embedding"].as_array().expect("an embedding").clone();
    numbers.iter().map(|x| x.as_f64().expect("a number")).collect()
}

#[test]
fn an_embedding_is_cut_and_scaled_as_the_options_say_and_wrong_options_are_named() {
    let length = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let (whole, cut, raw) = (hello(&[]), hello(&["--dimensions", "64"]), hello(&["--no-normalize"]));
    assert_eq!((whole.len(), cut.len(), raw.len()), (384, 64, 384));
    assert!((length(&cut) - 1.0).abs() < 1e-5 && (length(&raw) - 1.0).abs() > 0.1);
    let scale = length(&whole[..64]);
    assert!(whole.iter().zip(&cut).all(|(whole, cut)| (whole / scale - cut).abs() < 1e-5));
    let scale = length(&raw);
    assert!(whole.iter().zip(&raw).all(|(whole, raw)| (whole * scale - raw).abs() < 1e-4));

    let (bytes, bits) =
        (hello(&["--output-dtype", "int8"]), hello(&["--output-dtype", "ubinary", "--dimensions", "64"]));
    assert!(whole.iter().zip(&bytes).all(|(x, byte)| (((x + 1.0) * 127.5) - 128.0 - byte).abs() <= 1.0));
    let first = whole[..8].iter().fold(0, |byte, x| byte * 2 + i32::from(*x > 0.0));
    assert_eq!((bits.len(), bits[0]), (8, f64::from(first)));

    let embed = ["embed", "--model", "encoder-mini"];
    ended(&[&embed[..], &["--output-dtype", "int4"]].concat(), b"hello").failed_with(2, &["int4", "ubinary"]);
    ended(&[&embed[..], &["--dimensions", "385"]].concat(), b"hello").failed_with(2, &["dimensions", "385", "384"]);
    ended(&[&embed[..], &["--dimensions", "0"]].concat(), b"hello").failed_with(2, &["--dimensions"]);
    ended(&[&embed[..], &["--prompt", "query"]].concat(), b"hello").failed_with(2, &["prompt", "query"]);
    let classify = ["classify", "--model", "tiny-bert-sentiment", "--dimensions", "8"];
    ended(&classify, b"hello").failed_with(2, &["dimensions"]);
}

#[test]
fn entities_and_vectors_of_words_are_printed_by_the_command_of_their_kind() {
    let family = |name: &str| zoo().join("../tests/families").join(name);
    let ner = family("bert-ner");
    let line = ended(&["classify", "--model", path(&ner)], b"hello world").succeeded().objects();
    assert!(line[0]["entities"].is_array(), "{}", line[0]);
    ended(&["embed", "--model", path(&ner)], b"hello").failed_with(2, &["sconce classify"]);

    let splade = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(family("bert-splade").join(file), splade.path().join(file)).unwrap();
    }
    fs::write(splade.path().join("sconce.toml"), "[model]\ntask = \"sparse_embedding\"").unwrap();
    let line = ended(&["embed", "--model", path(splade.path())], b"hello world").succeeded().objects();
    assert!(line[0]["sparse"].is_array(), "{}", line[0]);
    ended(&["classify", "--model", path(splade.path())], b"hello").failed_with(2, &["sconce embed"]);
}

#[test]
fn a_model_can_be_given_as_a_directory() {
    let directory = zoo().join("tiny-bert-sentiment");
    let objects = ended(&["classify", "--model", path(&directory)], GOOD.as_bytes()).succeeded().objects();
    assert_eq!(objects[0]["label"], "positive");
}

#[test]
fn a_file_of_lines_that_is_not_there_ends_the_command_before_it_starts() {
    let args = ["classify", "--model", "tiny-bert-sentiment", "no-such-file.txt"];
    assert_eq!(ended(&args, b"").failed_with(2, &["no-such-file.txt"]).stdout, "");
    let directory = zoo();
    let args = ["classify", "--model", "tiny-bert-sentiment", path(&directory)];
    assert_eq!(ended(&args, b"").failed_with(2, &["directory"]).stdout, "");
}
