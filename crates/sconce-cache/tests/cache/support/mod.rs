//! Servers that a test starts for itself, and values to put into them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sconce_cache::{Digest, Dtype, Key, Tensor, Value};
use tempfile::TempDir;

pub(crate) mod postgres;
pub(crate) mod redis;

pub(crate) fn key(name: &str) -> Key {
    Key::from_bytes(Digest::of(name.as_bytes()).0)
}

pub(crate) fn keys(prefix: &str, count: usize) -> Vec<Key> {
    (0..count).map(|number| key(&format!("{prefix} {number}"))).collect()
}

/// A value that tells by what is in it which text it was made of.
pub(crate) fn value(text: &str) -> Value {
    let tensor = Tensor { name: "text", dtype: Dtype::U8, shape: &[text.len()], bytes: text.as_bytes() };
    Value::new("f32", &[tensor]).expect("shape and bytes agree")
}

pub(crate) fn large_value(bytes: usize) -> Value {
    let content: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    let tensor = Tensor { name: "large", dtype: Dtype::U8, shape: &[bytes], bytes: &content };
    Value::new("f32", &[tensor]).expect("shape and bytes agree")
}

/// Waits for something that comes by itself, and says what did not come.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(30), "after 30 s still not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process that ends with its owner, also when a test panics.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a server; `package` is what to install where it is missing.
    pub(crate) fn start(command: &mut Command, package: &str) -> Self {
        let program = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap_or_else(|error| {
            panic!("{} does not start ({error}); install it: apt-get install {package}", program.display())
        });
        Self { child }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is there");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    pub(crate) fn wait(&mut self) {
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A port that nobody uses at the moment.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn temporary() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().to_owned();
    (directory, path)
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
