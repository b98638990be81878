//! Counts of the outcomes of requests.

use std::time::Duration;

use sconce_benches::wire::refusal::{Reason, Refusal};

/// The outcome of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// The right answer came after this time.
    Answered(Duration),
    /// The server refused.
    Refused(Refusal),
    /// The deadline passed without a word from the server.
    Unanswered,
    /// The connection broke; the next request makes a new one.
    Broken,
}

/// The outcomes of a turn.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) in_time: u64,
    pub(crate) late: u64,
    pub(crate) unanswered: u64,
    pub(crate) broken: u64,
    pub(crate) overloaded: u64,
    pub(crate) full: u64,
    pub(crate) too_late: u64,
    /// Longest time from sending a request until its answer.
    pub(crate) longest_wait: Duration,
    pub(crate) estimates: Option<Range>,
    pub(crate) pushbacks: Option<Range>,
    /// Refusals that did not say when to come back.
    pub(crate) untold: u64,
}

/// The least and the largest of some durations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

impl Tally {
    pub(crate) fn count(&mut self, outcome: Outcome, deadline: Option<Duration>) {
        match outcome {
            Outcome::Answered(wait) => {
                self.longest_wait = self.longest_wait.max(wait);
                let in_time = deadline.is_none_or(|deadline| wait <= deadline);
                *(if in_time { &mut self.in_time } else { &mut self.late }) += 1;
            }
            Outcome::Refused(Refusal { reason, estimate, pushback }) => {
                match reason {
                    Reason::Overloaded => self.overloaded += 1,
                    Reason::Full => self.full += 1,
                    Reason::TooLate => self.too_late += 1,
                }
                self.estimates = Range::of_both(self.estimates, estimate.map(Range::of));
                self.pushbacks = Range::of_both(self.pushbacks, pushback.map(Range::of));
                self.untold += u64::from(pushback.is_none());
            }
            Outcome::Unanswered => self.unanswered += 1,
            Outcome::Broken => self.broken += 1,
        }
    }

    pub(crate) fn refused(&self) -> u64 {
        self.overloaded + self.full + self.too_late
    }

    /// The sum of two tallies.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            in_time: self.in_time + other.in_time,
            late: self.late + other.late,
            unanswered: self.unanswered + other.unanswered,
            broken: self.broken + other.broken,
            overloaded: self.overloaded + other.overloaded,
            full: self.full + other.full,
            too_late: self.too_late + other.too_late,
            longest_wait: self.longest_wait.max(other.longest_wait),
            estimates: Range::of_both(self.estimates, other.estimates),
            pushbacks: Range::of_both(self.pushbacks, other.pushbacks),
            untold: self.untold + other.untold,
        }
    }
}

impl Range {
    fn of(only: Duration) -> Self {
        Self { least: only, most: only }
    }

    fn of_both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        [one, other]
            .into_iter()
            .flatten()
            .reduce(|one, other| Self { least: one.least.min(other.least), most: one.most.max(other.most) })
    }
}
