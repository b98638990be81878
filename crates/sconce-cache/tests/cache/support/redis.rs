//! A Redis of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sconce_cache::{RedisConfig, RedisTier};
use tempfile::TempDir;

use super::{Process, free_port, temporary};

pub(crate) struct RedisServer {
    process: Process,
    port: u16,
    options: Vec<String>,
    _directory: TempDir,
    path: PathBuf,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more options, as `--name`, `value`, …; `{port}` stands for the port.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let (directory, path) = temporary();
        // Another process may take the port in between: then the server ends, and the next port is tried.
        for _ in 0..10 {
            let port = free_port();
            let options: Vec<_> = options.iter().map(|&option| option.replace("{port}", &port.to_string())).collect();
            let mut process = run(&path, port, &options);
            if answers(&mut process, port) {
                return Self { process, port, options, _directory: directory, path };
            }
        }
        panic!("redis-server does not come up; its log:\n{}", super::last_lines(&path.join("log")));
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn config(&self) -> RedisConfig {
        RedisConfig { ttl_jitter: 0.0, ..RedisConfig::new(self.url()) }
    }

    pub(crate) async fn tier(&self) -> RedisTier {
        let tier = RedisTier::open(&self.config()).expect("a good configuration");
        tier.ping().await.expect("it answers");
        tier
    }

    /// A connection beside the tier's, to look behind its back.
    pub(crate) fn connection(&self) -> ::redis::Connection {
        let client = ::redis::Client::open(self.url()).expect("an address");
        client.get_connection().expect("it answers")
    }

    pub(crate) fn kill(&mut self) {
        self.process.send(Signal::KILL);
        self.process.wait();
    }

    /// After `kill`, at the same port; empty.
    pub(crate) fn restart(&mut self) {
        self.process = run(&self.path, self.port, &self.options);
        assert!(answers(&mut self.process, self.port), "it comes up again");
    }

    /// From now on it accepts connections and answers nothing.
    pub(crate) fn pause(&self) {
        self.process.send(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.process.send(Signal::CONT);
    }
}

fn run(directory: &Path, port: u16, options: &[String]) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(directory).arg("--logfile").arg(directory.join("log")).args(options);
    Process::start(&mut command, "redis-server")
}

fn answers(process: &mut Process, port: u16) -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) && !process.has_ended() {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}
