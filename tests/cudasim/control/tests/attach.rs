//! A process finds the simulator where the simulator's libraries are, and nowhere else.
//!
//! The library path counts when a process starts, so each case runs this test again in a process of its own.

use std::path::Path;
use std::process::Command;

use sconce_cudasim_control::Control;

/// Set in the environment of a process that runs one of the cases.
const CASE: &str = "SCONCE_CUDASIM_CONTROL_CASE";

/// Runs the test `case` of this file in a process with a library path.
fn succeeds(case: &str, libraries: Option<&str>) -> bool {
    let mut command = Command::new(std::env::current_exe().expect("this test runs from a file"));
    command.args(["--exact", case, "--include-ignored"]).env(CASE, "1").env_remove("LD_LIBRARY_PATH");
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.output().expect("the process starts").status.success()
}

#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn case_nothing_to_control() {
    if std::env::var_os(CASE).is_some() {
        assert!(Control::attach().is_none());
    }
}

#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn case_control() {
    if std::env::var_os(CASE).is_none() {
        return;
    }
    let control = Control::attach().expect("the simulator is on the library path");
    assert_eq!(control.counts().launches, 0);
    assert_eq!(control.memory_in_use(), 0);
    assert_eq!(control.last_fault(), None);
    control.fail_allocation(1);
    control.set_memory_limit(1 << 20);
    control.lose_device_after_launches(3);
    control.restore();
    control.reset_counts();
    assert_eq!(control.counts(), sconce_cudasim_control::Counts::default());
}

#[test]
fn without_the_simulator_there_is_nothing_to_control() {
    assert!(succeeds("case_nothing_to_control", None));
    assert!(!succeeds("case_control", None));
}

#[test]
fn a_process_with_the_simulator_on_its_library_path_controls_it() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../link.sh");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cudasim");
    let linked = Command::new(script).arg(&directory).status().expect("the script starts");
    assert!(linked.success());
    let libraries = directory.to_str().expect("the target directory's name is text");
    assert!(succeeds("case_control", Some(libraries)));
    assert!(!succeeds("case_nothing_to_control", Some(libraries)));
}
