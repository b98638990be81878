use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Process, free_port, last_lines};

/// A Postgres server of a test's own.
#[derive(Debug)]
pub struct PostgresServer {
    process: Process,
    port: u16,
    _directory: TempDir,
    path: PathBuf,
}

impl PostgresServer {
    /// Starts a server with an empty database, `postgres`.
    #[must_use]
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().to_owned();
        if is_root() {
            let (user, group) = account();
            chown(&path, Some(user), Some(group)).expect("root may");
        }
        let made = as_user("initdb")
            .arg("--pgdata")
            .arg(path.join("data"))
            .args(["--auth=trust", "--username=sconce", "--no-sync", "--encoding=UTF8", "--locale=C"])
            .output()
            .expect("initdb was found");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        for _ in 0..10 {
            let port = free_port();
            let mut process = run(&path, port);
            if answers(&mut process, port) {
                return Self { process, port, _directory: directory, path };
            }
        }
        panic!("postgres does not come up; its log:\n{}", last_lines(&path.join("log")));
    }

    /// The server's address, for clients; any user and password will do.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://sconce@127.0.0.1:{}/postgres", self.port)
    }

    /// Kills the server as a crash would: clients are told nothing, nothing is saved.
    pub fn kill(&mut self) {
        self.process.send(Signal::QUIT);
        self.process.wait();
    }

    /// Restarts a killed server at the same port.
    pub fn restart(&mut self) {
        self.process = run(&self.path, self.port);
        assert!(answers(&mut self.process, self.port), "it comes up again");
    }

    /// Pauses the server: it accepts connections and answers nothing.
    pub fn pause(&self) {
        self.send(Signal::STOP);
    }

    /// Resumes the server, which first handles the requests that came while it was paused.
    pub fn resume(&self) {
        self.send(Signal::CONT);
    }

    /// Sends a signal to the server and to the processes that serve its connections.
    fn send(&self, signal: Signal) {
        self.process.send(signal);
        for child in children(self.process.pid()) {
            // The process may have ended just now.
            kill_process(child, signal).ok();
        }
    }
}

/// A paused server does not end by itself when its parent is killed: its children must be awake.
impl Drop for PostgresServer {
    fn drop(&mut self) {
        if !self.process.has_ended() {
            self.resume();
            self.process.send(Signal::QUIT);
            self.process.wait();
        }
    }
}

fn run(directory: &Path, port: u16) -> Process {
    let log = std::fs::File::create(directory.join("log")).expect("a log");
    let mut command = as_user("postgres");
    command.arg("-D").arg(directory.join("data")).arg("-k").arg(directory).args(["-p", &port.to_string()]);
    command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB"]).stderr(log);
    Process::start(&mut command, "postgresql")
}

/// The command of a Postgres program, run as another user if this is root, as which Postgres refuses to run.
fn as_user(program: &str) -> Command {
    let program = binaries().join(program);
    if !is_root() {
        return Command::new(program);
    }
    let (user, group) = account();
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups", "--"]).arg(program);
    command.current_dir("/");
    command
}

/// Directory of Debian's newest Postgres programs, which are not in the path.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.expect("Postgres is not installed; install it: apt-get install postgresql");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

/// User and group of `postgres`, or of `nobody`.
fn account() -> (u32, u32) {
    let accounts = std::fs::read_to_string("/etc/passwd").expect("there are accounts");
    let of = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map_while(|number| number.parse().ok());
        Some((numbers.next()?, numbers.next()?))
    };
    of("postgres").or_else(|| of("nobody")).expect("an account that is not root's")
}

fn children(parent: Pid) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The part after the name, which is in brackets: state, parent.
        let parent_of = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        parent_of == Some(parent.as_raw_nonzero().get())
    };
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}

fn answers(process: &mut Process, port: u16) -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(30) && !process.has_ended() {
        let mut ready = Command::new(binaries().join("pg_isready"));
        ready.args(["--quiet", "--host=127.0.0.1", "--port", &port.to_string()]);
        if ready.status().expect("it comes with the server").success() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
