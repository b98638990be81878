//! The texts that every engine encodes: film reviews that ship, cut to length.

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sconce_models::{Features, LoadOptions, Prepared, Registry, Truncation};

use crate::Result;
use crate::model::Limits;
use crate::shape::BatchShape;

const SEED: u64 = 3;

/// Writes `{shape: [[token id, …], …]}`: the same in every run and for every engine.
///
/// The words are those of people, in their order: with random words activations stray further, and int8 looks worse than
/// it is.
pub(crate) fn write(shapes: &[BatchShape], model: &Path, path: &Path) -> Result<()> {
    let max = Limits::read(model)?.max_position_embeddings;
    let tokens = Tokens::of_reviews(model)?;
    let mut inputs = BTreeMap::new();
    for shape in shapes {
        let mut rng = StdRng::seed_from_u64(SEED);
        let lengths = shape.lengths(&mut rng);
        if let Some(length) = lengths.iter().find(|length| !(2..=max).contains(*length)) {
            return Err(format!("shape {shape} has a text of {length} tokens; the model takes 2 to {max}").into());
        }
        let texts: Vec<Vec<u32>> = lengths.iter().map(|length| tokens.text(*length, &mut rng)).collect();
        inputs.insert(shape.to_string(), texts);
    }
    Ok(std::fs::write(path, serde_json::to_vec(&inputs)?)?)
}

struct Tokens {
    /// Tokens that the model's template puts before and after a text.
    first: u32,
    last: u32,
    /// All reviews, end to end.
    words: Vec<u32>,
}

impl Tokens {
    fn of_reviews(model: &Path) -> Result<Self> {
        let reviews = std::fs::read_to_string(sconce_benches::zoo("tiny-bert-sentiment").join("test.tsv"))?;
        let processor = Registry::default().load(model, &LoadOptions::default())?.processor;
        let mut tokens = Self { first: 0, last: 0, words: Vec::new() };
        for review in reviews.lines().filter_map(|line| line.rsplit('\t').next()) {
            let Prepared { features, .. } = processor.prepare(review.into(), Truncation::Truncate)?;
            let Features::Tokens { input_ids, .. } = features else {
                return Err(format!("{} does not read text", model.display()).into());
            };
            let [first, words @ .., last] = &input_ids[..] else { continue };
            (tokens.first, tokens.last) = (*first, *last);
            tokens.words.extend(words);
        }
        Ok(tokens)
    }

    /// Consecutive words between the two tokens that the template adds.
    fn text(&self, length: usize, rng: &mut StdRng) -> Vec<u32> {
        let words = length - 2;
        let from = rng.random_range(0..=self.words.len() - words);
        [&[self.first], &self.words[from..from + words], &[self.last]].concat()
    }
}
