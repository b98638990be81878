//! The answers of a candidate to all examples, and the figures of accuracy that they make.

use std::collections::BTreeMap;

use sconce::decide::metrics::{average_precision, cosine, ndcg, ranking, reciprocal_rank};
use sconce::decide::{ExampleFigures, Metric};
use sconce::{Model, Output, Request};
use serde::{Deserialize, Serialize};

use super::contender::LoadedContender;
use super::error::DecideError;
use super::examples::{ExampleInput, Examples, RankedQuery, SearchPart, Truth};
use super::stop::StopSignal;

/// Inputs in flight at a time: enough for full batches on any device.
const IN_FLIGHT: usize = 256;

/// A candidate's figures for each example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ExampleScores {
    pub(crate) metrics: BTreeMap<Metric, ExampleFigures>,
    /// Likeness of each example's answers to the reference's.
    pub(crate) likeness: Vec<f64>,
}

/// Asks the model all inputs, and calls `advance` with the number of inputs answered. `None` if it was stopped.
pub(crate) async fn ask(
    loaded: &LoadedContender,
    inputs: &[ExampleInput],
    stop: &StopSignal,
    advance: impl Fn(u64),
) -> Result<Option<Vec<Output>>, DecideError> {
    let mut outputs = Vec::with_capacity(inputs.len());
    for (chunk, first) in inputs.chunks(IN_FLIGHT).zip((0..).step_by(IN_FLIGHT)) {
        if stop.is_set() {
            return Ok(None);
        }
        let asked: Vec<_> = chunk
            .iter()
            .map(|input| {
                let (model, request) = (loaded.model.clone(), request(&loaded.model, input));
                tokio::spawn(async move { model.infer(request).await })
            })
            .collect();
        for (asked, number) in asked.into_iter().zip(first + 1..) {
            let answer = asked.await.expect("a request does not panic and is not aborted");
            let answer = answer.map_err(|source| loaded.failed(number, source))?;
            loaded.check_device(&answer)?;
            outputs.push(answer.output);
        }
        advance(chunk.len() as u64);
    }
    Ok(Some(outputs))
}

/// The request for an input: computed anew, with the model's prompt for its part in a search.
pub(crate) fn request(model: &Model, ExampleInput { input, part }: &ExampleInput) -> Request {
    let names: &[&str] = match part {
        SearchPart::Query => &["query", "search_query"],
        SearchPart::Passage => &["document", "passage", "search_document"],
        SearchPart::Neither => &[],
    };
    let prompt = names.iter().find(|name| model.prompts().contains_key(**name));
    let request = Request::new(input.clone()).uncached();
    match prompt {
        Some(name) => request.prompt(*name),
        None => request,
    }
}

impl ExampleScores {
    /// The figures of answers, of which `reference` are those of the reference.
    pub(crate) fn of(examples: &Examples, outputs: &[Output], reference: &[Output]) -> Self {
        let alike: Vec<f64> = outputs.iter().zip(reference).map(|(one, other)| likeness(one, other)).collect();
        let embeds = outputs.iter().all(is_vector);
        let mut scores = match &examples.truth {
            Truth::Pairs { human, inputs_each } => {
                let found = outputs.chunks_exact(*inputs_each).map(similarity).collect();
                let likeness = alike.chunks_exact(*inputs_each).map(mean).collect();
                let spearman = ExampleFigures::Spearman { found, human: human.clone() };
                Self { metrics: [(Metric::Spearman, spearman)].into(), likeness }
            }
            Truth::Rankings(queries) => rankings(queries, outputs, reference, &alike),
            Truth::Labels(right) => labels(right, outputs, alike),
            Truth::Nothing if embeds => Self { metrics: BTreeMap::new(), likeness: alike },
            Truth::Nothing => agreement(outputs, reference, alike),
        };
        if embeds {
            scores.metrics.insert(Metric::Cosine, ExampleFigures::Mean(scores.likeness.clone()));
        }
        scores
    }
}

fn rankings(queries: &[RankedQuery], outputs: &[Output], reference: &[Output], alike: &[f64]) -> ExampleScores {
    let mut columns = [const { Vec::new() }; 4];
    let mut likeness = Vec::new();
    for query in queries {
        let RankedQuery { query: asked, passages, relevance } = query;
        let passages = *passages..passages + relevance.len();
        let scores = |outputs: &[Output]| -> Vec<f64> {
            let score = |passage: &Output| match asked {
                Some(asked) => cosine_of(&outputs[*asked], passage),
                None => score_of(passage),
            };
            outputs[passages.clone()].iter().map(score).collect()
        };
        let (found, before) = (scores(outputs), scores(reference));
        let first = |scores: &[f64]| ranking(scores, &vec![0.0; scores.len()])[0];
        columns[0].push(average_precision(&found, relevance));
        columns[1].push(reciprocal_rank(&found, relevance));
        columns[2].push(ndcg(&found, relevance));
        columns[3].push(one_if(first(&found) == first(&before)));
        let of_query = asked.map(|asked| alike[asked]);
        likeness.push(mean(&of_query.into_iter().chain(alike[passages].iter().copied()).collect::<Vec<_>>()));
    }
    let metrics = [Metric::Map, Metric::Mrr, Metric::Ndcg, Metric::Agreement];
    ExampleScores { metrics: metrics.into_iter().zip(columns.map(ExampleFigures::Mean)).collect(), likeness }
}

fn labels(right: &[usize], outputs: &[Output], alike: Vec<f64>) -> ExampleScores {
    let found: Vec<usize> = outputs.iter().map(label).collect();
    let accuracy = found.iter().zip(right).map(|(found, right)| one_if(found == right)).collect();
    let macro_f1 = ExampleFigures::MacroF1 { found, right: right.to_vec() };
    let metrics = [
        (Metric::Accuracy, ExampleFigures::Mean(accuracy)),
        (Metric::MacroF1, macro_f1),
        (Metric::Agreement, ExampleFigures::Mean(alike.clone())),
    ];
    ExampleScores { metrics: metrics.into(), likeness: alike }
}

/// Answers without vectors: the same or not.
fn agreement(outputs: &[Output], reference: &[Output], alike: Vec<f64>) -> ExampleScores {
    let same = outputs.iter().zip(reference).map(|(one, other)| one_if(top(one) == top(other))).collect();
    ExampleScores { metrics: [(Metric::Agreement, ExampleFigures::Mean(same))].into(), likeness: alike }
}

/// Likeness of two answers: the cosine of vectors, 1 or 0 for the same top label, 1 less the difference of scores.
fn likeness(one: &Output, other: &Output) -> f64 {
    match (one, other) {
        (Output::Score(one), Output::Score(other)) => {
            let apart = f64::from((one.score - other.score).abs());
            if apart.is_finite() { 1.0 - apart } else { -1.0 }
        }
        _ if is_vector(one) => cosine_of(one, other),
        _ => one_if(top(one) == top(other)),
    }
}

/// How alike the two texts of a pair are by its answers: the cosine of two vectors, or the score of one answer.
fn similarity(answers: &[Output]) -> f64 {
    match answers {
        [one, other] => cosine_of(one, other),
        [one] => score_of(one),
        _ => unreachable!("a pair has one answer or two"),
    }
}

/// A reranker's score before its last step, which ranks in the same order; the least for one that is no number.
fn score_of(answer: &Output) -> f64 {
    let logit = answer.score().map(|score| f64::from(score.logit));
    logit.filter(|logit| logit.is_finite()).unwrap_or(f64::MIN)
}

fn cosine_of(one: &Output, other: &Output) -> f64 {
    match (one.sparse(), other.sparse()) {
        (Some(one), Some(other)) => {
            // Two sparse vectors may have different words.
            let words = one.indices.iter().chain(&other.indices).max().map_or(0, |last| *last as usize + 1);
            let dense = |vector: &sconce::SparseVector| {
                let mut numbers = vec![0.0; words];
                vector.indices.iter().zip(&vector.values).for_each(|(at, value)| numbers[*at as usize] = *value);
                numbers
            };
            cosine(&dense(one), &dense(other))
        }
        _ => cosine(&one.numbers(), &other.numbers()),
    }
}

fn is_vector(output: &Output) -> bool {
    output.embedding().is_some() || output.sparse().is_some() || output.token_vectors().is_some()
}

/// The number of the label with the highest score; none for scores that are no numbers.
fn label(output: &Output) -> usize {
    let classification = output.classification().filter(|it| it.scores.iter().all(|score| score.is_finite()));
    classification.map_or(usize::MAX, sconce::Classification::best)
}

/// The answer without its scores: the label, or the entities.
fn top(output: &Output) -> Option<Vec<(String, usize, usize)>> {
    match output {
        Output::Classification(_) => Some(vec![(String::new(), label(output), 0)]).filter(|it| it[0].1 != usize::MAX),
        Output::Entities(entities) => {
            let entity = |it: &sconce::Entity| (it.entity_group.clone(), it.start, it.end);
            Some(entities.entities.iter().map(entity).collect())
        }
        _ => None,
    }
}

fn one_if(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
