//! A server's process and what it has used of the processor.

use std::io::{BufRead as _, BufReader};
use std::ops::Sub;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::Error;
use crate::server::Kind;

/// A server that listens. It leaves when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct ServerProcess {
    address: String,
    id: u32,
    _process: Arc<Guard>,
}

/// Processor time since the process began, and how often its threads went to sleep by themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) sleeps: u64,
}

impl ServerProcess {
    pub(crate) fn start(program: &Path, kind: Kind, workers: usize) -> Result<Self, Error> {
        use clap::ValueEnum as _;
        let name = kind.to_possible_value().expect("no server is hidden");
        let mut child = Command::new(program)
            .args(["--serve", name.get_name(), "--workers", &workers.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().expect("standard output is piped");
        let (id, stdin) = (child.id(), child.stdin.take());
        let process = Arc::new(Guard(Mutex::new((stdin, child))));
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address)?;
        match address.trim() {
            "" => Err(format!("the server '{}' ended before it listened", name.get_name()).into()),
            address => Ok(Self { address: address.to_owned(), id, _process: process }),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// All threads together; times come in ticks of 10 ms.
    pub(crate) fn usage(&self) -> Result<Usage, Error> {
        let [user, system] = times(&std::fs::read_to_string(format!("/proc/{}/stat", self.id))?)?;
        let mut sleeps = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.id))? {
            // A thread may end while it is looked at.
            let status = std::fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
            let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sleeps += switches.and_then(|switches| switches.trim().parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Usage { user, system, sleeps })
    }
}

/// User and system time in `/proc/PID/stat` (proc(5): fields 14 and 15).
fn times(stat: &str) -> Result<[Duration; 2], Error> {
    // `getconf CLK_TCK`: 100 on every Linux that Rust runs on.
    const TICK: Duration = Duration::from_millis(10);
    // The name of the program ends at the last bracket and may hold anything.
    let (_, fields) = stat.rsplit_once(") ").ok_or("a line of /proc/PID/stat has a name in brackets")?;
    let mut ticks = fields.split(' ').skip(11).map(str::parse::<u32>);
    let mut next = || -> Result<Duration, Error> { Ok(TICK * ticks.next().ok_or("a field is missing")??) };
    Ok([next()?, next()?])
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            sleeps: self.sleeps.saturating_sub(before.sleeps),
        }
    }
}

/// The pipe that keeps the server alive, and its process.
#[derive(Debug)]
struct Guard(Mutex<(Option<ChildStdin>, Child)>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(mut held) = self.0.lock() {
            drop(held.0.take());
            // It has nothing left to answer; how it ends is of no interest.
            let _ = held.1.wait();
        }
    }
}
