//! Lower precisions serve by decision: each way in which a record does not count is refused at load, with its reason.

use std::fs;
use std::path::{Path, PathBuf};

use sconce::decide::{AllowedSigners, hex, sign};
use sconce::{BuildError, DECISION_FILE, ModelSource, Permission, Precision, Runtime, RuntimeBuilder};
use serde_json::{Value, json};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};
use tempfile::TempDir;

const APPROVER: &str = "cto@example.com";
const TEXT: &str = "what a lovely day";

/// A copy of a model that ships, in which files may be changed.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo/tiny-bert-sentiment");
        let place = Self { directory: tempfile::tempdir().expect("a directory can be made") };
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::create_dir_all(place.model()).expect("a directory can be made");
            fs::copy(zoo.join(file), place.model().join(file)).expect("a file can be copied");
        }
        place
    }

    fn model(&self) -> PathBuf {
        self.directory.path().join("sentiment")
    }

    fn source(&self, precision: Precision) -> ModelSource {
        ModelSource::new(self.model()).precision(precision).device(sconce::DeviceName::CPU)
    }

    /// A record that chooses int8 and refuses q4k.
    fn record(&self) -> Value {
        let runtime = Runtime::builder().model(self.source(Precision::F32)).build().expect("f32 needs no decision");
        let digests = runtime.model("sentiment").expect("it is loaded").digests().expect("its files can be read");
        let one = json!({"value": 0.8, "low": 0.79, "high": 0.81});
        let candidate = |precision: &str, verdict: &str, reason: &str| {
            json!({
                "candidate": {"precision": precision, "device": "cpu", "max_batch_size": 32, "max_batch_weight": 8192},
                "measured": {
                    "accuracy": one, "drop": one, "likeness": {"mean": 1.0, "p01": 0.99, "least": 0.9},
                    "latency_p50_ms": one, "latency_p99_ms": one, "throughput": one, "memory_bytes": 1,
                    "cost_per_million": 0.1, "cost": {"fixed": 1e-4, "per_weight": 1e-6, "usual_weight": 100.0},
                },
                "verdict": verdict, "reason": reason,
            })
        };
        json!({
            "schema": 1, "made_at": "2026-11-28T12:00:00Z", "seed": 1,
            "model": {
                "name": "sentiment", "parameters": 1,
                "weights": hex(digests.weights), "processing": hex(digests.processing),
            },
            "data": {"file": "test.tsv", "digest": "", "examples": 2429},
            "binary": {"version": "0.1.0", "digest": ""},
            "hardware": {"processor": "", "cpu_threads": 2, "instructions": [], "devices": []},
            "policy": {
                "owner": "search", "approver": APPROVER, "expires": "2999-12-31", "metric": "accuracy",
                "max_drop": {"absolute": 0.01}, "slo_p99_ms": 50.0, "price_per_hour": {"cpu": 0.1},
            },
            "candidates": [
                candidate("f32", "allowed", "dearer"), candidate("int8", "chosen", "cheapest"),
                candidate("q4k", "refused", "it loses up to 0.04 of accuracy"),
            ],
        })
    }

    /// Writes a record that the key of this seed has signed.
    fn decide(&self, record: &Value, seed: u8) {
        let record = serde_json::to_vec(record).expect("JSON can be written");
        let signature = sign(&record, &key(seed).to_openssh(LineEnding::LF).expect("a key can be written"));
        let path = self.model().join(DECISION_FILE);
        fs::write(&path, &record).expect("a file can be written");
        fs::write(path.with_added_extension("sig"), signature.expect("the key signs")).expect("a file can be written");
    }

    /// Builds a runtime that believes the key of seed 1.
    fn build(&self, precision: Precision) -> Result<Runtime, BuildError> {
        builder().model(self.source(precision)).build()
    }

    fn refusal(&self, precision: Precision) -> String {
        match self.build(precision) {
            Ok(_) => panic!("{precision} was served"),
            Err(error) => error.to_string(),
        }
    }
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn builder() -> RuntimeBuilder {
    let public = key(1).public_key().to_openssh().expect("a key can be written");
    let signers: AllowedSigners = format!("{APPROVER} {public}").parse().expect("a line of a signer");
    Runtime::builder().without_warm_up().allowed_signers(signers)
}

#[tokio::test]
async fn a_signed_record_lets_a_model_serve_and_answers_name_it() {
    let place = Place::new();
    let refusal = place.refusal(Precision::Int8);
    for part in
        ["may not serve in int8 on cpu: there is no decision on it", "sconce decide sentiment", "--allow-undecided"]
    {
        assert!(refusal.contains(part), "{refusal}");
    }
    place.decide(&place.record(), 1);
    let runtime = place.build(Precision::Int8).unwrap();
    let model = runtime.model("sentiment").unwrap();
    let Permission::Decided(decided) = model.permission() else { panic!("{:?}", model.permission()) };
    let answer = model.infer(TEXT).await.unwrap();
    assert_eq!((answer.precision, answer.decision.as_deref()), (Precision::Int8, Some(&*decided.id)));
    let metrics = model.metrics().decision.unwrap();
    assert_eq!((&metrics.id, metrics.expires), (&decided.id, Some(32_503_679_999)));
    let f32 = place.build(Precision::F32).unwrap().model("sentiment").unwrap();
    assert_eq!((f32.permission(), f32.infer(TEXT).await.unwrap().decision), (&Permission::Reference, None));
}

#[test]
fn a_record_that_does_not_count_is_refused_at_load_with_the_reason() {
    let place = Place::new();
    let record = place.record();
    let record_path = place.model().join(DECISION_FILE);

    place.decide(&record, 1);
    let tampered = fs::read_to_string(&record_path).unwrap().replace("\"refused\"", "\"allowed\"");
    assert!(place.refusal(Precision::Q4K).contains("its decision refuses q4k on cpu: it loses up to 0.04 of accuracy"));
    fs::write(&record_path, tampered).unwrap();
    assert!(place.refusal(Precision::Q4K).contains("the record is not what was signed"));
    assert!(place.refusal(Precision::Int8).contains("the record is not what was signed"));

    place.decide(&record, 2);
    assert!(place.refusal(Precision::Int8).contains("its policy wants the approval of 'cto@example.com'"));
    fs::remove_file(record_path.with_added_extension("sig")).unwrap();
    assert!(place.refusal(Precision::Int8).contains("its decision is not signed"));

    let mut expired = record.clone();
    expired["policy"]["expires"] = json!("2026-11-27");
    place.decide(&expired, 1);
    assert!(place.refusal(Precision::Int8).contains("its decision expired after 2026-11-27"));

    place.decide(&record, 1);
    assert!(place.refusal(Precision::Q8_0).contains("measured were f32 on cpu, int8 on cpu, q4k on cpu"));
    place.build(Precision::Int8).unwrap();
    place.build(Precision::F32).unwrap();
}

#[test]
fn changed_weights_tokenizers_and_settings_need_a_new_decision() {
    let place = Place::new();
    place.decide(&place.record(), 1);
    place.build(Precision::Int8).unwrap();
    let change = |file: &str, change: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let path = place.model().join(file);
        let before = fs::read(&path).ok();
        let mut bytes = before.clone().unwrap_or_default();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        assert!(place.refusal(Precision::Int8).contains(expected), "{file}: {}", place.refusal(Precision::Int8));
        match before {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        place.build(Precision::Int8).unwrap();
    };
    let last = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    change("model.safetensors", &last, "its decision was made on other weights");
    change("tokenizer.json", &|bytes| bytes.push(b'\n'), "its decision was made with another tokenizer");
    let shorter = |bytes: &mut Vec<u8>| bytes.extend(b"[model]\nmax_tokens = 16\n");
    change("sconce.toml", &shorter, "its decision was made with another tokenizer, configuration or settings");
}

#[tokio::test]
async fn an_experiment_is_served_undecided_and_says_so() {
    let place = Place::new();
    let runtime = builder().allow_undecided(true).model(place.source(Precision::Int8)).build().unwrap();
    let model = runtime.model("sentiment").unwrap();
    assert_eq!(model.permission(), &Permission::Undecided);
    assert_eq!(model.infer(TEXT).await.unwrap().decision.as_deref(), Some("undecided"));
    assert_eq!(model.metrics().decision.map(|decision| decision.id).as_deref(), Some("undecided"));
}

#[test]
fn records_that_are_no_files_or_too_large_hold_nothing_up() {
    let place = Place::new();
    let path = place.model().join(DECISION_FILE);
    fs::create_dir(&path).unwrap();
    assert!(place.refusal(Precision::Int8).contains("cannot be read: it is no file"));
    fs::remove_dir(&path).unwrap();
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(place.refusal(Precision::Int8).contains("records have at most 4194304"));
    fs::write(&path, "{\"schema\": 7}").unwrap();
    assert!(place.refusal(Precision::Int8).contains("the record has schema 7"));
}
