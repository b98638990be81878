//! Assignment of cores: the server and a busy process have one, this process has all others.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sconce_benches::Error;
use sconce_benches::wire::model;

/// The cores that this process may use, in two parts.
#[derive(Debug, Clone)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    /// Empty if there is no other core.
    pub(crate) callers: Vec<usize>,
}

/// A process that computes for as long as this lives.
#[derive(Debug)]
pub(crate) struct BusyProcess(Child);

impl Cores {
    /// Gives the server `core`, or else the last one, and confines this process to all others.
    pub(crate) fn split(core: Option<usize>) -> Result<Self, Error> {
        let mut callers = allowed()?;
        let server = core.or(callers.last().copied()).ok_or("this process may run on no core")?;
        if !callers.contains(&server) {
            return Err(format!("--core {server}: this process may run on the cores {callers:?}").into());
        }
        callers.retain(|core| *core != server);
        if !callers.is_empty() {
            let list: Vec<_> = callers.iter().map(ToString::to_string).collect();
            let mut taskset = Command::new("taskset");
            taskset.args(["--all-tasks", "--cpu-list", "--pid", &list.join(",")]).arg(std::process::id().to_string());
            let done = taskset.stdout(Stdio::null()).status().map_err(|error| no_taskset(&error))?;
            if !done.success() {
                return Err(format!("{taskset:?} failed: {done}").into());
            }
        }
        Ok(Self { server, callers })
    }

    /// Number of all cores.
    pub(crate) fn all(&self) -> usize {
        self.callers.len() + 1
    }

    /// Number of threads that the callers can use.
    pub(crate) fn for_callers(&self) -> usize {
        self.callers.len().max(1)
    }

    /// A command that runs `program` on the server's core.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &self.server.to_string()]).arg(program);
        command
    }

    /// Starts this program on the server's core to compute.
    pub(crate) fn busy_process(&self) -> Result<BusyProcess, Error> {
        let mut command = self.command(&std::env::current_exe()?);
        Ok(BusyProcess(
            command
                .args(["--role", "busy-process"])
                .stdin(Stdio::piped())
                .spawn()
                .map_err(|error| no_taskset(&error))?,
        ))
    }
}

/// Computes until standard input ends.
pub(crate) fn compute() {
    std::thread::spawn(|| {
        loop {
            model::compute(Duration::from_millis(100));
        }
    });
    let _ = std::io::stdin().read_line(&mut String::new());
}

impl Drop for BusyProcess {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Its exit status does not matter.
        let _ = self.0.wait();
    }
}

fn no_taskset(error: &std::io::Error) -> Error {
    format!("cannot run taskset, which Debian has in util-linux: {error}").into()
}

/// `Cpus_allowed_list` in `/proc/self/status`, for instance `0-3,6`.
fn allowed() -> Result<Vec<usize>, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let allowed = line.ok_or("/proc/self/status has no Cpus_allowed_list")?.trim();
    let mut cores = Vec::new();
    for part in allowed.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cores)
}
