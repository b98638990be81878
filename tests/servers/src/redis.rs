use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Process, free_port, last_lines};

/// A Redis server of a test's own.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    port: u16,
    options: Vec<String>,
    _directory: TempDir,
    path: PathBuf,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more options, as `--name`, `value`, …; `{port}` stands for the port.
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().to_owned();
        // Another process may take the port in between: then the server ends, and the next port is tried.
        for _ in 0..10 {
            let port = free_port();
            let options: Vec<_> = options.iter().map(|&option| option.replace("{port}", &port.to_string())).collect();
            let mut process = run(&path, port, &options);
            if answers(&mut process, port) {
                return Self { process, port, options, _directory: directory, path };
            }
        }
        panic!("redis-server does not come up; its log:\n{}", last_lines(&path.join("log")));
    }

    /// The server's address, for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server as a crash would: clients are told nothing, nothing is kept.
    pub fn kill(&mut self) {
        self.process.send(Signal::KILL);
        self.process.wait();
    }

    /// Restarts a killed server at the same port, empty.
    pub fn restart(&mut self) {
        self.process = run(&self.path, self.port, &self.options);
        assert!(answers(&mut self.process, self.port), "it comes up again");
    }

    /// Pauses the server: it accepts connections and answers nothing.
    pub fn pause(&self) {
        self.process.send(Signal::STOP);
    }

    /// Resumes the server, which first handles the requests that came while it was paused.
    pub fn resume(&self) {
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
