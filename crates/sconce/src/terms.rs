//! Terms on which requests for the same answer differ, and which of them share a failure.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use sconce_batch::{Error as QueueError, Priority};

use crate::InferError;

/// The terms of a request: wait for room or not, deadline and priority. Requests for the same answer share the answer,
/// but not a refusal that better terms might have avoided. The greater terms are the better ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestTerms {
    // The order of the fields is the order of comparison: waiting for room helps most.
    pub(crate) when_full: WhenFull,
    until: Until,
    priority: Reverse<Priority>,
}

/// The behaviour when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WhenFull {
    Refuse,
    Wait,
}

/// The end of the time in which the answer is wanted; `Ever` is later than every deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    Deadline(Instant),
    Ever,
}

impl RequestTerms {
    pub(crate) fn new(when_full: WhenFull, deadline: Option<Instant>, priority: Priority) -> Self {
        let until = deadline.map_or(Until::Ever, Until::Deadline);
        Self { when_full, until, priority: Reverse(priority) }
    }

    /// The deadline and the priority, as the queue takes them.
    pub(crate) fn of_queue(self) -> sconce_batch::Terms {
        sconce_batch::Terms { deadline: self.deadline(), priority: self.priority.0 }
    }

    pub(crate) fn deadline(self) -> Option<Instant> {
        match self.until {
            Until::Deadline(deadline) => Some(deadline),
            Until::Ever => None,
        }
    }

    /// The same terms, but waiting for room.
    pub(crate) fn waiting(self) -> Self {
        Self { when_full: WhenFull::Wait, ..self }
    }

    fn no_more_time_than(&self, other: &Self) -> bool {
        self.until <= other.until && self.priority <= other.priority
    }
}

impl sconce_cache::FlightTerms<InferError> for RequestTerms {
    fn would_get(&self, error: &InferError, leader: &Self) -> bool {
        match error {
            // A request that does not wait for room would find the queue as full.
            InferError::Queue(QueueError::QueueFull { .. } | QueueError::QueueTooHeavy { .. }) => {
                self.when_full == WhenFull::Refuse
            }
            InferError::Queue(QueueError::Overloaded { .. } | QueueError::DeadlineExceeded { .. }) => {
                self.no_more_time_than(leader)
            }
            InferError::Queue(
                QueueError::TooHeavy { .. }
                | QueueError::DevicesLost { .. }
                | QueueError::ShuttingDown
                | QueueError::Executor(_),
            )
            | InferError::Input(_)
            | InferError::Unsuited { .. }
            | InferError::OtherPrecision { .. }
            | InferError::Panicked { .. } => true,
            // An error that this function does not know: only requests on no better terms are sure to get it.
            InferError::Queue(_) => self.when_full <= leader.when_full && self.no_more_time_than(leader),
        }
    }
}

/// A hundred years: a timeout of this much or more counts as none. A shorter one can be added to any instant.
const NO_TIMEOUT: Duration = Duration::from_hours(24 * 36_500);

/// The instant at which a timeout ends; `None` if there is no timeout.
pub(crate) fn deadline(started: Instant, timeout: Option<Duration>) -> Option<Instant> {
    started.checked_add(timeout.filter(|timeout| *timeout < NO_TIMEOUT)?)
}

#[cfg(test)]
mod tests {
    use sconce_batch::ExecutorError;
    use sconce_cache::FlightTerms as _;

    use super::*;

    #[test]
    fn a_refusal_is_shared_by_those_alone_whom_better_terms_would_not_have_spared_it() {
        let now = Instant::now();
        let of = |when_full, seconds: Option<u64>, priority| {
            let deadline = deadline(now, seconds.map(Duration::from_secs));
            RequestTerms::new(when_full, deadline, priority)
        };
        let (wait, refuse) = (WhenFull::Wait, WhenFull::Refuse);
        let (high, normal, low) = (Priority::High, Priority::Normal, Priority::Low);
        let leader = of(refuse, Some(5), normal);
        let none = Duration::ZERO;
        let full = QueueError::QueueFull { max: 1, retry_after: None };
        let heavy = QueueError::QueueTooHeavy { queued: 1, weight: 1, max: 1, retry_after: None };
        let overloaded = QueueError::Overloaded { wait: none, retry_after: none };
        let late = QueueError::DeadlineExceeded { retry_after: None };
        let lost = QueueError::DevicesLost { retry_after: None };
        let failed = QueueError::Executor(ExecutorError::new("it failed"));
        for (terms, of_room, of_time) in [
            (of(refuse, Some(5), normal), true, true),
            (of(refuse, Some(4), low), true, true),
            (of(refuse, Some(6), normal), true, false),
            (of(refuse, None, low), true, false),
            (of(refuse, Some(5), high), true, false),
            (of(wait, Some(5), normal), false, true),
            (of(wait, Some(4), low), false, true),
            (of(wait, None, high), false, false),
        ] {
            let gets = |error: &QueueError| terms.would_get(&InferError::Queue(error.clone()), &leader);
            assert_eq!((gets(&full), gets(&heavy)), (of_room, of_room), "{terms:?}");
            assert_eq!((gets(&overloaded), gets(&late)), (of_time, of_time), "{terms:?}");
            assert!(gets(&lost) && gets(&QueueError::ShuttingDown) && gets(&failed), "{terms:?}");
        }
    }

    #[test]
    fn who_waits_goes_before_who_has_time_and_that_before_who_is_preferred() {
        let now = Instant::now();
        let of = |when_full, seconds: Option<u64>, priority| {
            RequestTerms::new(when_full, deadline(now, seconds.map(Duration::from_secs)), priority)
        };
        let ascending = [
            of(WhenFull::Refuse, Some(1), Priority::Normal),
            of(WhenFull::Refuse, Some(2), Priority::Low),
            of(WhenFull::Refuse, None, Priority::Normal),
            of(WhenFull::Refuse, None, Priority::High),
            of(WhenFull::Wait, Some(1), Priority::Low),
        ];
        assert!(ascending.is_sorted());
    }

    #[test]
    fn a_timeout_that_is_longer_than_anybody_waits_is_none() {
        let now = Instant::now();
        assert_eq!(deadline(now, Some(Duration::ZERO)), Some(now));
        for timeout in [NO_TIMEOUT, Duration::from_secs(i64::MAX as u64), Duration::MAX] {
            assert_eq!(deadline(now, Some(timeout)), None);
        }
        let longest = deadline(now, Some(NO_TIMEOUT.saturating_sub(Duration::from_nanos(1)))).expect("an instant");
        assert!(longest.checked_add(NO_TIMEOUT).is_some(), "timers may round it up");
    }
}
