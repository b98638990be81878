//! Work that may fall silent, watched from beside it: the hub's client has no time limit between two bytes.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use hf_hub::api::Progress;
use indicatif::ProgressBar;

/// What watched work says while it goes on.
enum Beat<T> {
    /// Bytes of the whole file, and how many of them were there before.
    Begun {
        total: u64,
        there: u64,
    },
    Received(u64),
    Done(T),
}

/// How watched work ended.
#[derive(Debug)]
pub(super) struct Watched<T> {
    /// `None`: it fell silent, and was left to itself.
    pub(super) outcome: Option<T>,
    pub(super) bytes: Bytes,
}

/// The bytes of a download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    /// Of the whole file; 0 before that is known.
    pub(super) total: u64,
    /// Came with an earlier download.
    pub(super) there: u64,
    /// Came with this one.
    pub(super) received: u64,
}

/// Runs `work` on a thread of its own for as long as it says something at least every `max_silence`.
pub(super) fn watch<T: Send + 'static>(
    max_silence: Duration,
    bar: &ProgressBar,
    work: impl FnOnce(Reporter<T>) -> T + Send + 'static,
) -> Watched<T> {
    let (beats, heard) = mpsc::channel();
    let reporter = Reporter { beats: beats.clone(), total: 0, begun: false };
    // Nobody listens any more where it was too long silent.
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

/// Tells of a download to whoever watches it.
pub(super) struct Reporter<T> {
    beats: Sender<Beat<T>>,
    total: u64,
    begun: bool,
}

/// The client calls `init` twice before a download, and then tells first how many bytes were there before.
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
        // Nobody listens any more where it was too long silent.
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
            // For ever, as far as the watcher is concerned.
            released.recv().ok();
        });
        assert_eq!((watched.outcome, watched.bytes.received), (None, 7));
        drop(release);
    }
}
