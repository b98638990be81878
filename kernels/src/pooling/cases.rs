//! The cases that every implementation is checked with.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::Pooling;

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) columns: usize,
    pub(crate) lengths: Vec<usize>,
    pub(crate) tokens: Vec<f32>,
    pub(crate) pooling: Pooling,
}

/// One sequence and several, of columns around every width of a vector.
pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let mut random = StdRng::seed_from_u64(1);
    let shapes: [(&[usize], usize); 6] =
        [(&[1], 1), (&[3], 7), (&[5, 1], 8), (&[16], 17), (&[100, 2, 31], 384), (&[1, 1, 1, 64], 130)];
    let shapes = shapes.into_iter().flat_map(|shape| Pooling::ALL.map(|pooling| (shape, pooling)));
    shapes.map(move |((lengths, columns), pooling)| {
        let count = lengths.iter().sum::<usize>() * columns;
        let tokens = (0..count).map(|_| random.random_range(-1.0..1.0)).collect();
        Case { columns, lengths: lengths.to_vec(), tokens, pooling }
    })
}
