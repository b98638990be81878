use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A process that ends with its owner, also when a test panics.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a server; `package` is the Debian package to install where it is missing.
    pub fn start(command: &mut Command, package: &str) -> Self {
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
