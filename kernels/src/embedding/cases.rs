//! The cases that every implementation is checked with.

#![expect(clippy::cast_possible_truncation, reason = "small numbers")]

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{Embeddings, Table, TableFormat};
use crate::residual_norm::{LayerNorm, reference::residual_norm};

/// Token ids of one sequence.
pub(crate) const IDS: [u32; 4] = [8, 0, 8, 3];
pub(crate) const SEGMENTS: [u32; 4] = [0, 1, 1, 0];

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) columns: usize,
    pub(crate) format: TableFormat,
    /// Allowed error of the format.
    pub(crate) tolerance: f64,
    /// Tables of words, positions and segments.
    pub(crate) tables: [Vec<f32>; 3],
}

pub(crate) fn cases() -> impl Iterator<Item = Case> {
    let mut random = StdRng::seed_from_u64(1);
    let formats = [
        (1, TableFormat::F32, 1e-5),
        (20, TableFormat::F32, 1e-5),
        (384, TableFormat::F32, 1e-5),
        (37, TableFormat::Int8, 0.05),
    ];
    formats.into_iter().map(move |(columns, format, tolerance)| {
        let mut values = |rows: usize| (0..rows * columns).map(|_| random.random_range(-1.0..1.0)).collect();
        Case { columns, format, tolerance, tables: [values(9), values(5), values(2)] }
    })
}

impl Case {
    pub(crate) fn norm(&self) -> LayerNorm {
        LayerNorm::new(vec![1.0; self.columns], vec![0.5; self.columns], 1e-3).unwrap()
    }

    /// The tables in the case's format.
    pub(crate) fn embeddings(&self) -> Embeddings {
        let [words, positions, segments] =
            self.tables.each_ref().map(|values| Table::new(values.clone(), self.columns, self.format).unwrap());
        Embeddings::new(words, Some(positions), Some(segments), Some(self.norm().into())).unwrap()
    }

    /// The expected output for [`IDS`] and [`SEGMENTS`] with these tables, which may be the case's, rounded.
    pub(crate) fn expected(&self, tables: &[Vec<f32>; 3]) -> Vec<f64> {
        let row = |table: &[f32], row: u32| table[row as usize * self.columns..][..self.columns].to_vec();
        let [words, positions, segments] = tables;
        let tokens = IDS.iter().zip(SEGMENTS).enumerate();
        let normalised = tokens.flat_map(|(position, (id, segment))| {
            let rest = row(segments, segment).into_iter().zip(row(positions, position as u32)).map(|(a, b)| a + b);
            let (weight, bias) = (vec![1.0; self.columns], vec![0.5; self.columns]);
            residual_norm(&row(words, *id), &rest.collect::<Vec<f32>>(), &weight, &bias, 1e-3)
        });
        normalised.collect()
    }
}
