//! Saturating arithmetic on times: predictions of a cost may be larger than a clock or a [`Duration`] can hold.

use std::time::{Duration, Instant};

/// Longest time that is added to an instant: longer than any queue lives.
const FAR: Duration = Duration::from_hours(24 * 365 * 100);

/// Adds `time` to `at`, at most [`FAR`].
pub(crate) fn later(at: Instant, time: Duration) -> Instant {
    at.checked_add(time.min(FAR)).unwrap_or(at)
}

/// Converts seconds to a duration: zero if they are negative or NaN, at most 584 years. Every decision converts several, and
/// [`Duration::try_from_secs_f64`] takes ten times as many instructions.
pub(crate) fn seconds(seconds: f64) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates at both ends")]
    let nanoseconds = (seconds * 1e9 + 0.5) as u64;
    Duration::from_nanos(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_clock_holds_is_far_away() {
        let now = Instant::now();
        assert_eq!(later(now, Duration::from_secs(1)), now + Duration::from_secs(1));
        assert_eq!(later(now, Duration::MAX), now + FAR);
        assert_eq!(later(later(now, FAR), Duration::MAX), now + FAR + FAR);
        for (of, is) in
            [(f64::NAN, Duration::ZERO), (-1.0, Duration::ZERO), (f64::INFINITY, Duration::from_nanos(u64::MAX))]
        {
            assert_eq!(seconds(of), is, "{of}");
        }
        assert_eq!(seconds(0.5), Duration::from_millis(500));
    }
}
