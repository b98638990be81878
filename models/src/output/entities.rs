//! Entities of a text: the labels of its tokens, put together as by the token-classification pipeline of Hugging Face's
//! transformers.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// The entities of a text, in the order of the text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entities {
    /// The entities.
    pub entities: Vec<Entity>,
}

/// A part of a text with a label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entity {
    /// The label, without `B-` or `I-`; with [`Aggregation::None`] as the model has it.
    pub entity_group: String,
    /// The score, the mean of those of its tokens or words.
    pub score: f32,
    /// The part of the input.
    pub text: String,
    /// Its first byte in the input.
    pub start: usize,
    /// The byte after its last one.
    pub end: usize,
}

/// The way in which the labels of tokens make up entities. The names are those of transformers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Each token with its label is an entity.
    None,
    /// Neighbouring tokens of one label are one entity; a label that begins with `B-` begins a new one.
    #[default]
    Simple,
    /// As simple, but of words, each with the label of its first token.
    First,
    /// As first, with the label whose scores have the highest mean over the tokens of the word.
    Average,
    /// As first, with the label of the token that has the highest score.
    Max,
}

/// A token that is not special, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenSpan {
    /// Its row among all tokens of the text.
    pub(crate) row: usize,
    /// Its first byte in the text.
    pub(crate) start: usize,
    /// The byte after its last one.
    pub(crate) end: usize,
    /// True if it goes on with the word of the token before it.
    pub(crate) is_subword: bool,
}

/// The label of a token that is of no entity.
const NO_ENTITY: &str = "O";

/// A token, a word or an entity with its label.
#[derive(Debug, Clone, Copy)]
struct Labelled<'a> {
    label: &'a str,
    score: f32,
    start: usize,
    end: usize,
}

/// The entities of `text`. `logits` has a row for each of its tokens, with an element for each label.
pub(crate) fn entities(
    text: &str,
    tokens: &[TokenSpan],
    logits: &[f32],
    labels: &[String],
    aggregation: Aggregation,
) -> Entities {
    let scores: Vec<Vec<f32>> =
        tokens.iter().map(|token| softmax(&logits[token.row * labels.len()..][..labels.len()])).collect();
    let single = || tokens.iter().zip(&scores).map(|(token, scores)| of_scores(scores, labels, token.start, token.end));
    let found: Vec<Labelled<'_>> = match aggregation {
        Aggregation::None => single().collect(),
        Aggregation::Simple => grouped(single()),
        Aggregation::First | Aggregation::Average | Aggregation::Max => {
            let words = words(tokens).map(|word| of_word(&tokens[word.clone()], &scores[word], labels, aggregation));
            grouped(words)
        }
    };
    let entity = |Labelled { label, score, start, end }: Labelled<'_>| Entity {
        entity_group: label.to_owned(),
        score,
        text: text.get(start..end).unwrap_or_default().to_owned(),
        start,
        end,
    };
    Entities { entities: found.into_iter().filter(|found| found.label != NO_ENTITY).map(entity).collect() }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    super::LabelFunction::Softmax.scores(logits)
}

fn of_scores<'a>(scores: &[f32], labels: &'a [String], start: usize, end: usize) -> Labelled<'a> {
    let best = first_of_highest(scores.iter().copied());
    Labelled { label: &labels[best], score: scores[best], start, end }
}

/// Index of the highest score; the first if several are equal.
fn first_of_highest(scores: impl Iterator<Item = f32>) -> usize {
    let highest =
        scores.enumerate().reduce(|best, one| if one.1.total_cmp(&best.1) == Ordering::Greater { one } else { best });
    highest.map_or(0, |(at, _)| at)
}

/// The tokens of each word.
fn words(tokens: &[TokenSpan]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let is_start = |at: &usize| *at == 0 || !tokens[*at].is_subword;
    (0..tokens.len()).filter(is_start).map(|start| {
        let rest = &tokens[start + 1..];
        start..start + 1 + rest.iter().position(|token| !token.is_subword).unwrap_or(rest.len())
    })
}

fn of_word<'a>(
    tokens: &[TokenSpan],
    scores: &[Vec<f32>],
    labels: &'a [String],
    aggregation: Aggregation,
) -> Labelled<'a> {
    let highest = |scores: &Vec<f32>| scores[first_of_highest(scores.iter().copied())];
    let of_word = match aggregation {
        Aggregation::Average => {
            let mean = |label: usize| scores.iter().map(|scores| scores[label]).sum::<f32>() / scores.len() as f32;
            (0..labels.len()).map(mean).collect()
        }
        Aggregation::Max => scores[first_of_highest(scores.iter().map(highest))].clone(),
        Aggregation::None | Aggregation::Simple | Aggregation::First => scores[0].clone(),
    };
    of_scores(&of_word, labels, tokens[0].start, tokens[tokens.len() - 1].end)
}

/// Puts neighbours of one label together.
fn grouped<'a>(items: impl Iterator<Item = Labelled<'a>>) -> Vec<Labelled<'a>> {
    let mut groups: Vec<Vec<Labelled<'a>>> = Vec::new();
    for item in items {
        let (begins, label) = tag(item.label);
        match groups.last_mut() {
            Some(group) if !begins && tag(group[group.len() - 1].label).1 == label => group.push(item),
            _ => groups.push(vec![item]),
        }
    }
    let of_group = |group: Vec<Labelled<'a>>| Labelled {
        label: group[0].label.split_once('-').map_or(group[0].label, |(_, label)| label),
        score: group.iter().map(|item| item.score).sum::<f32>() / group.len() as f32,
        start: group[0].start,
        end: group[group.len() - 1].end,
    };
    groups.into_iter().map(of_group).collect()
}

/// A label without `B-` or `I-`, and true if it begins an entity.
fn tag(label: &str) -> (bool, &str) {
    match label.strip_prefix("B-") {
        Some(rest) => (true, rest),
        None => (false, label.strip_prefix("I-").unwrap_or(label)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 4] = ["O", "B-PER", "I-PER", "B-LOC"];

    /// Entities of one-letter tokens, each with logits that give the named label this many more than the others.
    fn of(tokens: &[(&str, f32, bool)], aggregation: Aggregation) -> Vec<(String, usize, usize)> {
        let labels = LABELS.map(String::from);
        let at = |label: &str| LABELS.iter().position(|known| *known == label).unwrap();
        let logits: Vec<f32> = tokens
            .iter()
            .flat_map(|(label, more, _)| (0..4).map(move |one| if one == at(label) { *more } else { 0.0 }))
            .collect();
        let span = |(row, (_, _, is_subword)): (usize, &(&str, f32, bool))| TokenSpan {
            row,
            start: row,
            end: row + 1,
            is_subword: *is_subword,
        };
        let spans: Vec<_> = tokens.iter().enumerate().map(span).collect();
        let found = entities(&"x".repeat(tokens.len()), &spans, &logits, &labels, aggregation);
        found.entities.into_iter().map(|entity| (entity.entity_group, entity.start, entity.end)).collect()
    }

    fn expect(of: &[(&str, usize, usize)]) -> Vec<(String, usize, usize)> {
        of.iter().map(|(label, start, end)| ((*label).to_owned(), *start, *end)).collect()
    }

    #[test]
    fn neighbours_of_one_label_are_one_entity_and_b_begins_a_new_one() {
        let tokens = [("B-PER", 2.0, false), ("I-PER", 2.0, false), ("B-PER", 2.0, false), ("O", 2.0, false)];
        assert_eq!(of(&tokens, Aggregation::Simple), expect(&[("PER", 0, 2), ("PER", 2, 3)]));
        assert_eq!(of(&tokens, Aggregation::None), expect(&[("B-PER", 0, 1), ("I-PER", 1, 2), ("B-PER", 2, 3)]));
    }

    #[test]
    fn a_word_has_one_label_by_its_first_token_its_mean_or_its_surest_token() {
        let tokens = [("B-LOC", 1.0, false), ("I-PER", 1.5, true), ("I-PER", 1.5, true), ("I-PER", 2.0, false)];
        assert_eq!(of(&tokens, Aggregation::First), expect(&[("LOC", 0, 3), ("PER", 3, 4)]));
        for strategy in [Aggregation::Average, Aggregation::Max] {
            assert_eq!(of(&tokens, strategy), expect(&[("PER", 0, 4)]), "{strategy:?}");
        }
        assert_eq!(of(&tokens, Aggregation::Simple), expect(&[("LOC", 0, 1), ("PER", 1, 4)]));
        assert_eq!(of(&[], Aggregation::Max), []);
    }
}
