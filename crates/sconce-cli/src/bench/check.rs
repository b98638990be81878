//! Compares answers with those of the CPU in f32, before anything is timed.

use std::fmt;

use sconce::models::Finishing;
use sconce::{DeviceName, Output, Precision};

use super::shape::BenchShape;
use super::subject::Cell;
use crate::error::Error;

/// The largest distance from the answers of the CPU in f32 that is allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// The largest difference, as a part of the largest number of the answer or of 1.
    Gap(f64),
    /// The lowest cosine of a row, for precisions that change every number a little.
    Cosine(f64),
}

impl Bound {
    pub(crate) fn of(precision: Precision) -> Self {
        match precision.name() {
            "f32" => Self::Gap(1e-5),
            "f16" => Self::Gap(2e-3),
            "bf16" => Self::Gap(1e-2),
            _ => Self::Cosine(0.99),
        }
    }

    /// The distance of a batch's answers from the expected ones, as this bound counts it; NaN if any number is NaN.
    pub(crate) fn distance(self, rows: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
        let pairs = || rows.iter().zip(expected);
        if rows.len() != expected.len() || pairs().any(|(row, expected)| row.len() != expected.len()) {
            return f64::NAN;
        }
        match self {
            Self::Gap(_) => pairs().map(|(row, expected)| gap(row, expected)).fold(0.0, worse(f64::gt)),
            Self::Cosine(_) => pairs().map(|(row, expected)| cosine(row, expected)).fold(1.0, worse(f64::lt)),
        }
    }

    pub(crate) fn allows(self, distance: f64) -> bool {
        match self {
            Self::Gap(max) => distance <= max,
            Self::Cosine(min) => distance >= min,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap(max) => write!(f, "a difference of at most {max:e}"),
            Self::Cosine(min) => write!(f, "a cosine of at least {min}"),
        }
    }
}

/// A cell whose answers are too far from the expected ones.
pub(crate) struct InaccurateCell {
    device: DeviceName,
    precision: Precision,
    shape: BenchShape,
    distance: f64,
    bound: Bound,
}

impl fmt::Display for InaccurateCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, precision, shape, distance, bound } = self;
        write!(f, "{shape} in {precision} on {device} is at {distance:e} from the CPU in f32; {bound} is allowed")
    }
}

/// Compares the answers of every cell, and returns the failures.
pub(crate) fn check(cells: &mut [Cell]) -> Result<Vec<InaccurateCell>, Error> {
    let mut failures = Vec::new();
    for cell in cells {
        let expected = cell.reference.borrow_mut().forward(&cell.batch);
        let expected =
            expected.map_err(|cause| Error::Forward { what: format!("{} on the CPU", cell.shape), cause })?;
        let bound = Bound::of(cell.precision);
        let processor = &cell.processor;
        let answers = |rows: Vec<Vec<f32>>| -> Vec<Vec<f32>> {
            if processor.keeps_input() {
                // Its answers need texts, and the batch is of tokens.
                return rows;
            }
            rows.into_iter().map(|row| numbers(&processor.finish(row, Finishing::default()))).collect()
        };
        let distance = bound.distance(&answers(cell.forward()?), &answers(expected));
        (cell.distance, cell.right) = (Some(distance), bound.allows(distance));
        if !cell.right {
            let Cell { device, precision, shape, .. } = *cell;
            failures.push(InaccurateCell { device, precision, shape, distance, bound });
        }
    }
    Ok(failures)
}

/// The numbers that a caller gets. For a classifier these are the scores: the direction of logits near zero means nothing.
fn numbers(output: &Output) -> Vec<f32> {
    let Some(vector) = output.sparse() else { return output.numbers().into_owned() };
    // Two sparse vectors are compared word by word: they may have different words.
    let mut numbers = vec![0.0; vector.indices.last().map_or(0, |last| *last as usize + 1)];
    vector.indices.iter().zip(&vector.values).for_each(|(index, value)| numbers[*index as usize] = *value);
    numbers
}

/// Returns the worse of two values, or NaN if either is NaN.
fn worse(is_worse: fn(&f64, &f64) -> bool) -> impl Fn(f64, f64) -> f64 {
    move |worst, one| if is_worse(&one, &worst) || one.is_nan() { one } else { worst }
}

fn gap(row: &[f32], expected: &[f32]) -> f64 {
    let largest = expected.iter().map(|x| f64::from(x.abs())).fold(1.0, f64::max);
    row.iter().zip(expected).map(|(a, b)| f64::from(a - b).abs() / largest).fold(0.0, worse(f64::gt))
}

fn cosine(row: &[f32], expected: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(row, expected) / (dot(row, row) * dot(expected, expected)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_precision_has_its_bound_and_nan_is_never_right() {
        let expected = vec![vec![1.0, -2.0], vec![0.5, 0.25]];
        let apart = |by: f32| vec![vec![1.0, -2.0 + by], vec![0.5, 0.25]];
        for (precision, by, right) in [
            (Precision::F32, 0.0, true),
            (Precision::F32, 1e-5, true),
            (Precision::F32, 1e-4, false),
            (Precision::Int8, 0.1, true),
            (Precision::Int8, 2.0, false),
            (Precision::F32, f32::NAN, false),
            (Precision::Int8, f32::NAN, false),
        ] {
            let bound = Bound::of(precision);
            assert_eq!(bound.allows(bound.distance(&apart(by), &expected)), right, "{precision}, {by} apart");
        }
        let bound = Bound::of(Precision::F32);
        assert!(!bound.allows(bound.distance(&expected[..1], &expected)), "a row is missing");
    }
}
