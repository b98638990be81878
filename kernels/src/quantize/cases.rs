//! The cases that every implementation is checked with.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) columns: usize,
    /// Whole rows.
    pub(crate) x: Vec<f32>,
}

/// Columns around every width of a vector; rows of zeros, of one sign, of equal and of extreme values.
pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let mut random = StdRng::seed_from_u64(1);
    let mixed = [1, 2, 7, 8, 15, 16, 17, 33, 64, 100, 384].into_iter().map(move |columns| {
        let x = (0..3 * columns).map(|_| random.random_range(-2.0..5.0)).collect();
        Case { columns, x }
    });
    let equal = [(0.0, 5), (3.0, 9), (-3.0, 17), (1e-30, 4), (1e30, 20)];
    mixed.chain(equal.into_iter().map(|(value, columns)| Case { columns, x: vec![value; columns] }))
}
