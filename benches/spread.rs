//! Medians with their ranges.

use std::fmt;

/// Median, least and largest of some figures. Printed as `median (least–most)` with the precision asked for.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The middle figure, or the mean of the two in the middle; not a number if there are none.
    pub median: f64,
    /// The smallest figure.
    pub least: f64,
    /// The largest figure.
    pub most: f64,
}

impl Spread {
    /// The spread of `figures`, in any order.
    #[must_use]
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let (Some(least), Some(most)) = (figures.first(), figures.last()) else {
            return Self { median: f64::NAN, least: f64::NAN, most: f64::NAN };
        };
        let median =
            if figures.len() % 2 == 1 { figures[middle] } else { figures[middle - 1].midpoint(figures[middle]) };
        Self { median, least: *least, most: *most }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, least, most } = self;
        let digits = out.precision().unwrap_or(1);
        write!(out, "{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}
