//! The batches that are compared, by name.

use std::fmt;
use std::str::FromStr;

use sconce::models::{Features, Processor};
use sconce::{Input, InputKind, Truncation};

/// The shape of a batch, for instance `8x64`, which is 8 texts of 64 tokens, or `mixed`: 32 texts of 8 to 256 tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BenchShape {
    Even { texts: usize, tokens: usize },
    Mixed,
}

/// Number of texts of a mixed batch, and tokens of the shortest and the longest.
const MIXED: (usize, usize, usize) = (32, 8, 256);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("batch '{name}' is not known; give TEXTSxTOKENS with at least 1 text of 2 tokens, for instance 8x64, or mixed")]
pub(crate) struct UnknownBatchShape {
    name: String,
}

impl BenchShape {
    /// Tokens of each text. A mixed batch is cut to `max_tokens`; an even batch with longer texts gives `None`.
    fn lengths(self, max_tokens: usize) -> Option<Vec<usize>> {
        match self {
            Self::Even { texts, tokens } => (tokens <= max_tokens).then(|| vec![tokens; texts]),
            Self::Mixed => {
                let (texts, shortest, longest) = MIXED;
                let longest = longest.min(max_tokens);
                // Lengths are evenly spread, and mixed in a fixed order.
                let length =
                    |text: usize| shortest + (text * 13 % texts) * longest.saturating_sub(shortest) / (texts - 1);
                Some((0..texts).map(length).map(|length| length.min(max_tokens)).collect())
            }
        }
    }

    fn items(self) -> usize {
        match self {
            Self::Even { texts, .. } => texts,
            Self::Mixed => MIXED.0,
        }
    }

    /// The batch for a model, the same in every run on every device; `None` if the model does not take it.
    pub(crate) fn batch(self, processor: &dyn Processor, kind: &InputKind) -> Option<Vec<Features>> {
        let prepare = |input| processor.prepare(input, Truncation::Truncate).ok().map(|prepared| prepared.features);
        match kind {
            // Texts of exactly so many tokens, none like another.
            InputKind::Text { max_tokens } | InputKind::TextOrPair { max_tokens } => {
                let words = prepare(Input::from(WORDS.repeat(20)))?;
                let lengths = self.lengths(*max_tokens)?;
                lengths.iter().enumerate().map(|(text, length)| cut(&words, text, *length)).collect()
            }
            other => match other.max_tokens() {
                Some(max) => self.lengths(max)?.into_iter().map(|length| prepare(other.sample(length))).collect(),
                None => (0..self.items()).map(|_| prepare(other.sample(0))).collect(),
            },
        }
    }
}

/// Common words, so that activations are about as large as those of real texts.
const WORDS: &str = "it was a bright cold day in april and the clocks were striking thirteen but nobody who waited for the \
    train had expected anything else from the old station on the hill where the wind never rests ";

/// A text of `length` tokens: the model's first and last special token, and words between them.
fn cut(words: &Features, text: usize, length: usize) -> Option<Features> {
    let Features::Tokens { input_ids, .. } = words else { return None };
    let [first, words @ .., last] = &input_ids[..] else { return None };
    let between = words.iter().cycle().skip(text * 7).take(length.checked_sub(2)?);
    let input_ids: Vec<u32> = std::iter::once(first).chain(between).chain([last]).copied().collect();
    Some(Features::Tokens { token_type_ids: vec![0; input_ids.len()], input_ids })
}

impl fmt::Display for BenchShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Even { texts, tokens } => f.pad(&format!("{texts}x{tokens}")),
            Self::Mixed => f.pad("mixed"),
        }
    }
}

impl FromStr for BenchShape {
    type Err = UnknownBatchShape;

    fn from_str(name: &str) -> Result<Self, UnknownBatchShape> {
        if name == "mixed" {
            return Ok(Self::Mixed);
        }
        let parsed = name.split_once('x').and_then(|(texts, tokens)| Some((texts.parse().ok()?, tokens.parse().ok()?)));
        match parsed {
            Some((texts, tokens)) if texts > 0 && tokens > 1 => Ok(Self::Even { texts, tokens }),
            _ => Err(UnknownBatchShape { name: name.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_as_they_are_written_and_others_are_refused() {
        for name in ["1x16", "32x512", "mixed"] {
            assert_eq!(name.parse::<BenchShape>().unwrap().to_string(), name);
        }
        for name in ["", "8", "x", "0x16", "8x1", "8X64", "-1x16", "8x64x2"] {
            assert!(name.parse::<BenchShape>().unwrap_err().to_string().contains(&format!("'{name}'")));
        }
    }

    #[test]
    fn a_mixed_batch_has_texts_from_short_to_as_long_as_the_model_takes() {
        let lengths = BenchShape::Mixed.lengths(512).unwrap();
        assert_eq!((lengths.len(), lengths.iter().min(), lengths.iter().max()), (32, Some(&8), Some(&256)));
        assert_eq!(BenchShape::Mixed.lengths(64).unwrap().iter().max(), Some(&64));
        assert_eq!(BenchShape::Even { texts: 8, tokens: 128 }.lengths(64), None, "it would not be what its name says");
    }
}
