//! The inputs of a replay: as they were recorded, or made up in the recorded size.

use std::collections::HashMap;
use std::time::Duration;

use sconce::{Input, InputKind, Model, Priority, RequestGroup};
use sconce_trace::{RecordedInput, RecordedPriority, RecordedRequest, RequestTrace};

/// Requests that are ready to be sent.
pub(crate) struct ReplayPlan {
    pub(crate) requests: Vec<PlannedRequest>,
    sized: SizedInputs,
}

/// One request that is ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct PlannedRequest {
    pub(crate) at: Duration,
    /// Weights of the items as the model's queue counts them.
    pub(crate) weights: Vec<u32>,
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Duration>,
    /// The recorded inputs; empty if they are made up.
    recorded: Vec<Input>,
}

impl ReplayPlan {
    /// Plans the replay of a trace against a model.
    pub(crate) fn new(trace: &RequestTrace, model: &Model) -> Self {
        let mut sized = SizedInputs::new(model);
        let usual = trace.mean_item_weight();
        let requests = trace.requests().iter().map(|request| sized.plan(request, usual, model)).collect();
        Self { requests, sized }
    }

    /// The request of this index. Inputs that are made up are the same at each call, and unlike those of other requests.
    pub(crate) fn group(&self, index: usize) -> RequestGroup {
        let request = &self.requests[index];
        let inputs = if request.recorded.is_empty() {
            let made = |(item, weight): (usize, &u32)| self.sized.input(*weight, index * 31 + item);
            request.weights.iter().enumerate().map(made).collect()
        } else {
            request.recorded.clone()
        };
        RequestGroup { timeout: request.deadline, priority: request.priority, ..RequestGroup::new(inputs) }
    }
}

#[cfg(test)]
impl PlannedRequest {
    /// A request whose inputs are made up.
    pub(crate) fn sized(at: Duration, weights: Vec<u32>) -> Self {
        Self { at, weights, priority: Priority::default(), deadline: None, recorded: Vec::new() }
    }
}

/// Makes inputs up that the model's queue counts with a given weight.
struct SizedInputs {
    kind: InputKind,
    /// Tokens that the model puts around a text.
    special: u32,
    /// The weight of every input, if it does not depend on its size.
    fixed: bool,
    max: u32,
    /// Weights of recorded texts, by text.
    known: HashMap<String, u32>,
}

/// Common words: each is one token in most vocabularies.
const WORDS: [&str; 32] = [
    "the", "of", "and", "a", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are", "as", "with",
    "his", "they", "at", "be", "this", "have", "from", "or", "one", "had", "by", "word", "but", "not", "what",
];

/// Texts whose weights are kept, so that a text which comes again is not tokenised again.
const MAX_KNOWN: usize = 100_000;

impl SizedInputs {
    fn new(model: &Model) -> Self {
        let kind = model.signature().input.kind.clone();
        let max = kind.max_tokens();
        let special = model.tokenize("the", true, None).map_or(0, |tokens| tokens.len().saturating_sub(1));
        let to_u32 = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Self { fixed: max.is_none(), max: max.map_or(1, to_u32), special: to_u32(special), kind, known: HashMap::new() }
    }

    fn plan(&mut self, request: &RecordedRequest, usual: Option<f64>, model: &Model) -> PlannedRequest {
        let recorded: Vec<Input> = request.inputs.iter().map(input_of).collect();
        let weights = if recorded.is_empty() {
            self.weights(request, usual)
        } else {
            request.inputs.iter().map(|input| self.weight_of(input, model)).collect()
        };
        let priority = match request.priority {
            RecordedPriority::High => Priority::High,
            RecordedPriority::Normal => Priority::Normal,
            RecordedPriority::Low => Priority::Low,
        };
        PlannedRequest { at: request.at, weights, priority, deadline: request.deadline, recorded }
    }

    /// Weights of made-up items: the request's weight in equal parts. One that is not known is the average of the trace.
    fn weights(&self, request: &RecordedRequest, usual: Option<f64>) -> Vec<u32> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and it saturates")]
        let usual = usual.map_or(self.special + 16, |usual| usual.round() as u32);
        let each = request.weight.map_or(usual, |weight| weight / request.items.max(1));
        vec![self.possible(each); request.items as usize]
    }

    fn possible(&self, weight: u32) -> u32 {
        if self.fixed { 1 } else { weight.clamp((self.special + 1).min(self.max), self.max) }
    }

    fn weight_of(&mut self, input: &RecordedInput, model: &Model) -> u32 {
        let count = |text: &str| {
            let tokens = model.tokenize(text, true, None).map_or(1, |tokens| tokens.len());
            u32::try_from(tokens).unwrap_or(u32::MAX)
        };
        let weight = match input {
            _ if self.fixed => 1,
            RecordedInput::Tokens(tokens) => u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            RecordedInput::Pair([first, second]) => count(first).saturating_add(count(second)).saturating_sub(1),
            RecordedInput::Text(text) => {
                if self.known.len() >= MAX_KNOWN {
                    self.known.clear();
                }
                *self.known.entry(text.clone()).or_insert_with(|| count(text))
            }
        };
        weight.clamp(1, self.max)
    }

    /// An input of this weight. `seed` chooses its words.
    fn input(&self, weight: u32, seed: usize) -> Input {
        let words = weight.saturating_sub(self.special).max(1) as usize;
        match &self.kind {
            InputKind::Text { .. } | InputKind::TextOrPair { .. } => Input::from(text(words, seed)),
            InputKind::Pair { .. } => {
                // A pair has one special token more.
                let words = words.saturating_sub(1).max(2);
                Input::Pair(Box::new([
                    Input::from(text(words / 2, seed)),
                    Input::from(text(words - words / 2, seed + 1)),
                ]))
            }
            other => other.sample(weight as usize),
        }
    }
}

fn input_of(input: &RecordedInput) -> Input {
    match input {
        RecordedInput::Text(text) => Input::from(&**text),
        RecordedInput::Pair([first, second]) => (&**first, &**second).into(),
        RecordedInput::Tokens(tokens) => Input::Tokens(tokens.clone()),
    }
}

/// A text of so many common words, in an order that the seed decides.
fn text(words: usize, seed: usize) -> String {
    let mut state = seed as u64;
    let mut text = String::with_capacity(words * 5);
    for word in 0..words {
        // The constants of Knuth's MMIX generator; the high bits are the random ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if word > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[usize::try_from(state >> 59).unwrap_or(0)]);
    }
    text
}
