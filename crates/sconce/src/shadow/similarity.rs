//! The similarity of two outputs of one kind, 1 for equal ones.

use std::collections::BTreeSet;

use sconce_models::{Entity, Output, SparseVector, TokenVectors};

/// The similarity of the output in a lower precision to that in f32: the cosine of embeddings and of sparse vectors, the mean
/// of the cosines of the vectors of tokens, 1 for the same top label and else 0, 1 less the difference of scores, and the share
/// of entities in both of those in either. Outputs of unlike kinds have none: 0.
pub(super) fn similarity(reference: &Output, other: &Output) -> f64 {
    match (reference, other) {
        (Output::Embedding(reference), Output::Embedding(other)) => cosine(reference, other),
        (Output::Sparse(reference), Output::Sparse(other)) => sparse_cosine(reference, other),
        (Output::TokenVectors(reference), Output::TokenVectors(other)) => mean_cosine(reference, other),
        (Output::Classification(reference), Output::Classification(other)) => {
            f64::from(u8::from(reference.label() == other.label()))
        }
        (Output::Score(reference), Output::Score(other)) => {
            1.0 - (f64::from(reference.score) - f64::from(other.score)).abs()
        }
        (Output::Entities(reference), Output::Entities(other)) => shared(&reference.entities, &other.entities),
        _ => 0.0,
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return 0.0;
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    of_sums(dot(a, b), dot(a, a), dot(b, b))
}

fn sparse_cosine(a: &SparseVector, b: &SparseVector) -> f64 {
    let square = |vector: &SparseVector| vector.values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
    let of_b = |index: &u32| b.indices.binary_search(index).ok().map(|at| f64::from(b.values[at]));
    let both = a.indices.iter().zip(&a.values).filter_map(|(index, value)| Some(f64::from(*value) * of_b(index)?));
    of_sums(both.sum(), square(a), square(b))
}

/// The cosine of two vectors by their products. Two vectors of zeros are equal.
fn of_sums(dot: f64, of_a: f64, of_b: f64) -> f64 {
    if of_a == 0.0 && of_b == 0.0 { 1.0 } else { dot / (of_a * of_b).sqrt().max(f64::MIN_POSITIVE) }
}

fn mean_cosine(a: &TokenVectors, b: &TokenVectors) -> f64 {
    if a.dimensions != b.dimensions || a.values.len() != b.values.len() || a.values.is_empty() {
        return 0.0;
    }
    let vectors = a.values.chunks(a.dimensions).zip(b.values.chunks(b.dimensions));
    let count = vectors.len() as f64;
    vectors.map(|(a, b)| cosine(a, b)).sum::<f64>() / count
}

fn shared(a: &[Entity], b: &[Entity]) -> f64 {
    let named = |entities: &'_ [Entity]| -> BTreeSet<(usize, usize, String)> {
        entities.iter().map(|entity| (entity.start, entity.end, entity.entity_group.clone())).collect()
    };
    let (a, b) = (named(a), named(b));
    let either = a.union(&b).count();
    if either == 0 { 1.0 } else { a.intersection(&b).count() as f64 / either as f64 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sconce_models::{Classification, Entities, LabelFunction, Score};

    use super::*;

    #[test]
    fn each_kind_of_output_is_compared_by_what_it_says() {
        let labels: Arc<[String]> = ["no".to_owned(), "yes".to_owned()].into();
        let label =
            |logits: [f32; 2]| Output::Classification(Classification::from_logits(Arc::clone(&labels), logits.into()));
        let one: Arc<[String]> = ["match".to_owned()].into();
        let score = |score| Output::Score(Score::from_logit(Arc::clone(&one), score, LabelFunction::Identity));
        let entities = |starts: &[usize]| {
            let entity = |start: &usize| {
                let (entity_group, text) = ("PER".to_owned(), "Ada".to_owned());
                Entity { entity_group, score: 0.9, text, start: *start, end: start + 3 }
            };
            Output::Entities(Entities { entities: starts.iter().map(entity).collect() })
        };
        let sparse = |indices: &[u32], values: &[f32]| {
            Output::Sparse(SparseVector { indices: indices.to_vec(), values: values.to_vec() })
        };
        let tokens = |values: &[f32]| Output::TokenVectors(TokenVectors { dimensions: 2, values: values.to_vec() });
        for (reference, other, expected) in [
            (Output::Embedding(vec![1.0, 0.0]), Output::Embedding(vec![2.0, 0.0]), 1.0),
            (Output::Embedding(vec![1.0, 0.0]), Output::Embedding(vec![0.0, 1.0]), 0.0),
            (Output::Embedding(vec![0.0]), Output::Embedding(vec![0.0]), 1.0),
            (Output::Embedding(vec![0.0]), Output::Embedding(vec![1.0]), 0.0),
            (label([0.0, 1.0]), label([0.4, 0.5]), 1.0),
            (label([0.0, 1.0]), label([0.5, 0.4]), 0.0),
            (score(0.5), score(0.25), 0.75),
            (entities(&[]), entities(&[]), 1.0),
            (entities(&[0, 5]), entities(&[5, 9, 20]), 0.25),
            (sparse(&[1, 4], &[1.0, 1.0]), sparse(&[1, 4], &[2.0, 2.0]), 1.0),
            (sparse(&[1], &[1.0]), sparse(&[1, 4], &[3.0, 4.0]), 0.6),
            (tokens(&[1.0, 0.0, 1.0, 0.0]), tokens(&[1.0, 0.0, 0.0, 1.0]), 0.5),
            (score(0.5), label([0.0, 1.0]), 0.0),
        ] {
            let found = similarity(&reference, &other);
            assert!((found - expected).abs() < 1e-6, "{reference:?} and {other:?}: {found}, not {expected}");
        }
        assert!(similarity(&Output::Embedding(vec![f32::NAN]), &Output::Embedding(vec![1.0])).is_nan());
    }
}
