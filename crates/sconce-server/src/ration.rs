//! Limits log lines about events that may happen thousands of times a second.

use std::time::{Duration, Instant};

/// Time between two lines about the same kind of event.
const PAUSE: Duration = Duration::from_secs(10);

/// Decides which events get a line: the first, and then one in ten seconds, with the number of events since the last line.
#[derive(Debug, Default)]
pub(crate) struct Ration {
    last: Option<Instant>,
    untold: u64,
}

impl Ration {
    /// Counts an event. Returns the number of events since the last line, this one included, if it is time for a line.
    pub(crate) fn take(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        is_due.then(|| {
            self.last = Some(now);
            std::mem::take(&mut self.untold)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_are_counted() {
        let (start, mut ration) = (Instant::now(), Ration::default());
        assert_eq!(ration.take(start), Some(1));
        assert_eq!((ration.take(start), ration.take(start + PAUSE / 2)), (None, None));
        assert_eq!(ration.take(start + PAUSE), Some(3));
        assert_eq!(ration.take(start + PAUSE), None);
    }
}
