//! The cases that every implementation is checked with.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

/// Columns around every width of a vector, and those of real models.
pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let mut random = StdRng::seed_from_u64(1);
    let shapes = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 384, 1536]
        .into_iter()
        .flat_map(|columns| [0, 1, 2, 5].map(|rows| (rows, columns)));
    shapes.map(move |(rows, columns)| Case {
        rows,
        columns,
        values: (0..rows * columns).map(|_| random.random_range(-6.0..6.0)).collect(),
        bias: (0..columns).map(|_| random.random_range(-1.0..1.0)).collect(),
    })
}

/// Inputs at the limits, and their outputs.
pub(crate) const LIMITS: [(f32, f32); 11] = [
    (f32::INFINITY, f32::INFINITY),
    (f32::NEG_INFINITY, 0.0),
    (0.0, 0.0),
    (-0.0, 0.0),
    (f32::MAX, f32::MAX),
    (f32::MIN, 0.0),
    (f32::MIN_POSITIVE, f32::MIN_POSITIVE / 2.0),
    (-f32::MIN_POSITIVE, -f32::MIN_POSITIVE / 2.0),
    (1e-40, 5e-41),
    (100.0, 100.0),
    (-100.0, 0.0),
];
