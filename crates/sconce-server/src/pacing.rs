//! Holds refusals back, so that they do not take the processor from computing.
//!
//! A refusal costs about as much as a small answer: reading the request and writing a response. Clients that retry at
//! once would keep a server busy with refusing them; a client whose refusal is held back costs nothing meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{RequestError, RequestFault};

/// Processor time of one refusal, from the first byte of the request to the last byte of the response, the kernel's
/// part included.
///
/// An estimate, which is not learned at run time: the bench `storm` saw 43 to 98 µs on a core of Zen 3, and less the
/// more refusals are sent together.
const REFUSAL_COST: Duration = Duration::from_micros(70);
/// Refusals together take at most one part in this many of the processors.
const PROCESSOR_PART: u32 = 10;
/// Refusals that are sent at once after a quiet time.
const BURST: u32 = 32;
/// Longest delay of a refusal that tells the client to come back sooner than this, or tells no time. If a hundred
/// callers are told that there is room in a millisecond, most of them are refused again.
const MAX_DELAY_BEYOND_RETRY: Duration = Duration::from_millis(100);
/// Interval at whose multiples delayed refusals are sent, so that many of them share a wake-up, a write for each
/// connection, and a read of the retries.
const TICK: Duration = Duration::from_millis(10);
/// Longest delay of any refusal, which bounds the number of calls that wait for theirs.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// Decides the delay of each refusal by the generic cell rate algorithm: `due` is the time of the next refusal if all
/// were evenly spaced.
#[derive(Debug)]
pub(crate) struct Pacing {
    interval: Duration,
    due: Option<Instant>,
    /// Time of the first refusal, from which ticks are counted.
    origin: Option<Instant>,
}

impl Pacing {
    /// Pacing for a machine of this many processors.
    pub(crate) fn new(processors: usize) -> Self {
        let processors = u32::try_from(processors.max(1)).unwrap_or(u32::MAX);
        Self { interval: REFUSAL_COST * PROCESSOR_PART / processors, due: None, origin: None }
    }

    /// The delay of a refusal that tells the client to come back after `retry_after`, of a request that has the time `left`.
    pub(crate) fn delay(&mut self, now: Instant, retry_after: Option<Duration>, left: Option<Duration>) -> Duration {
        let due = self.due.map_or(now, |due| due.max(now));
        let early = due.saturating_duration_since(now + self.interval * BURST);
        // Most of the time that is left: the refusal must arrive in time, and the client may use the rest.
        let left = left.map_or(MAX_DELAY, |left| left / 8 * 7);
        let retry_after = retry_after.unwrap_or_default().max(MAX_DELAY_BEYOND_RETRY);
        let delay = early.min(retry_after).min(left).min(MAX_DELAY);
        // Refusals that could not be delayed enough are made up for by later ones, up to the longest delay.
        self.due = Some((due + self.interval).min(now + MAX_DELAY + self.interval * BURST));
        delay.saturating_sub(self.after_tick(now, delay))
    }

    /// Time by which `now + delay` is later than the last tick before it; zero for a delay of less than two ticks.
    fn after_tick(&mut self, now: Instant, delay: Duration) -> Duration {
        let origin = *self.origin.get_or_insert(now);
        if delay < 2 * TICK {
            return Duration::ZERO;
        }
        let nanoseconds = (now + delay).saturating_duration_since(origin).as_nanos() % TICK.as_nanos();
        Duration::from_nanos(u64::try_from(nanoseconds).expect("less than a tick"))
    }
}

/// The pacing of refusals that all requests of a server share.
#[derive(Debug)]
pub struct Governor(Mutex<Pacing>);

impl Default for Governor {
    fn default() -> Self {
        Self::new()
    }
}

impl Governor {
    /// Pacing for this machine.
    #[must_use]
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Mutex::new(Pacing::new(processors)))
    }

    /// Holds `error` back if it is a refusal, for want of room or of a token. `left` gives the time that the request has left. The time after which the
    /// client is told to come back counts from the return of this function.
    pub async fn hold_back(&self, error: RequestError, left: impl FnOnce(Instant) -> Option<Duration>) -> RequestError {
        if !error.is_refusal() && error.fault() != RequestFault::NotAdmitted {
            return error;
        }
        let now = tokio::time::Instant::now();
        let (retry_after, left) = (error.retry_after(), left(now.into_std()));
        let delay = self.0.lock().unwrap_or_else(PoisonError::into_inner).delay(now.into_std(), retry_after, left);
        // Tokio's timers have a resolution of a millisecond.
        if delay < Duration::from_millis(1) {
            return error;
        }
        tokio::time::sleep_until(now + delay).await;
        RequestError::HeldBack { by: delay, error: Box::new(error) }
    }
}

#[cfg(test)]
mod tests {
    use sconce::QueueError;

    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_mins(1));

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_burst_goes_out_at_once_and_the_rest_at_the_rate_that_a_tenth_of_the_processors_can_do() {
        for processors in [1, 2, 16] {
            let (now, mut pacing) = (Instant::now(), Pacing::new(processors));
            let delays: Vec<_> = (0..=BURST + 100).map(|_| pacing.delay(now, LONG, None)).collect();
            let (burst, paced) = delays.split_at(BURST as usize + 1);
            assert!(burst.iter().all(Duration::is_zero), "{burst:?}");
            let expected = REFUSAL_COST * PROCESSOR_PART * 100 / u32::try_from(processors).unwrap();
            let last = *paced.last().unwrap();
            assert!(last <= expected && last + TICK > expected, "{last:?}, expected {expected:?} or the tick before");
        }
    }

    #[test]
    fn a_storm_of_instant_retries_gets_no_more_refusals_than_the_rate() {
        let (start, mut pacing) = (Instant::now(), Pacing::new(1));
        // Each of 120 callers comes back as soon as it is refused.
        let mut callers = vec![start; 120];
        let (mut refusals, end) = (0_u32, start + Duration::from_secs(10));
        while let Some(caller) = callers.iter_mut().min().filter(|caller| **caller < end) {
            *caller += pacing.delay(*caller, Some(ms(500)), Some(ms(1000))).max(Duration::from_micros(1));
            refusals += 1;
        }
        let affordable = 10_000_000 / (u32::try_from(REFUSAL_COST.as_micros()).unwrap() * PROCESSOR_PART);
        assert!((affordable..affordable + 2 * BURST + 120).contains(&refusals), "{refusals} of {affordable}");
    }

    #[test]
    fn no_refusal_waits_longer_than_it_says_nor_than_most_of_the_time_that_is_left() {
        let now = Instant::now();
        let after_a_storm = |retry_after, left| {
            let mut pacing = Pacing::new(1);
            for _ in 0..100_000 {
                pacing.delay(now, LONG, None);
            }
            pacing.delay(now, retry_after, left)
        };
        assert_eq!(after_a_storm(Some(ms(300)), Some(ms(1000))), ms(300));
        assert_eq!(after_a_storm(Some(ms(5)), None), MAX_DELAY_BEYOND_RETRY);
        assert_eq!(after_a_storm(None, None), MAX_DELAY_BEYOND_RETRY);
        assert_eq!(after_a_storm(Some(ms(500)), Some(ms(100))), ms(80), "87.5 ms, back to a tick");
        assert_eq!(after_a_storm(LONG, None), MAX_DELAY);
        assert_eq!(after_a_storm(LONG, Some(Duration::ZERO)), Duration::ZERO);
    }

    #[test]
    fn refusals_that_are_held_back_go_out_together() {
        let (start, mut pacing) = (Instant::now(), Pacing::new(1));
        let released = |at: u64| {
            let now = start + Duration::from_micros(at);
            now + pacing.delay(now, Some(ms(500)), Some(ms(1000)))
        };
        let mut after: Vec<Duration> =
            (0..2000).map(|at| at * 31).map(released).map(|at| at.duration_since(start)).collect();
        after.retain(|after| *after > ms(62) + 2 * TICK); // those held back for two ticks or more
        assert!(after.len() > 500 && after.iter().all(|after| after.as_nanos() % TICK.as_nanos() == 0), "{after:?}");
    }

    #[test]
    fn a_storm_is_forgotten_once_it_is_over() {
        let (now, mut pacing) = (Instant::now(), Pacing::new(1));
        for _ in 0..100_000 {
            pacing.delay(now, LONG, None);
        }
        let later = now + MAX_DELAY + pacing.interval * BURST;
        assert_eq!(pacing.delay(later, LONG, None), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_held_back_and_say_less_of_coming_back_and_other_errors_are_not() {
        let governor = Governor(Mutex::new(Pacing::new(1)));
        let full = || {
            let source = QueueError::QueueFull { max: 8, retry_after: Some(ms(100)) }.into();
            RequestError::Refused { source }
        };
        let began = tokio::time::Instant::now();
        for _ in 0..200 {
            let error = governor.hold_back(full(), |_| None).await;
            assert!(error.is_refusal() && error.to_string() == full().to_string());
            let RequestError::HeldBack { by, .. } = &error else { continue };
            assert!(*by >= ms(1) && error.retry_after() == ms(100).checked_sub(*by), "{error:?}");
        }
        let expected = REFUSAL_COST * PROCESSOR_PART * (199 - BURST);
        let elapsed = began.elapsed();
        assert!(elapsed + ms(2) >= expected && elapsed < expected + ms(20), "{elapsed:?}");
        for _ in 0..1000 {
            governor.hold_back(RequestError::MixedContents, |_| None).await;
        }
        assert_eq!(began.elapsed(), elapsed);
    }
}
