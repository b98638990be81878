//! `--verify`: the figures of a second run against the intervals of a record.

use std::io::{self, Write};

use sconce::decide::{DecidedCandidate, DecisionRecord, Estimate, Measured, Metric, candidate_name, figure};

use crate::table;

/// A figure of the record, and the same of this run.
#[derive(Debug)]
struct FigureAgain {
    candidate: String,
    name: String,
    recorded: Estimate,
    now: f64,
}

impl FigureAgain {
    fn is_within(&self) -> bool {
        let Estimate { low, high, .. } = self.recorded;
        // Sums of another order differ in their last bits.
        let slack = 1e-9 * low.abs().max(high.abs());
        (low - slack..=high + slack).contains(&self.now)
    }
}

/// Writes a line for each figure. Returns the number of those outside of their intervals.
pub(crate) fn write(out: &mut impl Write, record: &DecisionRecord, now: &[Measured]) -> io::Result<usize> {
    let figures: Vec<FigureAgain> =
        record.candidates.iter().zip(now).flat_map(|(decided, now)| again(record, decided, now)).collect();
    let mut rows = vec![["CANDIDATE", "FIGURE", "RECORD", "INTERVAL", "NOW", ""].map(str::to_owned)];
    rows.extend(figures.iter().map(|it| {
        let Estimate { value, low, high } = it.recorded;
        let digits = |value: f64| if it.is_share() { format!("{value:.4}") } else { figure(value) };
        [
            it.candidate.clone(),
            it.name.clone(),
            digits(value),
            format!("{} to {}", digits(low), digits(high)),
            digits(it.now),
            if it.is_within() { "within" } else { "OUTSIDE" }.to_owned(),
        ]
    }));
    table::write(out, &rows)?;
    let outside = figures.iter().filter(|it| !it.is_within()).count();
    writeln!(out, "\n{} of {} figures are within the intervals of the record", figures.len() - outside, figures.len())?;
    Ok(outside)
}

impl FigureAgain {
    /// True for a figure between 0 and 1, whose digits after the point count.
    fn is_share(&self) -> bool {
        self.name == "drop" || Metric::ALL.iter().any(|metric| metric.name() == self.name)
    }
}

fn again(record: &DecisionRecord, decided: &DecidedCandidate, now: &Measured) -> Vec<FigureAgain> {
    let DecidedCandidate { candidate, measured, .. } = decided;
    let candidate = candidate_name(candidate, &record.candidates);
    let of =
        |name: &str, recorded, now| FigureAgain { candidate: candidate.clone(), name: name.to_owned(), recorded, now };
    let mut figures = vec![
        of(record.policy.metric.name(), measured.accuracy, now.accuracy.value),
        of("drop", measured.drop, now.drop.value),
        of("p50 ms", measured.latency_p50_ms, now.latency_p50_ms.value),
        of("p99 ms", measured.latency_p99_ms, now.latency_p99_ms.value),
        of("items/s", measured.throughput, now.throughput.value),
    ];
    for (metric, recorded) in &measured.also {
        if let Some((_, again)) = now.also.iter().find(|(other, _)| other == metric) {
            figures.push(of(metric.name(), *recorded, again.value));
        }
    }
    figures
}
