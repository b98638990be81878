//! A bound on the amount per second, which may be exceeded by what is known only afterwards.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Amounts that may come at once after a quiet time: as much as one second allows.
const BURST: Duration = Duration::from_secs(1);
/// Longest time for which a bucket is in use after one amount, so that no mistake shuts a client out for days.
const MAX_DEBT: Duration = Duration::from_hours(1);

/// An amount per second, by the generic cell rate algorithm: `due` is the time at which all amounts so far would have come
/// if they were evenly spaced.
///
/// An amount that is known only when the work is done, as tokens are, is added afterwards and may exceed the bound; then
/// nothing is allowed until enough time has passed.
#[derive(Debug)]
pub(crate) struct RateBucket {
    per_second: NonZeroU32,
    due: Option<Instant>,
}

impl RateBucket {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self { per_second, due: None }
    }

    pub(crate) fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    /// Adds `amount` if there is room for it.
    ///
    /// # Errors
    /// The time after which there is room.
    pub(crate) fn take(&mut self, amount: u64, now: Instant) -> Result<(), Duration> {
        let due = self.due.map_or(now, |due| due.max(now));
        // An amount above a second's worth is let in when nothing is owed.
        let allowed = now + BURST.saturating_sub(self.time_of(amount));
        match due.checked_duration_since(allowed) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                self.add(amount, now);
                Ok(())
            }
        }
    }

    /// Checks that less than a second's worth is owed.
    ///
    /// # Errors
    /// The time after which that is so.
    pub(crate) fn check(&self, now: Instant) -> Result<(), Duration> {
        let wait = self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now + BURST));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Adds `amount`, whether or not there is room for it.
    pub(crate) fn add(&mut self, amount: u64, now: Instant) {
        let due = self.due.map_or(now, |due| due.max(now));
        self.due = Some((due + self.time_of(amount)).min(now + MAX_DEBT));
    }

    /// Takes back an amount that was added.
    pub(crate) fn take_back(&mut self, amount: u64) {
        self.due = self.due.and_then(|due| due.checked_sub(self.time_of(amount)));
    }

    /// Returns true if nothing is owed, so that a new bucket would be the same.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    fn time_of(&self, amount: u64) -> Duration {
        let nanoseconds = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second.get());
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)).min(MAX_DEBT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(per_second: u32) -> RateBucket {
        RateBucket::new(NonZeroU32::new(per_second).unwrap())
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_second_s_worth_comes_at_once_and_then_as_much_as_the_rate_allows() {
        let (start, mut bucket) = (Instant::now(), bucket(10));
        for _ in 0..10 {
            assert_eq!(bucket.take(1, start), Ok(()));
        }
        assert_eq!(bucket.take(1, start), Err(ms(100)));
        assert_eq!(bucket.take(1, start + ms(99)), Err(ms(1)));
        assert_eq!(bucket.take(1, start + ms(100)), Ok(()));
        let taken = (100..10_100).filter(|at| bucket.take(1, start + ms(*at)).is_ok()).count();
        assert_eq!(taken, 99, "ten a second, the last of which is due just after the end");
        assert!(!bucket.is_idle(start + ms(10_100)) && bucket.is_idle(start + ms(11_100)));
    }

    #[test]
    fn an_amount_that_is_known_afterwards_shuts_the_client_out_until_it_is_made_up_for() {
        let (start, mut bucket) = (Instant::now(), bucket(1000));
        assert_eq!(bucket.check(start), Ok(()));
        bucket.add(5000, start);
        assert_eq!(bucket.check(start), Err(ms(4000)));
        assert_eq!(bucket.check(start + ms(3999)), Err(ms(1)));
        assert_eq!(bucket.check(start + ms(4000)), Ok(()));
        bucket.take_back(4500);
        assert_eq!(bucket.check(start), Ok(()));
        bucket.add(u64::MAX, start);
        assert_eq!(bucket.check(start), Err(MAX_DEBT.saturating_sub(BURST)), "no mistake shuts a client out for days");
    }

    #[test]
    fn an_amount_above_a_second_s_worth_is_let_in_when_nothing_is_owed() {
        let (start, mut bucket) = (Instant::now(), bucket(10));
        assert_eq!(bucket.take(50, start), Ok(()));
        assert_eq!(bucket.take(50, start + ms(4999)), Err(ms(1)));
        assert_eq!(bucket.take(50, start + ms(5000)), Ok(()));
    }
}
