//! Checks every engine's answers against the reference, before anything is timed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Result;
use crate::crew::Crew;
use crate::engine::Engine;
use crate::shape::BatchShape;

/// Answers by shape: one row per text, all of one length.
pub(crate) type Answers = BTreeMap<BatchShape, Vec<Vec<f64>>>;

/// Reads what `reference.py` has written.
pub(crate) fn reference(shapes: &[BatchShape], directory: &Path) -> Result<Answers> {
    let read = |shape: &BatchShape| {
        let bytes = std::fs::read(directory.join(format!("{shape}.f64")))?;
        let values: Vec<f64> = bytes.as_chunks().0.iter().map(|value| f64::from_le_bytes(*value)).collect();
        Ok((*shape, into_rows(&values, *shape)))
    };
    shapes.iter().map(read).collect()
}

/// Computes one engine's answers.
pub(crate) fn answers(crew: &mut Crew, engine: Engine, shapes: &[BatchShape], scratch: &Path) -> Result<Answers> {
    let file = scratch.join("answers.f32");
    let mut ask = |shape: &BatchShape| {
        let values: Vec<f64> = crew.member(engine).values(*shape, &file)?.into_iter().map(f64::from).collect();
        Ok((*shape, into_rows(&values, *shape)))
    };
    shapes.iter().map(&mut ask).collect()
}

fn into_rows(values: &[f64], shape: BatchShape) -> Vec<Vec<f64>> {
    let width = (values.len() / shape.texts()).max(1);
    values.chunks(width).map(<[f64]>::to_vec).collect()
}

/// The lowest cosine over all rows of all shapes; -1 for an answer of the wrong size or with a NaN.
pub(crate) fn lowest_cosine(answers: &Answers, expected: &Answers) -> f64 {
    let mut lowest = 1.0_f64;
    for (shape, expected) in expected {
        let rows = answers.get(shape).map_or(&[][..], Vec::as_slice);
        if rows.len() != expected.len() {
            return -1.0;
        }
        for (row, expected) in rows.iter().zip(expected) {
            lowest = lowest.min(cosine(row, expected));
        }
    }
    lowest
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    if a.len() == b.len() && !cosine.is_nan() { cosine } else { -1.0 }
}
