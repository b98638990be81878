//! The streaming loop of `embed` and `classify`: a bounded number in flight, answers in input order.

use std::collections::VecDeque;
use std::io::{self, Write};

use sconce::Model;
use tokio::task::JoinHandle;

use crate::answer::{AnswerLine, LineTerms, answer};
use crate::inputs::Inputs;
use crate::progress::InputProgress;
use crate::signals::Signal;

/// Batches' worth of inputs in flight: one runs, one is queued, and the others are being prepared or finished.
const BATCHES_IN_FLIGHT: usize = 4;

/// Counts of answered inputs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// The signal that came before the last input.
    pub(crate) stopped: Option<Signal>,
}

/// Writes the answer to every input to `out`, in order. Once `stop` resolves, only the inputs in flight are answered.
///
/// # Errors
/// Errors of `out` alone; an input that fails is answered and counted.
pub(crate) async fn run(
    model: &Model,
    terms: LineTerms,
    mut inputs: Inputs,
    stop: impl Future<Output = Signal>,
    out: &mut impl Write,
) -> io::Result<Tally> {
    let max_in_flight = model.batcher_config().max_batch_size.saturating_mul(BATCHES_IN_FLIGHT);
    let mut in_flight: VecDeque<JoinHandle<AnswerLine>> = VecDeque::new();
    let mut progress = InputProgress::beside_answers(inputs.total_bytes);
    let mut tally = Tally::default();
    let mut open = true;
    let mut stop = std::pin::pin!(stop);
    while open || !in_flight.is_empty() {
        // While the model computes, the reader of `out` should have all answers so far.
        if in_flight.front().is_none_or(|first| !first.is_finished()) {
            out.flush()?;
        }
        tokio::select! {
            biased;
            // Answers first, so that they leave memory before more inputs come in.
            answered = first(&mut in_flight), if !in_flight.is_empty() => {
                out.write_all(&answered.json)?;
                tally.answered += 1;
                tally.failed += u64::from(answered.failed);
                progress.advance(answered.consumed);
            }
            signal = &mut stop, if open => (open, tally.stopped) = (false, Some(signal)),
            record = inputs.records.recv(), if open && in_flight.len() < max_in_flight => match record {
                Some(record) => in_flight.push_back(tokio::spawn(answer(model.clone(), record, terms.clone()))),
                None => open = false,
            },
        }
    }
    progress.finish();
    out.flush()?;
    Ok(tally)
}

/// Waits for the oldest input in flight and takes it out. Cancel safe: dropped before it is done, it takes nothing.
async fn first(in_flight: &mut VecDeque<JoinHandle<AnswerLine>>) -> AnswerLine {
    let oldest = in_flight.front_mut().expect("asked for only while something is in flight");
    let outcome = oldest.await;
    in_flight.pop_front();
    outcome.unwrap_or_else(|cause| std::panic::resume_unwind(cause.into_panic()))
}
