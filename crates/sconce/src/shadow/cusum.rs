//! A sequential test of the share of different answers: a Bernoulli CUSUM chart (Page, "Continuous inspection schemes",
//! Biometrika 1954; Reynolds and Stoumbos, "A CUSUM chart for monitoring a proportion", Journal of Quality Technology 1999).
//!
//! It adds up the logarithm of how much likelier each answer is at a share that is [`WORSE`] times the allowed one than at the
//! allowed one, never below 0, and raises an alarm at [`LIMIT`]. So it forgets the good past, and needs no window.

/// The share that the test looks for, as a multiple of the allowed one. Smaller: it needs more answers to tell. Larger: it is
/// slow to find shares that are a little too large.
const WORSE: f64 = 3.0;
/// The sum at which there is an alarm: the logarithm of the answers to a false alarm, on average at least, where exactly the
/// allowed share differs (Lorden, "Procedures for reacting to a change in distribution", 1971). Smaller: more false alarms.
/// Larger: later alarms.
const LIMIT: f64 = 13.8; // ln 1,000,000

/// The test for one allowed share.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShareTest {
    /// Added for an answer that differs.
    up: f64,
    /// Added for one that does not: it is negative.
    down: f64,
    sum: f64,
}

impl ShareTest {
    /// Makes the test for an allowed share between 0 and 1.
    pub(super) fn new(allowed: f64) -> Self {
        // Of a share that leaves no room for three times as much, it looks for the middle between it and 1.
        let worse = (allowed * WORSE).min(f64::midpoint(allowed, 1.0));
        Self { up: (worse / allowed).ln(), down: ((1.0 - worse) / (1.0 - allowed)).ln(), sum: 0.0 }
    }

    /// Takes an answer; returns true once too many differ.
    pub(super) fn observe(&mut self, differs: bool) -> bool {
        self.sum = (self.sum + if differs { self.up } else { self.down }).max(0.0);
        self.sum >= LIMIT
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The number of answers to the alarm where this share differs; `None` if there is none in `answers`.
    fn answers_to_alarm(seed: u64, allowed: f64, share: f64, answers: usize) -> Option<usize> {
        let (mut test, mut rng) = (ShareTest::new(allowed), StdRng::seed_from_u64(seed));
        (1..=answers).find(|_| test.observe(rng.random_bool(share)))
    }

    #[test]
    fn false_alarms_are_as_rare_as_its_limit_says() {
        const ANSWERS: usize = 200_000;
        const RUNS: u64 = 50;
        for allowed in [0.005, 0.02, 0.1, 0.5] {
            let alarms = (0..RUNS).filter(|seed| answers_to_alarm(*seed, allowed, allowed, ANSWERS).is_some()).count();
            println!("{allowed} allowed and seen: {alarms} alarms in {RUNS} runs of {ANSWERS} answers");
            // A million answers to each: ten in ten million, and twice that for chance.
            assert!(alarms <= 20, "{allowed}: {alarms}");
            let good = (0..RUNS).filter(|seed| answers_to_alarm(*seed, allowed, allowed / 2.0, ANSWERS).is_some());
            assert_eq!(good.count(), 0, "{allowed}: half of the allowed share");
        }
    }

    #[test]
    fn a_share_that_is_too_large_is_found_the_sooner_the_larger_it_is() {
        const RUNS: u64 = 50;
        for (allowed, share, most) in [(0.02, 0.06, 900), (0.02, 0.2, 90), (0.02, 1.0, 13), (0.5, 1.0, 40)] {
            let found: Vec<_> = (0..RUNS).filter_map(|seed| answers_to_alarm(seed, allowed, share, 10_000)).collect();
            let mean = found.iter().sum::<usize>() / found.len();
            println!("{allowed} allowed, {share} seen: an alarm after {mean} answers on average");
            assert_eq!(found.len() as u64, RUNS, "each run finds it");
            assert!(mean <= most, "{share} of {allowed}: {mean}");
        }
    }
}
