//! Shared by the cross-crate tests: paths of models and labelled data, and scores of agreement with people.
//!
//! Models and data that do not ship are found by environment variables. Where one is not set, a test that needs it
//! prints a notice and passes; `tests/run` sets those that can be fetched.

use std::path::PathBuf;

/// Two sentences and their similarity as people judge it, from 0 to 5.
pub struct SentencePair {
    /// The first sentence.
    pub first: String,
    /// The second sentence.
    pub second: String,
    /// The mean of the human scores.
    pub score: f64,
}

/// A path from the environment; prints that `what` is skipped if it is not set.
#[must_use]
pub fn path_or_skip(variable: &str, what: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        eprintln!("SKIPPED: {what} needs {variable}");
    }
    path
}

/// Reads the STS benchmark: lines of sentence, sentence, score.
///
/// # Panics
/// If the file cannot be read or a line is of another form.
#[must_use]
pub fn read_sentence_pairs(path: &std::path::Path) -> Vec<SentencePair> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(path).expect("the file can be read");
    reader
        .records()
        .map(|record| {
            let record = record.expect("a line of comma-separated values");
            let score = record[2].parse().expect("the third column is a number");
            SentencePair { first: record[0].to_owned(), second: record[1].to_owned(), score }
        })
        .collect()
}

/// A question with the answers offered to it.
pub struct Candidates {
    /// The question.
    pub question: String,
    /// Each sentence, and true if people say that it answers the question.
    pub answers: Vec<(String, bool)>,
}

/// Reads TREC-QA: a header, then lines of question, label, answer. Questions whose answers are all right or all wrong
/// say nothing about a ranking and are left out, as is usual.
///
/// # Panics
/// If the file cannot be read or a line is of another form.
#[must_use]
pub fn read_candidates(path: &std::path::Path) -> Vec<Candidates> {
    let mut reader = csv::ReaderBuilder::new().from_path(path).expect("the file can be read");
    let mut all: Vec<Candidates> = Vec::new();
    for record in reader.records() {
        let record = record.expect("a line of comma-separated values");
        let answer = (record[2].to_owned(), &record[1] == "1");
        match all.iter_mut().find(|candidates| candidates.question == record[0]) {
            Some(candidates) => candidates.answers.push(answer),
            None => all.push(Candidates { question: record[0].to_owned(), answers: vec![answer] }),
        }
    }
    all.retain(|candidates| {
        let right = candidates.answers.iter().filter(|(_, right)| *right).count();
        right > 0 && right < candidates.answers.len()
    });
    all
}

/// Average precision of a ranking by score: the mean, over the right answers, of the share of right ones down to there.
#[must_use]
pub fn average_precision(scores: &[f64], right: &[bool]) -> f64 {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut found, mut sum) = (0.0, 0.0);
    for (rank, at) in order.into_iter().enumerate() {
        if right[at] {
            found += 1.0;
            sum += found / (rank + 1) as f64;
        }
    }
    if found > 0.0 { sum / found } else { 0.0 }
}

/// Spearman's rank correlation: Pearson's correlation of the ranks, equal values sharing their mean rank.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn spearman(xs: &[f64], ys: &[f64]) -> f64 {
    assert_eq!(xs.len(), ys.len(), "as many of one as of the other");
    pearson(&ranks(xs), &ranks(ys))
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for ties in order.chunk_by(|&a, &b| values[a].total_cmp(&values[b]).is_eq()) {
        let mean_rank = start as f64 + (ties.len() - 1) as f64 / 2.0;
        for &at in ties {
            ranks[at] = mean_rank;
        }
        start += ties.len();
    }
    ranks
}

fn pearson(xs: &[f64], ys: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_x, mean_y) = (mean(xs), mean(ys));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in xs.iter().zip(ys) {
        let (dx, dy) = (x - mean_x, y - mean_y);
        xy += dx * dy;
        xx += dx * dx;
        yy += dy * dy;
    }
    xy / (xx * yy).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spearman_sees_order_alone_and_ties_share_their_rank() {
        assert!((spearman(&[1.0, 2.0, 30.0], &[0.1, 0.2, 0.3]) - 1.0).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 3.0], &[9.0, 4.0, 1.0]) + 1.0).abs() < 1e-12);
        // By hand: ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3.
        assert!((spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]) - 0.948_683_298).abs() < 1e-9);
    }

    #[test]
    fn average_precision_is_one_for_the_best_ranking_and_known_for_others() {
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-12;
        assert!(near(average_precision(&[0.9, 0.8, 0.1], &[true, true, false]), 1.0));
        assert!(near(average_precision(&[0.1, 0.8, 0.9], &[true, false, true]), 5.0 / 6.0));
        assert!(near(average_precision(&[0.1, 0.2], &[false, false]), 0.0));
    }
}
