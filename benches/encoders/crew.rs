//! The engines' processes, and the protocol with them: one line out, one line back.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

use crate::Result;
use crate::engine::Engine;
use crate::shape::BatchShape;

/// All running workers, so that Ctrl-C can end them from its own thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes(Arc<Mutex<Vec<Child>>>);

impl Processes {
    pub(crate) fn that_end_on_ctrl_c() -> Result<Self> {
        /// Exit status that a shell reports for a program ended by SIGINT.
        const INTERRUPTED: i32 = 130;
        let processes = Self::default();
        let all = processes.clone();
        ctrlc::set_handler(move || {
            // Held to the end: a caller whose worker has ended waits in `Crew::drop` and does not report it.
            let mut workers = all.lock();
            end(&mut workers);
            eprintln!("\nencoders: interrupted; the workers are ended, nothing is written");
            std::process::exit(INTERRUPTED);
        })?;
        Ok(processes)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end(workers: &mut Vec<Child>) {
    for mut worker in workers.drain(..) {
        // The worker may have ended by itself.
        let _ = worker.kill();
        let _ = worker.wait();
    }
}

/// Workers that are ready. Dropping the crew ends them.
#[derive(Debug)]
pub(crate) struct Crew {
    members: Vec<Member>,
    processes: Processes,
}

impl Crew {
    pub(crate) fn new(processes: Processes) -> Self {
        Self { members: Vec::new(), processes }
    }

    /// Starts a worker and waits until it has loaded its model.
    pub(crate) fn start(&mut self, engine: Engine, mut command: Command) -> Result<()> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        self.processes.lock().push(child);
        let mut member = Member {
            engine,
            version: String::new(),
            stdin: stdin.expect("standard input is piped"),
            stdout: BufReader::new(stdout.expect("standard output is piped")),
        };
        let ready = member.answer()?;
        let version = ready.strip_prefix("ready ").ok_or_else(|| format!("the worker said '{ready}', not 'ready'"))?;
        version.clone_into(&mut member.version);
        self.members.push(member);
        Ok(())
    }

    /// Versions of the engines, with their packages.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.members.iter().map(|member| (member.engine.package(), member.version.clone()))
    }

    pub(crate) fn engines(&self) -> Vec<Engine> {
        self.members.iter().map(|member| member.engine).collect()
    }

    pub(crate) fn member(&mut self, engine: Engine) -> &mut Member {
        self.members.iter_mut().find(|member| member.engine == engine).expect("the engine is one of engines()")
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        end(&mut self.processes.lock());
    }
}

/// One engine with its worker.
#[derive(Debug)]
pub(crate) struct Member {
    engine: Engine,
    version: String,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// The times of the calls of one burst, in the order of the calls.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Calls {
    pub(crate) wall_ms: Vec<f64>,
    /// CPU time of the whole process, helper threads included.
    pub(crate) cpu_ms: Vec<f64>,
}

impl Member {
    /// Calls the engine for at least `millis` and at least `min_calls` times.
    pub(crate) fn run(&mut self, shape: BatchShape, millis: u64, min_calls: usize) -> Result<Calls> {
        let answer = self.ask(&format!("run {shape} {millis} {min_calls}"))?;
        Ok(serde_json::from_str(&answer).map_err(|error| format!("{}: {error}: '{answer}'", self.engine))?)
    }

    /// The numbers of the engine's rows, one row after the other.
    pub(crate) fn values(&mut self, shape: BatchShape, file: &Path) -> Result<Vec<f32>> {
        self.ask(&format!("out {shape} {}", file.display()))?;
        let bytes = std::fs::read(file)?;
        let (values, _rest) = bytes.as_chunks();
        Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.stdin, "{question}").map_err(|error| format!("{} took no '{question}': {error}", self.engine))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err(format!("the worker of {} ended; what it said is above", self.engine).into());
        }
        Ok(line.trim_end().to_owned())
    }
}
