//! Log lines of what may happen thousands of times a second.

use std::time::{Duration, Instant};

/// Time between two lines about the same thing.
const PAUSE: Duration = Duration::from_secs(10);

/// Decides which occurrences are worth a line: the first, and then one in ten seconds with the number of those between.
#[derive(Debug, Default)]
pub(crate) struct Ration {
    last: Option<Instant>,
    untold: u64,
}

impl Ration {
    /// Occurrences since the last line, this one included, if it is time for another.
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
