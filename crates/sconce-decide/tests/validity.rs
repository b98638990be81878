//! Records that count and records that do not, each for one reason.

use std::process::{Command, Stdio};

use jiff::Timestamp;
use sconce_decide::{
    AllowedSigners, CostOfBatch, Decided, DecidedCandidate, DecidedData, DecidedModel, DecisionRecord, Estimate,
    Hardware, Intention, Likeness, Measured, MeasuringBinary, NAMESPACE, RecordFile, Refusal, SCHEMA, ServingCandidate,
    ServingVerdict, SignError, sign,
};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

const APPROVER: &str = "cto@example.com";
const INTENTION: Intention<'_> = Intention { weights: "aa", processing: "bb", precision: "int8", device: "cpu" };

/// A private key made of a seed, and its public half.
fn key(seed: u8) -> (String, String) {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]));
    let private = key.to_openssh(LineEnding::LF).expect("a key can be written").to_string();
    (private, key.public_key().to_openssh().expect("a key can be written"))
}

fn signers(text: &str) -> AllowedSigners {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Signers of whom one, of seed 1, may approve.
fn trusted() -> AllowedSigners {
    signers(&format!("{APPROVER} {}\nengineer@example.com {}\n", key(1).1, key(2).1))
}

fn candidate(precision: &str, device: &str, verdict: ServingVerdict) -> DecidedCandidate {
    let one = Estimate { value: 0.8672, low: 0.85, high: 0.88 };
    DecidedCandidate {
        candidate: ServingCandidate {
            variant: None,
            precision: precision.to_owned(),
            device: device.to_owned(),
            max_batch_size: 32,
            max_batch_weight: 8192,
        },
        measured: Measured {
            accuracy: one,
            drop: Estimate { value: 0.0007, low: -0.001, high: 0.003 },
            also: Vec::new(),
            likeness: Likeness { mean: 0.999, p01: 0.997, least: 0.99 },
            latency_p50_ms: one,
            latency_p99_ms: one,
            throughput: Estimate::exact(900.0),
            memory_bytes: 23 << 20,
            cost_per_million: 0.03,
            cost: CostOfBatch { fixed: 0.001, per_weight: 1e-5, usual_weight: 512.0 },
        },
        verdict,
        reason: format!("{verdict:?} because of figures"),
    }
}

fn record() -> DecisionRecord {
    let policy = format!(
        "owner = 'search'\napprover = '{APPROVER}'\nexpires = 2027-06-30\nmetric = 'spearman'\n\
         max_drop = {{ absolute = 0.005 }}\nslo_p99_ms = 50\nprice_per_hour = {{ cpu = 0.1 }}"
    );
    DecisionRecord {
        schema: SCHEMA,
        made_at: "2026-11-28T12:00:00Z".parse().expect("a time"),
        model: DecidedModel {
            name: "minilm".to_owned(),
            parameters: 22_713_216,
            weights: "aa".to_owned(),
            processing: "bb".to_owned(),
        },
        data: DecidedData { file: "dev.csv".to_owned(), digest: "dd".to_owned(), examples: 1500 },
        binary: MeasuringBinary { version: "0.1.0".to_owned(), digest: "ee".to_owned() },
        hardware: Hardware {
            processor: "AMD EPYC".to_owned(),
            cpu_threads: 2,
            instructions: vec!["avx2".to_owned()],
            devices: Vec::new(),
        },
        policy: policy.parse().expect("a policy"),
        seed: 1,
        candidates: vec![
            candidate("f32", "cpu", ServingVerdict::Allowed),
            candidate("int8", "cpu", ServingVerdict::Chosen),
            candidate("q4k", "cpu", ServingVerdict::Refused),
        ],
    }
}

fn signed(record: &DecisionRecord, seed: u8) -> RecordFile {
    let record = record.to_json();
    let signature = sign(&record, &key(seed).0).expect("the key signs");
    RecordFile { record, signature: Some(signature) }
}

fn at(time: &str) -> Timestamp {
    time.parse().expect("a time")
}

fn allows(file: &RecordFile, intention: Intention<'_>) -> Result<Decided, String> {
    file.allows(intention, &trusted(), at("2027-01-01T00:00:00Z")).map_err(|refusal| refusal.to_string())
}

#[test]
fn a_signed_record_allows_the_precisions_that_it_chose_or_allowed() {
    let file = signed(&record(), 1);
    let decided = allows(&file, INTENTION).unwrap();
    assert_eq!((decided.candidate.verdict, decided.id.len()), (ServingVerdict::Chosen, 12));
    assert_eq!(decided.record, record(), "a record reads as it was written");
    assert_eq!(decided.id, DecisionRecord::id(&file.record));
    assert!(allows(&file, Intention { precision: "f32", ..INTENTION }).is_ok());
    assert_eq!(record().chosen().unwrap().candidate.precision, "int8");
}

#[test]
fn what_a_record_does_not_allow_is_refused_with_the_reason() {
    let good = signed(&record(), 1);
    let table = [
        (Intention { weights: "a0", ..INTENTION }, "its decision was made on other weights"),
        (Intention { processing: "b0", ..INTENTION }, "with another tokenizer, configuration or settings"),
        (Intention { precision: "q4k", ..INTENTION }, "its decision refuses q4k on cpu: Refused because of figures"),
        (
            Intention { precision: "f16", device: "cuda:0", ..INTENTION },
            "does not say anything of f16 on cuda:0: measured were f32 on cpu, int8 on cpu, q4k on cpu",
        ),
    ];
    for (intention, expected) in table {
        let refusal = allows(&good, intention).unwrap_err();
        assert!(refusal.contains(expected), "{intention:?}: {refusal}");
    }
}

#[test]
fn the_last_day_counts_to_its_end_and_the_next_does_not() {
    let file = signed(&record(), 1);
    let allows = |time| file.allows(INTENTION, &trusted(), at(time));
    assert!(allows("2027-06-30T23:59:59Z").is_ok());
    let refusal = allows("2027-07-01T00:00:00Z").unwrap_err();
    assert_eq!(refusal.to_string(), "its decision expired after 2027-06-30");
}

#[test]
fn any_byte_that_changes_makes_a_record_worthless() {
    let file = signed(&record(), 1);
    for at in (0..file.record.len()).step_by(37) {
        let mut changed = file.clone();
        changed.record[at] ^= 1;
        allows(&changed, INTENTION).unwrap_err();
    }
    let mut spaced = file.clone();
    spaced.record.push(b' ');
    assert!(allows(&spaced, INTENTION).unwrap_err().contains("it was changed after that"));
    let of_another = RecordFile { signature: signed(&DecisionRecord { seed: 2, ..record() }, 1).signature, ..file };
    assert!(allows(&of_another, INTENTION).unwrap_err().contains("the signature belongs to another"));
}

#[test]
fn only_the_approver_of_the_policy_approves() {
    let refusal = allows(&signed(&record(), 2), INTENTION).unwrap_err();
    assert!(
        refusal.contains("(engineer@example.com), and its policy wants the approval of 'cto@example.com': let them")
    );
    assert!(allows(&signed(&record(), 3), INTENTION).unwrap_err().contains("signed by SHA256:"));
    let unsigned = RecordFile { signature: None, ..signed(&record(), 1) };
    assert_eq!(allows(&unsigned, INTENTION).unwrap_err(), "its decision is not signed");
    let nobody = signed(&record(), 1).allows(INTENTION, &AllowedSigners::default(), at("2027-01-01T00:00:00Z"));
    assert!(nobody.unwrap_err().to_string().ends_with("let them sign, and add their key to the allowed signers"));
}

#[test]
fn options_of_a_signer_bound_what_counts() {
    let public = key(1).1;
    let table = [
        (format!("{APPROVER} namespaces=\"git,sconce-decision\" {public}"), true),
        (format!("{APPROVER} namespaces=\"git\" {public}"), false),
        (format!("a@example.com,{APPROVER} valid-after=\"20260101\",valid-before=\"20270601Z\" {public}"), true),
        (format!("{APPROVER} valid-after=\"202701010001\" {public}"), false),
        (format!("{APPROVER} valid-before=\"20261231235959\" {public}"), false),
    ];
    for (line, counts) in table {
        let allowed = signed(&record(), 1).allows(INTENTION, &signers(&line), at("2027-01-01T00:00:00Z"));
        assert_eq!(allowed.is_ok(), counts, "{line}: {allowed:?}");
    }
}

#[test]
fn lines_of_signers_that_mean_nothing_are_told_with_their_number() {
    let public = key(1).1;
    let table = [
        (format!("\n# a comment\n{APPROVER}"), "line 3: write PRINCIPAL"),
        (format!("*@example.com {public}"), "line 1: the principal '*@example.com' is a pattern or empty"),
        (format!("{APPROVER} cert-authority {public}"), "line 1: the option 'cert-authority' is not known"),
        (format!("{APPROVER} valid-after=\"soon\" {public}"), "line 1: the time 'soon' is none: write YYYYMMDD"),
        (
            format!("{APPROVER} valid-after=\"20270101\",valid-after=\"20260101\" {public}"),
            "line 1: the option 'valid-after' is given twice",
        ),
        (format!("{APPROVER} ssh-ed25519 AAAA"), "line 1: the key cannot be read"),
    ];
    for (text, expected) in table {
        let error = text.parse::<AllowedSigners>().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn a_record_of_another_form_is_refused_with_its_remedy() {
    let newer = String::from_utf8(record().to_json()).unwrap().replacen("\"schema\": 1", "\"schema\": 2", 1);
    let table = [
        (newer, "the record has schema 2, and this version reads 1: make it again"),
        ("{}".to_owned(), "not a decision record: missing field `schema`"),
        (
            String::from_utf8(record().to_json()).unwrap().replacen("\"seed\": 1", "\"seed\": 1, \"expires\": 1", 1),
            "not a decision record: expires: unknown field",
        ),
        (
            String::from_utf8(record().to_json()).unwrap().replacen("\"confidence\": 0.95", "\"confidence\": 95", 1),
            "not a decision record: the policy's max_drop.confidence is 95",
        ),
        (
            String::from_utf8(record().to_json()).unwrap().replacen(
                "\"precision\": \"f32\"",
                "\"precision\": \"f16\"",
                1,
            ),
            "not a decision record: candidates: the first is not the reference",
        ),
        ("{\"schema\": 1, \"made_at\": 5}".to_owned(), "not a decision record: made_at: "),
        (" ".repeat(5 << 20), "5242880 bytes: records have at most 4194304"),
    ];
    for (text, expected) in table {
        let error = DecisionRecord::from_json(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn signatures_for_other_things_and_keys_that_cannot_sign_are_refused() {
    let record = record().to_json();
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&[1; 32]));
    let for_git = key.sign("git", ssh_key::HashAlg::Sha512, &record).unwrap().to_pem(LineEnding::LF).unwrap();
    let file = RecordFile { record: record.clone(), signature: Some(for_git) };
    assert!(allows(&file, INTENTION).unwrap_err().starts_with("the signature is for 'git', not for 'sconce-decision'"));
    let garbage = RecordFile { record: record.clone(), signature: Some("signed, the CTO".to_owned()) };
    assert!(allows(&garbage, INTENTION).unwrap_err().starts_with("the signature cannot be read"));
    assert!(matches!(sign(&record, "no key"), Err(SignError::Unreadable(_))));
}

/// A signature by OpenSSH counts here, and OpenSSH accepts one that is made here.
#[test]
fn signatures_are_those_of_openssh() {
    if Command::new("ssh-keygen").arg("-?").stderr(Stdio::null()).status().is_err() {
        eprintln!("skipped: no ssh-keygen on this machine");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let run = |arguments: &[&str], input: Option<&str>| {
        let mut command = Command::new("ssh-keygen");
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.stdin(input.map_or_else(Stdio::null, |input| std::fs::File::open(input).unwrap().into()));
        command.status().unwrap().success()
    };
    assert!(run(&["-q", "-t", "ed25519", "-N", "", "-f", &path("key")], None));
    let public = std::fs::read_to_string(path("key.pub")).unwrap();
    std::fs::write(path("allowed_signers"), format!("{APPROVER} {public}")).unwrap();
    std::fs::write(path("decision.json"), record().to_json()).unwrap();
    assert!(run(&["-Y", "sign", "-n", NAMESPACE, "-f", &path("key"), &path("decision.json")], None));
    let signature = std::fs::read_to_string(path("decision.json.sig")).unwrap();
    let signers = signers(&std::fs::read_to_string(path("allowed_signers")).unwrap());
    let file = RecordFile { record: record().to_json(), signature: Some(signature) };
    file.allows(INTENTION, &signers, at("2027-01-01T00:00:00Z")).unwrap();

    let private = std::fs::read_to_string(path("key")).unwrap();
    std::fs::write(path("ours.sig"), sign(&record().to_json(), &private).unwrap()).unwrap();
    let verify =
        ["-Y", "verify", "-n", NAMESPACE, "-I", APPROVER, "-f", &path("allowed_signers"), "-s", &path("ours.sig")];
    assert!(run(&verify, Some(&path("decision.json"))));

    assert!(run(&["-q", "-p", "-N", "secret", "-f", &path("key")], None));
    let locked = std::fs::read_to_string(path("key")).unwrap();
    assert_eq!(sign(&record().to_json(), &locked), Err(SignError::Encrypted));
    assert!(run(&["-q", "-t", "ecdsa", "-N", "", "-f", &path("other")], None));
    let other = std::fs::read_to_string(path("other")).unwrap();
    assert!(sign(&record().to_json(), &other).is_err());
    assert!(matches!(
        RecordFile { record: vec![b'{'; 8], signature: None }.allows(INTENTION, &signers, Timestamp::UNIX_EPOCH),
        Err(Refusal::Record(_))
    ));
}
