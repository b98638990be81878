//! Timed turns of a batch, and their summary.

use std::time::{Duration, Instant};

use super::subject::Cell;
use crate::error::Error;

/// The times of a cell's batches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timings {
    /// Seconds of every batch.
    batches: Vec<f64>,
    /// Energy of the device while the batches ran, if it is measured.
    joules: Option<f64>,
    unmetered: bool,
}

/// Summary of a cell's times, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) batches: usize,
    pub(crate) median: f64,
    pub(crate) p99: f64,
    /// Width of the middle half of the times, relative to the median.
    pub(crate) spread: f64,
    /// Energy of one batch.
    pub(crate) joules: Option<f64>,
}

/// Runs a few batches, so that memory and caches are warm.
pub(crate) fn warm_up(cell: &Cell) -> Result<(), Error> {
    (0..3).try_for_each(|_| cell.forward().map(drop))
}

/// Runs the batch again and again for the time `turn`, at least once.
pub(crate) fn take_turn(cell: &mut Cell, turn: Duration) -> Result<(), Error> {
    let before = cell.meter.joules();
    let began = Instant::now();
    loop {
        let started = Instant::now();
        let rows = cell.forward()?;
        cell.timings.batches.push(started.elapsed().as_secs_f64());
        drop(rows);
        if began.elapsed() >= turn {
            break;
        }
    }
    let joules = before.zip(cell.meter.joules()).and_then(|(before, after)| cell.meter.between(before, after));
    cell.timings.add_energy(joules);
    Ok(())
}

impl Timings {
    /// Adds the energy of a turn. One turn without a measurement makes the total unknown.
    fn add_energy(&mut self, joules: Option<f64>) {
        match joules {
            Some(joules) if !self.unmetered => self.joules = Some(self.joules.unwrap_or(0.0) + joules),
            _ => (self.joules, self.unmetered) = (None, true),
        }
    }

    /// `None` if no batch was timed.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.batches.clone();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5)?;
        let middle_half = quantile(&sorted, 0.75)? - quantile(&sorted, 0.25)?;
        Some(Summary {
            batches: sorted.len(),
            median,
            p99: quantile(&sorted, 0.99)?,
            spread: middle_half / median,
            joules: self.joules.map(|joules| joules / sorted.len() as f64),
        })
    }
}

/// The quantile of sorted values: the smallest value that is at least as large as the given part of them.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the number of values")]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_the_middle_the_tail_and_how_wide_it_is() {
        let batches = (1..=200).rev().map(f64::from).collect();
        let timings = Timings { batches, joules: Some(400.0), unmetered: false };
        let expected = Summary { batches: 200, median: 100.0, p99: 198.0, spread: 1.0, joules: Some(2.0) };
        assert_eq!(timings.summary(), Some(expected));
        assert_eq!(Timings::default().summary(), None);
        let one = Timings { batches: vec![3.0], joules: None, unmetered: true };
        assert_eq!(one.summary().map(|one| (one.median, one.p99, one.spread)), Some((3.0, 3.0, 0.0)));
    }

    #[test]
    fn energy_is_known_only_if_every_turn_was_measured() {
        let mut timings = Timings::default();
        timings.add_energy(Some(1.0));
        timings.add_energy(Some(2.0));
        assert_eq!(timings.joules, Some(3.0));
        timings.add_energy(None);
        timings.add_energy(Some(2.0));
        assert_eq!(timings.joules, None);
    }
}
