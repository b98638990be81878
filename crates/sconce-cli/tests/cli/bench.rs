use std::fs;

use crate::command::{ended, path};

const QUICK: [&str; 4] = ["--rounds", "2", "--turn-ms", "1"];

fn bench(args: &[&str]) -> crate::command::Ended {
    ended(&[&["bench"], args, &QUICK].concat(), b"")
}

#[test]
fn every_precision_and_batch_is_compared_with_f32_and_timed() {
    let ended = bench(&["tiny-bert-sentiment", "--precisions", "f32,int8", "--batches", "1x16,4x32,mixed"]).succeeded();
    let said = &ended.stdout;
    assert!(["machine: ", "command: ", "date: 20"].iter().all(|words| said.contains(words)), "{said}");
    let rows: Vec<Vec<&str>> = said
        .lines()
        .filter(|line| line.starts_with("tiny-bert-sentiment"))
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let kinds: Vec<_> = rows.iter().map(|row| (row[1], row[2], row[3])).collect();
    let expected = ["f32", "int8"].map(|precision| ["1x16", "4x32", "mixed"].map(|batch| ("cpu", precision, batch)));
    assert_eq!(kinds, expected.concat(), "{said}");
    assert!(rows.iter().filter(|row| row[2] == "f32").all(|row| row[4] == "0.0e0"), "it is its own reference: {said}");
    assert!(rows.iter().filter(|row| row[2] == "int8").all(|row| row[4].starts_with("cos 0.99")), "{said}");
    for row in &rows {
        let items: f64 = row[8].parse().unwrap();
        let tokens: f64 = row[9].parse().unwrap();
        assert!(items > 0.0 && tokens > items, "{row:?}");
    }
}

#[test]
fn a_file_of_values_and_a_picture_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let (csv, png) = (directory.path().join("b.csv"), directory.path().join("b.png"));
    let args =
        ["digits-cnn", "magika", "--precisions", "f32", "--batches", "2x16", "--csv", path(&csv), "--png", path(&png)];
    bench(&args).succeeded();
    let csv = fs::read_to_string(csv).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3, "{csv}");
    assert!(lines[0].starts_with("model,device,precision,batch,items,weight,distance,batches,median_s"), "{csv}");
    assert!(lines[1].starts_with("digits-cnn,cpu,f32,2x16,2,2,0,"), "{csv}");
    let png = fs::read(png).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 2000, "{} bytes", png.len());
}

#[test]
fn what_a_model_does_not_have_is_left_out_and_told() {
    let ended =
        bench(&["magika", "tiny-bert-sentiment", "--precisions", "f32,q4k", "--batches", "1x16,1x128"]).succeeded();
    assert!(ended.stderr.contains("magika has no q4k on cpu: left out"), "{}", ended.stderr);
    assert!(ended.stderr.contains("tiny-bert-sentiment takes no batch 1x128: left out"), "{}", ended.stderr);
}

#[test]
fn nothing_to_show_is_a_failure_that_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let csv = directory.path().join("b.csv");
    let args = ["magika", "digits-cnn", "--precisions", "int8,q4k", "--csv", path(&csv)];
    let said =
        ["nothing could be measured: magika has no int8 on cpu; magika has no q4k", "--precisions", "sconce models"];
    bench(&args).failed_with(2, &said);
    assert!(!csv.exists(), "a table of nothing is none");
    bench(&["tiny-bert-sentiment", "--batches", "1x4096"]).failed_with(2, &["takes no batch 1x4096", "--batches"]);
    // A named model of which nothing can be shown is a failure.
    let ended = bench(&["magika", "tiny-bert-sentiment", "--precisions", "int8", "--batches", "1x16"]);
    let ended = ended.failed_with(1, &["magika has no int8 on cpu: left out", "nothing of magika could be measured"]);
    assert!(ended.stdout.lines().any(|line| line.starts_with("tiny-bert-sentiment  cpu")), "{}", ended.stdout);
    bench(&["magika", "magika"]).failed_with(2, &["--model magika is given twice"]);
}

#[test]
fn a_target_that_cannot_be_written_is_told_before_anything_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    for flag in ["--csv", "--png"] {
        let target = directory.path().join("no/such/b.png");
        let ended = bench(&["digits-cnn", flag, path(&target)]).failed_with(2, &["cannot write", "b.png"]);
        assert!(!ended.stdout.contains("digits-cnn  cpu"), "{}", ended.stdout);
    }
    let csv = directory.path().join("b.csv");
    fs::write(&csv, "earlier").unwrap();
    bench(&["no-such-model", "--csv", path(&csv)]).failed_with(2, &["no-such-model"]);
    bench(&["digits-cnn", "--precisions", "q4k", "--csv", path(&csv)]).failed_with(2, &["nothing could be measured"]);
    assert_eq!(fs::read_to_string(&csv).unwrap(), "earlier");
    let gif = directory.path().join("picture.gif");
    bench(&["digits-cnn", "--png", path(&gif)]).failed_with(2, &["cannot draw", ".png"]);
}

#[test]
fn bad_arguments_are_refused_with_what_is_allowed() {
    bench(&["tiny-bert-sentiment", "--batches", "8"]).failed_with(2, &["batch '8' is not known; give TEXTSxTOKENS"]);
    bench(&["tiny-bert-sentiment", "--devices", "gpu"])
        .failed_with(2, &["device 'gpu' is not known; give cpu, or cuda:N"]);
    bench(&["tiny-bert-sentiment", "--devices", "cuda:0"]).failed_with(2, &["device cuda:0"]);
}
