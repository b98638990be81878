//! Watches a download from another thread, because the hub's client has no time limit between two bytes.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use hf_hub::api::Progress;
use indicatif::ProgressBar;

/// A message of watched work.
enum Beat<T> {
    /// The download begins: bytes of the whole file, and of the part that was there before.
    Begun {
        total: u64,
        there: u64,
    },
    Received(u64),
    Done(T),
}

/// The end of watched work.
#[derive(Debug)]
pub(super) struct Watched<T> {
    /// Result of the work; `None` if it was silent for too long and is no longer watched.
    pub(super) outcome: Option<T>,
    pub(super) bytes: Bytes,
}

/// The bytes of a download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    /// Bytes of the whole file; 0 before that is known.
    pub(super) total: u64,
    /// Bytes that an earlier download received.
    pub(super) there: u64,
    /// Bytes that this download received.
    pub(super) received: u64,
}

/// Runs `work` on a thread of its own, and watches it as long as it reports at least once in `max_silence`.
pub(super) fn watch<T: Send + 'static>(
    max_silence: Duration,
    bar: &ProgressBar,
    work: impl FnOnce(Reporter<T>) -> T + Send + 'static,
) -> Watched<T> {
    let (beats, heard) = mpsc::channel();
    let reporter = Reporter { beats: beats.clone(), total: 0, begun: false };
    // Sending fails if the work was silent for too long.
    thread::spawn(move || drop(beats.send(Beat::Done(work(reporter)))));
    let mut bytes = Bytes::default();
    loop {
        match heard.recv_timeout(max_silence) {
            Ok(Beat::Begun { total, there }) => {
                bytes = Bytes { total, there, ..bytes };
                bar.set_length(total);
                bar.set_position(there);
            }
            Ok(Beat::Received(more)) => {
                bytes.received += more;
                bar.inc(more);
            }
            Ok(Beat::Done(outcome)) => return Watched { outcome: Some(outcome), bytes },
            Err(RecvTimeoutError::Timeout) => return Watched { outcome: None, bytes },
            Err(RecvTimeoutError::Disconnected) => unreachable!("a panic in the hub's client ends the process"),
        }
    }
}

/// Reports a download to the thread that watches it.
pub(super) struct Reporter<T> {
    beats: Sender<Beat<T>>,
    total: u64,
    begun: bool,
}

/// The client calls `init` twice before a download; its first `update` is the number of bytes that were there before.
impl<T> Progress for Reporter<T> {
    fn init(&mut self, size: usize, _: &str) {
        (self.total, self.begun) = (size as u64, false);
    }

    fn update(&mut self, size: usize) {
        let beat = if self.begun {
            Beat::Received(size as u64)
        } else {
            Beat::Begun { total: self.total, there: size as u64 }
        };
        self.begun = true;
        // Sending fails if the work was silent for too long.
        self.beats.send(beat).ok();
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn bytes_that_were_there_are_told_from_those_that_came() {
        let watched = watch(LONG, &ProgressBar::hidden(), |mut reporter| {
            reporter.init(100, "file");
            reporter.init(100, "file");
            reporter.update(60);
            reporter.update(30);
            reporter.update(5);
            "cut"
        });
        assert_eq!(watched.outcome, Some("cut"));
        assert_eq!(watched.bytes, Bytes { total: 100, there: 60, received: 35 });
    }

    #[test]
    fn silence_ends_the_wait_but_not_what_was_heard() {
        let (release, released) = mpsc::channel::<()>();
        let watched = watch(Duration::from_millis(50), &ProgressBar::hidden(), move |mut reporter| {
            reporter.init(100, "file");
            reporter.update(0);
            reporter.update(7);
            // Longer than the watcher waits.
            released.recv().ok();
        });
        assert_eq!((watched.outcome, watched.bytes.received), (None, 7));
        drop(release);
    }
}
