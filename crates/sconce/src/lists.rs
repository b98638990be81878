//! Answering lists of any length, in parts that the queue has room for.

use std::iter;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use sconce_batch::Error as QueueError;
use sconce_models::Input;

use crate::terms::WhenFull;
use crate::{Answer, InferError, InferManyError, Model, Request, RequestGroup};

/// Parts that are computed at the same time: while one runs, the next is prepared and waits in the queue.
const PARTS_AT_A_TIME: usize = 2;

impl Model {
    /// As [`try_infer_many`](Self::try_infer_many), for a list of any length: one that the queue cannot hold is cut into
    /// parts. The first part is refused at once if the queue has no room now; later ones wait for room, so that a list that
    /// was begun is finished. The timeout is for the whole list, and answers are in the order of the inputs.
    ///
    /// # Errors
    /// [`InferManyError`], with the index of an item in the whole list. Other items of the list may have run.
    ///
    /// # Panics
    /// As [`infer_many`](Self::infer_many).
    pub async fn try_infer_list(&self, group: impl Into<RequestGroup>) -> Result<Vec<Answer>, InferManyError> {
        let (started, group) = (Instant::now(), group.into());
        if group.inputs.len() == 1 {
            return self.try_infer_many(group).await;
        }
        // On the heap, as in `answer_many`.
        Box::pin(self.try_infer_parts(group, started)).await
    }

    async fn try_infer_parts(&self, group: RequestGroup, started: Instant) -> Result<Vec<Answer>, InferManyError> {
        // Half of the queue, so that the next part can wait while one runs.
        let most = (self.batcher_config().max_queue_size / 2).max(1);
        if group.inputs.len() <= self.batcher_config().max_queue_size {
            return self.whole_or_halves(group, WhenFull::Refuse, started).await;
        }
        let timeout = group.timeout;
        let mut left = group.inputs.into_iter();
        // One precision for the whole list, whatever steps are taken meanwhile.
        let precision = group.precision.or_else(|| Some(self.precision()));
        let group = RequestGroup { inputs: Vec::new(), precision, ..group };
        let parts = iter::from_fn(|| {
            let inputs: Vec<Input> = left.by_ref().take(most).collect();
            let empty = inputs.is_empty();
            let group = || RequestGroup { inputs, timeout: left_of(timeout, started), ..group.clone() };
            (!empty).then(group)
        });
        let answers = parts.enumerate().map(|(part, group)| {
            let when_full = if part == 0 { WhenFull::Refuse } else { WhenFull::Wait };
            self.whole_or_halves(group, when_full, Instant::now())
                .map(move |answers| answers.map_err(|error| error.after(part * most)))
        });
        let parts: Vec<Vec<Answer>> = stream::iter(answers).buffered(PARTS_AT_A_TIME).try_collect().await?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// Answers each item of a list for itself, in the order of the inputs: an item that fails does not fail the others. Items
    /// wait for room in the queue, and the timeout is for each of them from now on. The statistics count each as a request.
    ///
    /// # Panics
    /// As [`infer`](Self::infer).
    pub async fn infer_each(&self, group: impl Into<RequestGroup>) -> Vec<Result<Answer, InferError>> {
        let (started, group) = (Instant::now(), group.into());
        let RequestGroup { inputs, timeout, priority, truncation, cache, prompt, vectors, precision } = group;
        let precision = precision.or_else(|| Some(self.precision()));
        let answer = |input: Input| {
            let prompt = prompt.clone();
            async move {
                let timeout = left_of(timeout, started);
                self.infer(Request { input, timeout, priority, truncation, cache, prompt, vectors, precision }).await
            }
        };
        let at_a_time = self.batcher_config().max_queue_size;
        stream::iter(inputs.into_iter().map(answer)).buffered(at_a_time).collect().await
    }

    /// Answers a group as a whole, or, if it is too heavy for the queue, one half after the other.
    fn whole_or_halves(
        &self,
        group: RequestGroup,
        when_full: WhenFull,
        started: Instant,
    ) -> BoxFuture<'_, Result<Vec<Answer>, InferManyError>> {
        async move {
            if group.inputs.len() == 1 || !self.may_be_too_heavy(&group.inputs) {
                return self.counted_many(group, when_full).await;
            }
            match self.counted_many(group.clone(), when_full).await {
                Err(InferManyError { source: InferError::Queue(QueueError::GroupTooLarge { .. }), .. }) => {}
                outcome => return outcome,
            }
            let timeout = group.timeout;
            let precision = group.precision.or_else(|| Some(self.precision()));
            let (mut inputs, terms) = (group.inputs, RequestGroup { inputs: Vec::new(), precision, ..group });
            let second = inputs.split_off(inputs.len() / 2);
            let before = inputs.len();
            let half = |inputs| RequestGroup { inputs, timeout: left_of(timeout, started), ..terms.clone() };
            let mut answers = self.whole_or_halves(half(inputs), when_full, Instant::now()).await?;
            let rest = self.whole_or_halves(half(second), WhenFull::Wait, Instant::now()).await;
            answers.extend(rest.map_err(|error| error.after(before))?);
            Ok(answers)
        }
        .boxed()
    }

    /// False if the inputs certainly weigh no more than the queue may hold.
    fn may_be_too_heavy(&self, inputs: &[Input]) -> bool {
        /// Normalisation makes up to 18 letters of three bytes, and each may become a token.
        const TOKENS_PER_BYTE: usize = 6;
        /// The tokens around a text or between two.
        const SPECIAL_TOKENS: usize = 8;
        let weight = |input: &Input| {
            let most = input.bytes().saturating_mul(TOKENS_PER_BYTE) + SPECIAL_TOKENS;
            most.min(self.signature().input.kind.max_tokens().unwrap_or(usize::MAX))
        };
        inputs.iter().map(weight).sum::<usize>() > self.batcher_config().max_queue_weight
    }
}

/// The time that is left of a timeout.
fn left_of(timeout: Option<Duration>, started: Instant) -> Option<Duration> {
    timeout.map(|timeout| timeout.saturating_sub(started.elapsed()))
}
