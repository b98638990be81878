//! A server in a process of its own: its start, its end, and its use of the processor.

use std::future::Future;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Sub;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::Error;

/// A listening server. It ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct ServerProcess {
    address: String,
    id: u32,
    pipes: Arc<Pipes>,
}

/// Processor time since the process began, and the number of times that its threads went to sleep by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Time in the program itself.
    pub user: Duration,
    /// Time in the system on the program's behalf.
    pub system: Duration,
    /// The part of both that was used by threads that run batches.
    pub devices: Duration,
    /// Voluntary context switches.
    pub sleeps: u64,
}

impl ServerProcess {
    /// Runs `command`, which must print its address as [`listen`] does.
    ///
    /// # Errors
    /// If it cannot be started, or ends before it listens.
    pub fn start(command: &mut Command) -> Result<Self, Error> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().ok_or("standard input is not piped")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("standard output is not piped")?);
        let id = child.id();
        let pipes = Arc::new(Pipes { both: Mutex::new(Some((stdin, stdout))), child: Mutex::new(child) });
        match pipes.exchange("")?.trim() {
            "" => Err(format!("{command:?} ended before it listened").into()),
            address => Ok(Self { address: address.to_owned(), id, pipes }),
        }
    }

    /// The address on which the server listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The line of figures from the process's [`parent`].
    ///
    /// # Errors
    /// If the process has ended.
    pub fn figures(&self) -> Result<String, Error> {
        self.pipes.exchange("\n")
    }

    /// Processor time used so far; it comes in ticks of 10 ms.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn usage(&self) -> Result<Usage, Error> {
        let (_, [user, system]) = times(&std::fs::read_to_string(format!("/proc/{}/stat", self.id))?)?;
        let mut usage = Usage { user, system, ..Usage::default() };
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.id))? {
            let thread = thread?.path();
            // A thread may end while it is read.
            let status = std::fs::read_to_string(thread.join("status")).unwrap_or_default();
            let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            usage.sleeps += switches.and_then(|switches| switches.trim().parse::<u64>().ok()).unwrap_or(0);
            let Ok(stat) = std::fs::read_to_string(thread.join("stat")) else { continue };
            let (name, [user, system]) = times(&stat)?;
            // `sconce_batch::DeviceThread` names its threads so.
            if name.starts_with("sconce-") {
                usage.devices += user + system;
            }
        }
        Ok(usage)
    }
}

/// For the server: listens on a free port and prints its address for the parent.
///
/// # Errors
/// If no port is free, or the parent has ended.
pub async fn listen() -> Result<TcpListener, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    print_line(&listener.local_addr()?.to_string())?;
    Ok(listener)
}

/// For the server: answers each line of standard input with `figures`, and resolves when the parent ends.
pub fn parent(figures: impl Fn() -> String + Send + 'static) -> impl Future<Output = ()> {
    let (stop, stopped) = oneshot::channel();
    std::thread::spawn(move || {
        // The pipe ends with the parent, however that ends.
        while std::io::stdin().read_line(&mut String::new()).is_ok_and(|bytes| bytes > 0) {
            if print_line(&figures()).is_err() {
                break;
            }
        }
        let _ = stop.send(());
    });
    async { stopped.await.unwrap_or(()) }
}

fn print_line(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// The name, and user and system time, from `/proc/PID/stat` (proc(5): fields 2, 14 and 15).
fn times(stat: &str) -> Result<(&str, [Duration; 2]), Error> {
    // `getconf CLK_TCK`: 100 on every Linux that Rust runs on.
    const TICK: Duration = Duration::from_millis(10);
    // The name of the program ends at the last bracket and may hold anything.
    let (name, fields) = stat.rsplit_once(") ").ok_or("a line of /proc/PID/stat has a name in brackets")?;
    let (_, name) = name.split_once('(').ok_or("a line of /proc/PID/stat has a name in brackets")?;
    let mut ticks = fields.split(' ').skip(11).map(str::parse::<u32>);
    let mut next = || -> Result<Duration, Error> { Ok(TICK * ticks.next().ok_or("a field is missing")??) };
    Ok((name, [next()?, next()?]))
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            devices: self.devices.saturating_sub(before.devices),
            sleeps: self.sleeps.saturating_sub(before.sleeps),
        }
    }
}

/// The server's process and its pipes; the one to its standard input keeps it alive.
#[derive(Debug)]
struct Pipes {
    both: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    child: Mutex<Child>,
}

impl Pipes {
    /// Writes `request` and reads a line.
    fn exchange(&self, request: &str) -> Result<String, Error> {
        let mut pipes = self.both.lock().unwrap_or_else(PoisonError::into_inner);
        let (stdin, stdout) = pipes.as_mut().expect("they are taken when nobody has the process any more");
        stdin.write_all(request.as_bytes())?;
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Pipes {
    fn drop(&mut self) {
        drop(self.both.lock().unwrap_or_else(PoisonError::into_inner).take());
        // The server has nothing left to answer; its exit status does not matter.
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }
}
