//! Answering one request: look it up in the cache, if there is one; else prepare, compute in a batch, and finish.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sconce_batch::{Completion, Error as QueueError, Terms};
use sconce_cache::{Failure, Source, Value};
use sconce_models::{Finishing, Input, InputError, Truncation};

use crate::cached::{Computed, Extent, Keys, ModelCache};
use crate::ladder::Rung;
use crate::model::{Inner, Model};
use crate::prepare::{PreparedOn, caught};
use crate::request::Work;
use crate::terms::{RequestTerms, WhenFull, deadline};
use crate::{Answer, AnswerSource, InferError, Request, Timing};

/// The time until an item was prepared, and the part of it in which a thread prepared it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrepareTime {
    whole: Duration,
    work: Option<Duration>,
}

impl PrepareTime {
    pub(crate) fn new(whole: Duration, on: PreparedOn) -> Self {
        Self { whole, work: on.work(whole) }
    }
}

impl Model {
    pub(crate) async fn answer(&self, request: Request, when_full: WhenFull) -> Result<Answer, InferError> {
        self.check_open()?;
        let Request { input, timeout, priority, truncation, cache, prompt, vectors, precision } = request;
        let input = self.with_prompt(input, prompt.as_deref())?;
        self.inner.signature.task.check(vectors)?;
        let rung = self.rung(precision)?;
        let terms = RequestTerms::new(when_full, deadline(Instant::now(), timeout), priority);
        within(terms.deadline(), async {
            let cache = rung.cache.as_ref().filter(|_| cache);
            let keyed = cache.map(|cache| (cache, cache.keys.of(&input, truncation)));
            if let Some((cache, keys)) = keyed {
                let of = Finishing { input: Some(&input), vectors };
                return Box::pin(self.answer_by(rung, (cache, &keys), of, &input, truncation, terms)).await;
            }
            let kept = self.kept(&input);
            let computed = self.compute(rung, input, truncation, terms).await?;
            self.finish(computed, AnswerSource::Computed, Finishing { input: kept.as_ref(), vectors })
        })
        .await
        .unwrap_or_else(|| Err(late(rung)))
    }

    pub(crate) fn answer_blocking(&self, request: Request) -> Result<Answer, InferError> {
        let Inner { preparation, rungs, .. } = &*self.inner;
        let cache = rungs.home().cache.as_ref().filter(|_| request.cache);
        if let Some(ModelCache { handle: Some(handle), .. }) = cache {
            return handle.block_on(self.answer(request, WhenFull::Wait));
        }
        self.check_open()?;
        let Request { input, timeout, priority, truncation, cache: _, prompt, vectors, precision } = request;
        let input = self.with_prompt(input, prompt.as_deref())?;
        self.inner.signature.task.check(vectors)?;
        let rung = self.rung(precision)?;
        let started = Instant::now();
        let kept = self.kept(&input);
        let sample = self.sample(rung.index, &input);
        let (prepared, on) = preparation.prepare_blocking(input, truncation)?;
        let (extent, features) = (Extent::of(&prepared), prepared.features);
        let sample = sample.map(|sample| sample.of(&features));
        let prepare = PrepareTime::new(started.elapsed(), on);
        self.arrived(1, Some(features.weight()));
        let completion =
            rung.queue.call_blocking(features, Terms { deadline: deadline(started, timeout), priority })?;
        self.compare_later(sample, &completion.output);
        let of = Finishing { input: kept.as_ref(), vectors };
        self.finish(computed(rung, completion, extent, prepare), AnswerSource::Computed, of)
    }

    /// The input with the prompt of this name before it.
    pub(crate) fn with_prompt(&self, input: Input, name: Option<&str>) -> Result<Input, InputError> {
        let Some(name) = name else { return Ok(input) };
        let prompts = self.prompts();
        match prompts.get(name) {
            Some(prompt) => Ok(input.with_prompt(prompt)),
            None => Err(InputError::UnknownPrompt { name: name.to_owned(), known: prompts.keys().cloned().collect() }),
        }
    }

    /// A copy of the input, if the answer cannot be finished without it.
    pub(crate) fn kept(&self, input: &Input) -> Option<Input> {
        self.inner.processor.keeps_input().then(|| input.clone())
    }

    /// Computes an answer, waiting for room in the queue, and encodes it as caches store it.
    pub(crate) async fn compute_value(&self, input: Input, truncation: Truncation) -> Result<Value, InferError> {
        self.check_open()?;
        let terms = RequestTerms::new(WhenFull::Wait, None, sconce_batch::Priority::default());
        Ok(self.compute(self.inner.rungs.home(), input, truncation, terms).await?.encode())
    }

    /// Refuses requests once the runtime began to shut down, also those that the cache could answer.
    pub(crate) fn check_open(&self) -> Result<(), InferError> {
        if !self.inner.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        // Asking the queue for the error counts the request among the queue's refusals.
        Err(self.inner.rungs.home().queue.refusal(0, None).unwrap_or(QueueError::ShuttingDown).into())
    }

    async fn answer_by(
        &self,
        rung: &Rung,
        (cache, keys): (&ModelCache, &Keys),
        of: Finishing<'_>,
        input: &Input,
        truncation: Truncation,
        terms: RequestTerms,
    ) -> Result<Answer, InferError> {
        let mut timing = Timing::default();
        let (own, started) = (&mut timing, Instant::now());
        let compute = move || async move {
            let cache = started.elapsed();
            let computed = self.compute(rung, input.clone(), truncation, terms).await.map_err(failure)?;
            *own = Timing { cache, ..computed.timing };
            Ok(computed.encode())
        };
        let answer = cache.answers.get_or_compute_on(terms, keys.key, &keys.instead, compute).await;
        let answer = answer.map_err(|error| InferError::clone(&error))?;
        if matches!(answer.source, Source::Tier(_)) {
            timing.cache = started.elapsed();
        }
        match Computed::decode(&answer.value) {
            Some(computed) => self.finish(Computed { timing, ..computed }, answer.source.into(), of),
            // The value is not one that this crate encodes: compute the answer instead.
            None => {
                self.finish(self.compute(rung, input.clone(), truncation, terms).await?, AnswerSource::Computed, of)
            }
        }
    }

    pub(crate) async fn compute(
        &self,
        rung: &Rung,
        input: Input,
        truncation: Truncation,
        terms: RequestTerms,
    ) -> Result<Computed, InferError> {
        let started = Instant::now();
        let sample = self.sample(rung.index, &input);
        let (prepared, on) = self.inner.preparation.prepare(input, truncation).await?;
        let (extent, features) = (Extent::of(&prepared), prepared.features);
        let sample = sample.map(|sample| sample.of(&features));
        let prepare = PrepareTime::new(started.elapsed(), on);
        self.arrived(1, Some(features.weight()));
        let completion = match terms.when_full {
            WhenFull::Wait => rung.queue.call(features, terms.of_queue()).await?,
            WhenFull::Refuse => rung.queue.try_call(features, terms.of_queue()).await?,
        };
        self.compare_later(sample, &completion.output);
        Ok(computed(rung, completion, extent, prepare))
    }

    pub(crate) fn finish(
        &self,
        computed: Computed,
        source: AnswerSource,
        of: Finishing<'_>,
    ) -> Result<Answer, InferError> {
        let Computed { row, extent: Extent { truncated, tokens }, precision, device, timing } = computed;
        let started = Instant::now();
        let output = caught(|| self.inner.processor.finish(row, of))?.converted(of.vectors.output_dtype)?;
        let timing = Timing { finish: started.elapsed(), ..timing };
        let decision = self.inner.rungs.decision_id(precision);
        Ok(Answer { output, tokens, truncated, precision, decision, device, source, timing })
    }
}

/// The error of a request whose deadline passed before its answer was ready.
pub(crate) fn late(rung: &Rung) -> InferError {
    QueueError::DeadlineExceeded { retry_after: rung.queue.retry_after() }.into()
}

pub(crate) fn computed(
    rung: &Rung,
    completion: Completion<Vec<f32>>,
    extent: Extent,
    prepare: PrepareTime,
) -> Computed {
    let Completion { output: row, queue_wait, run, batch_size, device, batch_weight } = completion;
    let PrepareTime { whole: prepare, work } = prepare;
    let work = Work { prepare: work, batch_weight, device: rung.first_device + device };
    let timing = Timing { prepare, queue_wait, run, batch_size, work, ..Timing::default() };
    Computed { row, extent, precision: rung.precision, device: rung.devices[device].name, timing }
}

/// Classes a failure for the cache: a bad input fails every time, so its error may be cached; other errors may pass.
pub(crate) fn failure(error: InferError) -> Failure<InferError> {
    match error {
        InferError::Input(_) => Failure::BadInput(error),
        error => Failure::Passing(error),
    }
}

/// Waits for `answer` until `deadline`; `None` if it is not ready by then.
pub(crate) async fn within<T>(deadline: Option<Instant>, answer: impl Future<Output = T>) -> Option<T> {
    match deadline {
        None => Some(answer.await),
        Some(deadline) => tokio::time::timeout_at(deadline.into(), answer).await.ok(),
    }
}
