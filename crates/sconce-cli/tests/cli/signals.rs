//! Signals: each command says that it was stopped, and its exit status tells the signal.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::command::{Signal, path, sconce, signal, zoo};

/// Waits until the process handles both signals itself.
fn wait_until_it_listens(child: &mut Child) {
    let started = Instant::now();
    let both = [Signal::INT, Signal::TERM].iter().fold(0, |mask, signal| mask | 1_u64 << (signal.as_raw() - 1));
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("Linux says so");
        let caught = u64::from_str_radix(caught.trim(), 16).expect("a mask");
        if caught & both == both {
            return;
        }
        assert!(child.try_wait().expect("it is a child").is_none(), "it has ended");
        assert!(started.elapsed() < Duration::from_secs(20), "it does not listen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A models path of so many models that listing them outlasts the signal: each one is loaded.
fn many_models() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let model = zoo().join("encoder-mini");
    for copy in 0..500 {
        symlink(&model, directory.path().join(format!("copy-{copy}"))).expect("a link");
    }
    directory
}

#[test]
fn every_command_that_takes_long_says_that_it_was_stopped_and_by_which_signal() {
    let directory = tempfile::tempdir().unwrap();
    let (csv, png) = (directory.path().join("b.csv"), directory.path().join("b.png"));
    let bench = ["bench", "encoder-mini", "--rounds", "100000", "--csv", path(&csv), "--png", path(&png)];
    let explain = ["explain", "encoder-mini", "--measure"];
    let embed = ["embed", "--model", "encoder-mini"];
    let many = many_models();
    let models = ["models", "--models", path(many.path())];
    for args in [&bench[..], &explain, &embed, &models] {
        for (name, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let mut command = sconce(args);
            let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = piped.spawn().expect("the binary runs");
            wait_until_it_listens(&mut child);
            signal(&child, name);
            // `wait_with_output` closes standard input, which ends some commands: keep it open.
            let stdin = child.stdin.take();
            let output = child.wait_with_output().expect("it ends");
            drop(stdin);
            let stderr = String::from_utf8(output.stderr).expect("it prints UTF-8");
            assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
            assert!(stderr.contains("stopped"), "{args:?}: {stderr}");
        }
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was written");
}
