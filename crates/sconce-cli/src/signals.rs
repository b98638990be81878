//! Being told to stop: once to finish, twice to end at once.

use std::io;
use std::process;

/// The status of a process that a second signal ended: 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

impl Signals {
    /// Resolves at the first signal, and says so; from then on a second one ends the process.
    pub(crate) async fn first(mut self, message: &'static str) {
        self.next().await;
        eprintln!("{message}");
        tokio::spawn(async move {
            self.next().await;
            process::exit(INTERRUPTED);
        });
    }
}

/// SIGTERM and SIGINT (Ctrl-C).
#[cfg(unix)]
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ctrl-C, where there is no SIGTERM.
#[cfg(windows)]
pub(crate) struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    async fn next(&mut self) {
        self.interrupt.recv().await;
    }
}
