//! Signals that ask the process to stop.
//!
//! A command that calls [`Signals::first`] finishes at the first signal what it has begun; any other command ends at
//! once. A second signal ends every command at once. The exit status of a command that was stopped tells the signal.

use std::io;
use std::process::{self, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::say::say;

/// A signal that asks the process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT, which Ctrl-C sends.
    Interrupt,
    /// SIGTERM, which `kill` and service managers send.
    #[cfg(unix)]
    Terminate,
}

impl Signal {
    /// Exit status of a process that this signal stopped: 128 and the number of the signal, as shells tell it.
    fn status(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            #[cfg(unix)]
            Self::Terminate => 143,
        }
    }

    /// Exit code of a process that this signal stopped.
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(self.status())
    }
}

/// The signals to this process, heard from the beginning on, also while a command loads models or waits for its reader.
pub(crate) struct Signals {
    graceful: Arc<Mutex<Option<Graceful>>>,
}

/// A command that finishes at the first signal what it has begun.
struct Graceful {
    message: &'static str,
    tell: oneshot::Sender<Signal>,
}

impl Signals {
    /// Listens from now on. Must be called within a tokio runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut listener = Listener::new()?;
        let graceful = Arc::<Mutex<Option<Graceful>>>::default();
        let shared = Arc::clone(&graceful);
        tokio::spawn(async move {
            let signal = listener.next().await;
            let graceful = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(Graceful { message, tell }) = graceful else { end(signal) };
            say!("{message}");
            // Sending fails if the command has finished by itself.
            tell.send(signal).ok();
            end(listener.next().await);
        });
        Ok(Self { graceful })
    }

    /// Resolves at the first signal, after `message` was printed. From the call of this function on, that signal no
    /// longer ends the process; a second one does.
    pub(crate) fn first(self, message: &'static str) -> impl Future<Output = Signal> + use<> {
        let (tell, told) = oneshot::channel();
        *self.graceful.lock().unwrap_or_else(PoisonError::into_inner) = Some(Graceful { message, tell });
        async move {
            match told.await {
                Ok(signal) => signal,
                // The runtime is ending.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// Held while a file is written.
static WRITING: Mutex<()> = Mutex::new(());

/// Runs `write`, which writes a small file, to its end before a signal can end the process.
pub(crate) fn uninterrupted<T>(write: impl FnOnce() -> T) -> T {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    write()
}

fn end(signal: Signal) -> ! {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    say!("stopped");
    process::exit(signal.status().into())
}

/// Hears SIGTERM and SIGINT (Ctrl-C).
#[cfg(unix)]
struct Listener {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Listener {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

/// Hears Ctrl-C, because there is no SIGTERM.
#[cfg(windows)]
struct Listener {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl Listener {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    async fn next(&mut self) -> Signal {
        self.interrupt.recv().await;
        Signal::Interrupt
    }
}
