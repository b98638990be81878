use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sconce::decide::{DecidedCandidate, DecisionRecord, ServingVerdict};
use sconce::models::f16;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};
use tempfile::TempDir;

use crate::command::{Ended, Signal, ended, path, sconce, signal, zoo};

const QUICK: [&str; 4] = ["--rounds", "2", "--turn-ms", "10"];
const HEADER: [&str; 2] = ["--header", "label,rating,source,text"];

const POLICY: &str = "owner = 'search@example.com'\napprover = 'cto@example.com'\nexpires = 2999-12-31\n\
    metric = 'accuracy'\nmax_drop = { absolute = 0.02 }\nslo_p99_ms = 10000\nprice_per_hour = { cpu = 0.096 }\n";

/// A directory with a policy, and a sample of the test data of tiny-bert-sentiment without its header.
struct Given {
    directory: TempDir,
}

impl Given {
    fn new(policy: &str) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        fs::write(directory.path().join("policy.toml"), policy).expect("there is room for a file");
        let all = fs::read_to_string(zoo().join("tiny-bert-sentiment/test.tsv")).expect("the data ships");
        let sample: Vec<&str> = all.lines().step_by(8).collect();
        fs::write(directory.path().join("test.tsv"), sample.join("\n")).expect("there is room for a file");
        Self { directory }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Arguments that decide on tiny-bert-sentiment by the data and the policy into the directory of these paths.
    fn args<'a>(paths: &'a [PathBuf; 3], flags: &[&'a str]) -> Vec<&'a str> {
        let [data, policy, out] = paths.each_ref().map(|it| path(it));
        let named = ["decide", "tiny-bert-sentiment", "--data", data, "--policy", policy, "--out", out];
        [&named[..], &HEADER, &QUICK, flags].concat()
    }

    fn paths(&self) -> [PathBuf; 3] {
        [self.at("test.tsv"), self.at("policy.toml"), self.at("out")]
    }

    fn decide(&self, flags: &[&str]) -> Ended {
        ended(&Self::args(&self.paths(), flags), b"")
    }

    fn record(&self) -> DecisionRecord {
        let json = fs::read(self.at("out/decision.json")).expect("there is a record");
        DecisionRecord::from_json(&json).expect("it is one")
    }
}

fn find<'a>(record: &'a DecisionRecord, precision: &str, variant: Option<&str>) -> &'a DecidedCandidate {
    let is = |it: &&DecidedCandidate| it.candidate.precision == precision && it.candidate.variant.as_deref() == variant;
    record.candidates.iter().find(is).expect("it is a candidate")
}

/// Copies a model whose matrices are rounded to 4 bits with one scale for each tensor: too coarse for any encoder.
fn rounded_to_4_bits(model: &Path, copy: &Path) {
    fs::create_dir(copy).expect("the directory is new");
    for file in model.read_dir().expect("the model ships") {
        let file = file.expect("the directory can be read");
        fs::copy(file.path(), copy.join(file.file_name())).expect("there is room for a file");
    }
    let bytes = fs::read(model.join("model.safetensors")).expect("the weights ship");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let rounded: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            assert_eq!(tensor.dtype(), Dtype::F16, "the weights ship in f16");
            let numbers = tensor.data().as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32());
            let mut numbers: Vec<f32> = numbers.collect();
            if tensor.shape().len() > 1 {
                let scale = numbers.iter().fold(0f32, |most, number| most.max(number.abs())) / 7.0;
                for number in &mut numbers {
                    *number = (*number / scale).round() * scale;
                }
            }
            let bytes = numbers.iter().flat_map(|number| f16::from_f32(*number).to_le_bytes()).collect();
            (name, tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views = rounded.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F16, shape.clone(), bytes).expect("as many bytes as before"))
    });
    safetensors::serialize_to_file(views, None, &copy.join("model.safetensors")).expect("there is room for a file");
}

#[test]
fn a_precision_is_decided_on_a_planted_bad_candidate_loses_and_a_second_run_reproduces_the_record() {
    let given = Given::new(POLICY);
    let coarse = given.at("coarse");
    rounded_to_4_bits(&zoo().join("tiny-bert-sentiment"), &coarse);
    let candidate = format!("coarse={}", path(&coarse));
    let said = given.decide(&["--precisions", "int8", "--candidate", &candidate]).succeeded().stdout;
    let record = given.record();
    let verdicts: Vec<_> = record.candidates.iter().map(|it| (it.candidate.precision.as_str(), it.verdict)).collect();
    assert_eq!(verdicts.len(), 3, "{said}");
    assert_eq!(record.data.examples, 304);
    let planted = find(&record, "f32", Some("coarse"));
    assert_eq!(planted.verdict, ServingVerdict::Refused, "{}", planted.reason);
    assert!(planted.reason.contains("lose too much accuracy") || planted.reason.starts_with("loses too much accuracy"));
    let (exact, int8) = (find(&record, "f32", None), find(&record, "int8", None));
    assert!(exact.measured.drop.high == 0.0 && exact.verdict != ServingVerdict::Refused);
    assert!(int8.verdict != ServingVerdict::Refused && int8.measured.likeness.mean > 0.97, "{}", int8.reason);
    for it in &record.candidates {
        assert!(it.measured.throughput.value > 0.0 && it.measured.latency_p99_ms.value > 0.0, "{it:?}");
        assert!(it.measured.cost_per_million > 0.0 && it.measured.memory_bytes > 1 << 20, "{it:?}");
        assert!(it.measured.cost.usual_weight > 1.0, "{it:?}");
        assert!(said.contains(&it.reason), "{}: {said}", it.reason);
    }
    let page = fs::read_to_string(given.at("out/decision.md")).unwrap();
    assert!(page.starts_with("# tiny-bert-sentiment: ") && page.contains(&planted.reason), "{page}");
    let svg = fs::read_to_string(given.at("out/decision.svg")).unwrap();
    assert!(svg.contains("prefers-color-scheme") && svg.contains("coarse (f32) on cpu (refused)"), "{svg}");
    assert!(!given.at("out/decision.work.json").exists(), "it is done");

    // Accuracy is the same to the digit; times depend on what else this machine does.
    let out = given.at("out/decision.json");
    let [data, _, again] = given.paths();
    let verify = |record: &Path| {
        let named = ["decide", "tiny-bert-sentiment", "--data", path(&data), "--verify", path(record)];
        let flags = ["--out", path(&again), "--candidate", &candidate];
        ended(&[&named[..], &HEADER, &QUICK, &flags].concat(), b"")
    };
    let compared = verify(&out);
    let line = |name: &str, candidate: &str| {
        let has = |line: &&str| line.starts_with(candidate) && line.contains(name);
        compared.stdout.lines().find(has).unwrap_or_else(|| panic!("{name} of {candidate}: {compared:?}")).to_owned()
    };
    for candidate in ["f32 on cpu", "int8 on cpu", "coarse (f32) on cpu"] {
        for name in ["accuracy", "macro_f1", "drop"] {
            assert!(line(name, candidate).ends_with("  within"), "{}", line(name, candidate));
        }
        assert!(line("items/s", candidate).ends_with("within") || compared.status == Some(1));
    }

    // A record that claims more than is so, and one of other data.
    let mut claimed = record.clone();
    claimed.candidates[1].measured.accuracy = sconce::decide::Estimate::exact(0.99);
    let changed = given.at("claimed.json");
    fs::write(&changed, claimed.to_json()).unwrap();
    let ended = verify(&changed).failed_with(1, &[]);
    assert!(ended.stdout.lines().any(|line| line.contains("0.9900") && line.ends_with("OUTSIDE")), "{}", ended.stdout);
    let mut other = record;
    other.data.digest = "00".repeat(32);
    fs::write(&changed, other.to_json()).unwrap();
    verify(&changed).failed_with(2, &["data of the record 0000", "of this run", "only on the same data"]);
}

#[test]
fn data_from_a_pipe_is_refused_since_a_record_names_its_digest() {
    let given = Given::new(POLICY);
    let [_, policy, out] = given.paths();
    let args = ["decide", "tiny-bert-sentiment", "--data", "/dev/stdin", "--format", "tsv", "--policy", path(&policy)];
    let ended = ended(&[&args[..], &["--out", path(&out)]].concat(), b"text\tlabel\n");
    ended.failed_with(2, &["/dev/stdin", "it is no file", "write it to a file first"]);
}

#[test]
fn a_comparison_that_was_stopped_goes_on_from_there() {
    let given = Given::new(POLICY);
    let paths = given.paths();
    // Far more rounds than there is time for.
    let args = Given::args(&paths, &["--precisions", "int8"]);
    let args: Vec<&str> = args.into_iter().map(|arg| if arg == "2" { "1000" } else { arg }).collect();
    let mut command = sconce(&args);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let compared = said.find(|line| line.as_ref().is_ok_and(|line| line == "compared the answers to 304 examples"));
    assert!(compared.is_some(), "answers are compared first");
    signal(&child, Signal::INT);
    let rest: Vec<String> = said.map(|line| line.unwrap()).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.last().is_some_and(|line| line == "stopped; the same command goes on from here"), "{rest:?}");
    assert!(given.at("out/decision.work.json").exists() && !given.at("out/decision.json").exists());

    let ended = given.decide(&["--precisions", "int8"]).succeeded();
    assert!(ended.stderr.contains("going on from where an earlier run was stopped"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("compared the answers"), "the answers were there: {}", ended.stderr);
    assert!(given.at("out/decision.json").exists() && !given.at("out/decision.work.json").exists());
}

#[test]
fn images_of_a_data_set_are_decided_on_with_every_limit_of_batches() {
    let given = Given::new(POLICY);
    let data = zoo().join("digits-cnn/test.safetensors");
    let (policy, out) = (given.at("policy.toml"), given.at("out"));
    let named = ["decide", "digits-cnn", "--data", path(&data), "--policy", path(&policy), "--out", path(&out)];
    let ended = ended(&[&named[..], &QUICK, &["--max-batch-size", "4,32", "--json"]].concat(), b"").succeeded();
    let record = DecisionRecord::from_json(ended.stdout.as_bytes()).unwrap();
    assert_eq!(record, given.record());
    let limits: Vec<_> = record.candidates.iter().map(|it| it.candidate.max_batch_size).collect();
    assert_eq!((limits, record.data.examples), (vec![4, 32], 450));
    for it in &record.candidates {
        assert!((it.measured.accuracy.value - 443.0 / 450.0).abs() < 1e-12, "{it:?}");
    }
}

#[test]
fn texts_without_labels_are_compared_with_f32() {
    let given = Given::new(&POLICY.replace("'accuracy'", "'cosine'"));
    let data = given.at("texts.jsonl");
    fs::write(&data, "{\"text\": \"a sconce holds candles\"}\n{\"text\": \"the train is late\"}\n".repeat(20)).unwrap();
    let (policy, out) = (given.at("policy.toml"), given.at("out"));
    let named = ["decide", "encoder-mini", "--data", path(&data), "--policy", path(&policy), "--out", path(&out)];
    ended(&[&named[..], &QUICK, &["--precisions", "int8"]].concat(), b"").succeeded();
    let record = given.record();
    let int8 = &find(&record, "int8", None).measured;
    assert!(int8.accuracy.value > 0.99 && int8.drop.value > 0.0 && int8.drop.value < 0.01, "{int8:?}");
    assert!((find(&record, "f32", None).measured.accuracy.value - 1.0).abs() < 1e-12);
}

#[test]
fn pairs_and_rankings_have_their_metrics() {
    let given = Given::new(&POLICY.replace("'accuracy'", "'map'"));
    let data = given.at("answers.csv");
    let passages =
        [("what holds candles?", "a sconce holds candles", 1), ("what holds candles?", "the train is late", 0)];
    let others = [("when does it leave?", "the train leaves at nine", 1), ("when does it leave?", "a candle burns", 0)];
    let rows = passages.iter().chain(&others).map(|(question, answer, label)| format!("{question},{label},{answer}\n"));
    fs::write(&data, format!("qtext,label,atext\n{}", rows.collect::<String>())).unwrap();
    let (policy, out) = (given.at("policy.toml"), given.at("out"));
    let decide = |flags: &[&str]| {
        let named = ["decide", "encoder-mini", "--data", path(&data), "--policy", path(&policy), "--out", path(&out)];
        ended(&[&named[..], &QUICK, &["--precisions", "f32"], flags].concat(), b"")
    };
    decide(&[]).succeeded();
    let record = given.record();
    let measured = &record.candidates[0].measured;
    assert!((record.data.examples, measured.accuracy.value) == (2, 1.0), "{measured:?}");
    let names: Vec<_> = measured.also.iter().map(|(metric, _)| metric.name()).collect();
    assert_eq!(names, ["mrr", "ndcg", "cosine", "agreement"]);

    fs::write(given.at("policy.toml"), POLICY.replace("'accuracy'", "'spearman'")).unwrap();
    fs::write(&data, "sentence1,sentence2,score\na candle,a candle,5\na candle,a train,0.5\na dog,the dog,4\n")
        .unwrap();
    decide(&[]).succeeded();
    assert!((given.record().candidates[0].measured.accuracy.value - 1.0).abs() < 1e-12);
    fs::write(&data, "sentence1,sentence2,score\na candle,a candle,high\n").unwrap();
    decide(&[]).failed_with(2, &["answers.csv:2: column 'score' holds 'high'; it must hold a number"]);
}

#[test]
fn a_model_is_served_by_the_decision_that_was_signed() {
    let given = Given::new(POLICY);
    let copy = given.at("model");
    fs::create_dir(&copy).unwrap();
    for file in zoo().join("tiny-bert-sentiment").read_dir().unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let (data, policy, key, signers) =
        (given.at("test.tsv"), given.at("policy.toml"), given.at("key"), given.at("signers"));
    let private = PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]));
    fs::write(&key, private.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    fs::write(&signers, format!("cto@example.com {}\n", private.public_key().to_openssh().unwrap())).unwrap();
    let named = ["decide", path(&copy), "--data", path(&data), "--policy", path(&policy), "--sign-with", path(&key)];
    ended(&[&named[..], &HEADER, &QUICK, &["--precisions", "int8"]].concat(), b"").succeeded();
    let classify = ["classify", "--model", path(&copy), "--precision", "int8"];
    ended(&classify, b"What a wonderful day!").failed_with(2, &["may not serve in int8"]);
    let ended = ended(&[&classify[..], &["--allowed-signers", path(&signers)]].concat(), b"What a wonderful day!");
    let object = ended.succeeded().objects().swap_remove(0);
    assert_eq!((&object["precision"], &object["label"]), (&"int8".into(), &"positive".into()));
    let id = DecisionRecord::id(&fs::read(copy.join("decision.json")).unwrap());
    assert_eq!(object["decision"], id.as_str(), "{object}");
}

#[test]
fn a_comparison_that_cannot_be_made_is_refused_with_the_remedy() {
    let given = Given::new(POLICY);
    let policy = |from: &str, to: &str| fs::write(given.at("policy.toml"), POLICY.replace(from, to)).unwrap();
    given.decide(&["--devices", "cuda:0"]).failed_with(2, &["the policy has no price for cuda:0", "price_per_hour"]);
    given.decide(&["--candidate", "coarse"]).failed_with(2, &["'coarse' is not NAME=DIR"]);
    given
        .decide(&["--candidate", "coarse=/nonexistent"])
        .failed_with(2, &["--candidate coarse=/nonexistent: there is no"]);
    given
        .decide(&["--column", "input=body"])
        .failed_with(2, &["--column input=body: there is no such column", "rating"]);
    let many: Vec<String> = (1..=65).map(|size: usize| size.to_string()).collect();
    given.decide(&["--max-batch-size", &many.join(",")]).failed_with(2, &["more than 64", "--max-batch-size"]);
    policy("'accuracy'", "'spearman'");
    given.decide(&[]).failed_with(2, &["the policy's metric is 'spearman'", "it gives: accuracy, macro_f1, agreement"]);
    policy("0.096 }\n", "0.096 }\nfallback = 'int4'\n");
    given.decide(&[]).failed_with(2, &["the policy's fallback is 'int4'", "did you mean q4k?"]);
    policy("owner", "owners");
    given.decide(&[]).failed_with(2, &["policy.toml: the policy cannot be read: ", "owners"]);
    policy("", "");
    fs::write(given.at("test.tsv"), "1\t0\ta\tgood\n7\t0\ta\tbad\n").unwrap();
    let said =
        ["test.tsv:2: column 'label' holds '7'", "a label of the model (negative, positive) or its number from 0 to 1"];
    given.decide(&[]).failed_with(2, &said);
    fs::remove_file(given.at("test.tsv")).unwrap();
    given.decide(&[]).failed_with(2, &["test.tsv: No such file"]);
    assert!(!given.at("out/decision.json").exists());
}
