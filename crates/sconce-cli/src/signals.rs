//! Signals that ask a command to stop: the first to finish, the second to end at once.

use std::io;
use std::process;

use tokio::sync::oneshot;

use crate::say::say;

/// The status of a process that was told to stop before it was done: 128 and the number of SIGINT, as shells say it.
pub(crate) const INTERRUPTED: u8 = 130;

impl Signals {
    /// Resolves at the first signal, and says so; from then on a second one ends the process. Signals are heard from
    /// now on, also while nobody polls what is returned: it may be waiting for a reader of its output. Within a tokio
    /// runtime.
    pub(crate) fn first(mut self, message: &'static str) -> impl Future<Output = ()> + use<> {
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            self.next().await;
            say!("{message}");
            tell.send(()).ok();
            self.next().await;
            process::exit(INTERRUPTED.into());
        });
        async move {
            // Nothing is told only where the runtime is ending.
            told.await.ok();
        }
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

    pub(crate) async fn next(&mut self) {
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

    pub(crate) async fn next(&mut self) {
        self.interrupt.recv().await;
    }
}
