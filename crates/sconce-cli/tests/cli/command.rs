//! Runs the binary, without the settings and the home directory of the user who runs the tests.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(crate) use rustix::process::Signal;
use serde_json::Value;

/// The exit status and the output of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Standard output, one JSON object per line.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|cause| panic!("{line}: {cause}"));
        self.stdout.lines().map(parse).collect()
    }

    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:?}");
        self
    }

    pub(crate) fn failed_with(self, status: i32, said: &[&str]) -> Self {
        assert_eq!(self.status, Some(status), "{self:?}");
        for words in said {
            assert!(self.stderr.contains(words), "standard error lacks {words:?}: {}", self.stderr);
        }
        self
    }
}

/// Variables that may be set in the environment of the tests, and are removed.
const SET_OUTSIDE: [&str; 15] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_TRACES_SAMPLER_ARG",
    "RUST_LOG",
    "SCONCE_CACHE_INPUTS",
    "SCONCE_CACHE_MEMORY",
    "SCONCE_CACHE_POSTGRES",
    "SCONCE_CACHE_REDIS",
    "SCONCE_CACHE_SQLITE",
    "SCONCE_CPU_THREADS",
    "SCONCE_ALLOWED_SIGNERS",
    "SCONCE_ALLOW_UNDECIDED",
    "SCONCE_DEVICE",
    "SCONCE_MODELS",
    "SCONCE_TOKEN",
    "SCONCE_TOKEN_FILE",
];

/// The command with `args`, ready to run.
pub(crate) fn sconce(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sconce"));
    command.args(args).env("SCONCE_HOME", "/nonexistent");
    for set_outside in SET_OUTSIDE {
        command.env_remove(set_outside);
    }
    command
}

/// Runs `command` to its end with `stdin` as its standard input.
pub(crate) fn run(mut command: Command, stdin: &[u8]) -> Ended {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the binary runs");
    let mut pipe = child.stdin.take().expect("standard input is piped");
    let output = std::thread::scope(|scope| {
        // A command that fails early does not read its input.
        scope.spawn(move || drop(pipe.write_all(stdin)));
        child.wait_with_output().expect("the binary ends")
    });
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    Ended { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs `sconce` with `args` and `stdin` to its end.
pub(crate) fn ended(args: &[&str], stdin: &[u8]) -> Ended {
    run(sconce(args), stdin)
}

/// Sends a signal, for instance SIGINT, as Ctrl-C does.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("process ids fit 32 bits");
    let pid = rustix::process::Pid::from_raw(pid).expect("it is not zero");
    rustix::process::kill_process(pid, signal).expect("it runs");
}

/// The directory of the models that ship.
pub(crate) fn zoo() -> PathBuf {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    zoo.canonicalize().expect("the zoo ships with the sources")
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}
