//! Answering a group of items: all of them are admitted to the queue, or none.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sconce_batch::{Error as QueueError, Group, Ticket};
use sconce_cache::{Claim, ClaimOutcome, Leader, Source};
use sconce_models::{Features, Finishing, Input, Prepared, Truncation, VectorOptions};
use tokio::task::JoinSet;

use crate::answering::{PrepareTime, computed, failure, late, within};
use crate::cached::{Computed, Extent, Keys, ModelCache};
use crate::ladder::Rung;
use crate::model::{Inner, Model};
use crate::network_executor::NetworkExecutor;
use crate::shadow::Sample;
use crate::terms::{RequestTerms, WhenFull, deadline};
use crate::{Answer, AnswerSource, InferError, InferManyError, Request, RequestGroup, Timing};

/// The most bytes of inputs that one task prepares. Tokenising this much takes about 0.2 ms, which the worker's other
/// tasks can wait; for less, spawning a task costs more than running in parallel gains.
const MAX_PART_BYTES: usize = 2 * 1024;

impl Model {
    /// Infers several items on the same terms. Waits until the queue has room for all of them. They may run in several
    /// batches, mixed with other requests. The answers are in the order of the inputs.
    ///
    /// If the runtime has a cache, only the inputs that it does not have are computed, and equal inputs are computed
    /// once. Dropping the future cancels the items, as with [`infer`](Self::infer).
    ///
    /// # Errors
    /// [`InferManyError`]: the first item that failed, or the refusal of all items, in which case none of them has run.
    ///
    /// # Panics
    /// Outside of a tokio runtime, if the inputs are together over 2 KiB or the group has a timeout.
    pub async fn infer_many(&self, group: impl Into<RequestGroup>) -> Result<Vec<Answer>, InferManyError> {
        self.counted_many(group.into(), WhenFull::Wait).await
    }

    /// Does the same as [`infer_many`](Self::infer_many), but fails at once if the queue has no room for all items.
    ///
    /// # Errors
    /// [`InferManyError`].
    ///
    /// # Panics
    /// As [`infer_many`](Self::infer_many).
    pub async fn try_infer_many(&self, group: impl Into<RequestGroup>) -> Result<Vec<Answer>, InferManyError> {
        self.counted_many(group.into(), WhenFull::Refuse).await
    }

    pub(crate) async fn counted_many(
        &self,
        group: RequestGroup,
        when_full: WhenFull,
    ) -> Result<Vec<Answer>, InferManyError> {
        let started = Instant::now();
        let outcome = self.answer_many(group, when_full).await;
        self.count(started, outcome.as_deref().map_err(|error| error.source.kind()));
        outcome
    }

    async fn answer_many(&self, group: RequestGroup, when_full: WhenFull) -> Result<Vec<Answer>, InferManyError> {
        let RequestGroup { mut inputs, timeout, priority, truncation, cache, prompt, vectors, precision } = group;
        if inputs.len() == 1 {
            let input = inputs.remove(0);
            let request = Request { input, timeout, priority, truncation, cache, prompt, vectors, precision };
            let answer = self.answer(request, when_full).await;
            return answer.map(|answer| vec![answer]).map_err(|source| InferManyError::of_item(0, source));
        }
        let group = RequestGroup { inputs, timeout, priority, truncation, cache, prompt, vectors, precision };
        // On the heap: a request of one item would else move room for a group's future at every level.
        Box::pin(self.answer_group(group, when_full)).await
    }

    async fn answer_group(&self, group: RequestGroup, when_full: WhenFull) -> Result<Vec<Answer>, InferManyError> {
        let RequestGroup { mut inputs, timeout, priority, truncation, cache, prompt, vectors, precision } = group;
        self.check_open().map_err(InferManyError::of_all)?;
        self.inner.signature.task.check(vectors).map_err(|error| InferManyError::of_all(error.into()))?;
        if prompt.is_some() {
            let prompted = inputs.into_iter().map(|input| self.with_prompt(input, prompt.as_deref()));
            let prompted = prompted.collect::<Result<_, _>>();
            inputs = prompted.map_err(|error| InferManyError::of_all(error.into()))?;
        }
        let rung = self.rung(precision).map_err(InferManyError::of_all)?;
        let terms = RequestTerms::new(when_full, deadline(Instant::now(), timeout), priority);
        let cache = rung.cache.as_ref().filter(|_| cache);
        let keyed = cache.map(|cache| {
            let keys: Vec<Keys> = inputs.iter().map(|input| cache.keys.of(input, truncation)).collect();
            (cache, keys)
        });
        let run = GroupRun { model: self, rung, truncation, terms, vectors };
        let answers = async {
            match keyed {
                Some((cache, keys)) => run.answer_by(cache, &inputs, &keys).await,
                None => run.answer(inputs).await,
            }
        };
        within(terms.deadline(), answers).await.unwrap_or_else(|| Err(InferManyError::of_all(late(rung))))
    }
}

/// The answering of one group: its model and its terms.
#[derive(Clone, Copy)]
struct GroupRun<'a> {
    model: &'a Model,
    /// All items are answered in one precision.
    rung: &'a Rung,
    truncation: Truncation,
    terms: RequestTerms,
    vectors: VectorOptions,
}

/// A prepared item, with its index in the call.
struct Ready {
    index: usize,
    prepared: Prepared,
    prepare: PrepareTime,
    /// The answer is to be compared with that in f32.
    sample: Option<Box<Sample>>,
}

/// An item admitted to the queue.
struct Admitted {
    index: usize,
    ticket: Ticket<NetworkExecutor>,
    extent: Extent,
    prepare: PrepareTime,
    sample: Option<Box<Sample>>,
}

impl GroupRun<'_> {
    /// Answers without a cache.
    async fn answer(self, inputs: Vec<Input>) -> Result<Vec<Answer>, InferManyError> {
        let mut answers = Vec::with_capacity(inputs.len());
        let kept = self.model.inner.processor.keeps_input().then(|| inputs.clone());
        for admitted in self.admit(inputs.into_iter().enumerate().collect()).await? {
            let index = admitted.index;
            let of = Finishing { input: kept.as_ref().map(|kept| &kept[index]), vectors: self.vectors };
            let answer = self.computed(admitted).await;
            let answer = answer.and_then(|computed| self.model.finish(computed, AnswerSource::Computed, of));
            answers.push(answer.map_err(|source| InferManyError::of_item(index, source))?);
        }
        Ok(answers)
    }

    /// Answers by a cache. The items that this call leads are computed before it waits for items that other requests
    /// compute, so requests that want each other's items never deadlock.
    async fn answer_by(
        self,
        cache: &ModelCache,
        inputs: &[Input],
        keys: &[Keys],
    ) -> Result<Vec<Answer>, InferManyError> {
        let distinct = Distinct::of(keys);
        let wanted = distinct.firsts.iter().map(|index| (keys[*index].key, &keys[*index].instead[..]));
        // Once its items are admitted the call is not refused any more: it waits for room for items that other requests
        // fail to compute.
        let started = Instant::now();
        let claims = cache.answers.claim_many(self.terms.waiting(), &wanted.collect::<Vec<_>>()).await;
        let looked_up = Timing { cache: started.elapsed(), ..Timing::default() };
        let mut values = Values { of: vec![None; distinct.firsts.len()], firsts: &distinct.firsts };
        let (mut leads, mut waits) = (Vec::new(), Vec::new());
        for (place, claim) in claims.into_iter().enumerate() {
            match claim {
                Claim::Known(answer) => values.put(place, answer, looked_up)?,
                Claim::Leads(leader) => leads.push((place, leader)),
                Claim::Waits(follower) => waits.push((place, follower)),
            }
        }
        self.lead(leads, inputs, &mut values, looked_up.cache).await?;
        for (place, follower) in waits {
            let answer = match follower.outcome().await {
                ClaimOutcome::Landed(answer) => answer,
                ClaimOutcome::Leads(leader) => {
                    let computed = self.compute(inputs[distinct.firsts[place]].clone()).await;
                    leader.finish(computed.map(|computed| computed.encode()).map_err(failure))
                }
            };
            values.put(place, answer, Timing::default())?;
        }
        let mut answers = Vec::with_capacity(inputs.len());
        for (index, place) in distinct.places.iter().enumerate() {
            let (answer, timing) = values.of[*place].as_ref().expect("each place has its value by now");
            let (source, timing) = match answer.source {
                // Computed for the first of several equal inputs; the others share its answer.
                Source::Computed if index != distinct.firsts[*place] => (AnswerSource::Shared, Timing::default()),
                source => (source.into(), *timing),
            };
            let of = Finishing { input: Some(&inputs[index]), vectors: self.vectors };
            let answer = if let Some(computed) = Computed::decode(&answer.value) {
                self.model.finish(Computed { timing, ..computed }, source, of)
            } else {
                // The value is not one that this crate encodes: compute the answer instead.
                let computed = self.compute(inputs[index].clone()).await;
                computed.and_then(|computed| self.model.finish(computed, AnswerSource::Computed, of))
            };
            answers.push(answer.map_err(|source| InferManyError::of_item(index, source))?);
        }
        Ok(answers)
    }

    /// Computes the items that this call leads, and gives the results to all requests that wait for them.
    async fn lead(
        self,
        leads: Vec<(usize, Leader<'_, InferError, RequestTerms>)>,
        inputs: &[Input],
        values: &mut Values<'_>,
        looked_up: Duration,
    ) -> Result<(), InferManyError> {
        let firsts = values.firsts;
        let items = leads.iter().map(|(place, _)| (firsts[*place], inputs[firsts[*place]].clone())).collect();
        let admitted = match self.admit(items).await {
            Ok(admitted) => admitted,
            Err(error) => {
                // A bad input fails for every request that waits for it. A refusal is not passed on: other requests may
                // be admitted.
                let at_fault = leads.into_iter().find(|(place, _)| error.index == Some(firsts[*place]));
                if let (Some((_, leader)), InferError::Input(_)) = (at_fault, &error.source) {
                    leader.finish(Err(failure(error.source.clone()))).ok();
                }
                return Err(error);
            }
        };
        for ((place, leader), admitted) in leads.into_iter().zip(admitted) {
            let computed = self.computed(admitted).await;
            let timing = computed.as_ref().map_or_else(|_| Timing::default(), |computed| computed.timing);
            let timing = Timing { cache: looked_up, ..timing };
            let answer = leader.finish(computed.map(|computed| computed.encode()).map_err(failure));
            values.put(place, answer, timing)?;
        }
        Ok(())
    }

    /// Prepares all items and admits them to the queue, or none of them.
    async fn admit(self, items: Vec<(usize, Input)>) -> Result<Vec<Admitted>, InferManyError> {
        let (Inner { batching, .. }, queue) = (&*self.model.inner, &self.rung.queue);
        if self.terms.when_full == WhenFull::Refuse {
            // Check for room before preparing, which costs more than a refusal and takes time from other requests. Each
            // item weighs at least 1.
            let least = Group { items: items.len(), weight: items.len(), heaviest: 1 };
            if let Some(error) = queue.group_refusal(least, self.terms.of_queue()) {
                self.model.arrived(items.len(), None);
                return Err(InferManyError::of_all(error.into()));
            }
        }
        let ready = self.prepare(items).await?;
        let max = batching.max_batch_weight;
        if let Some(Ready { index, prepared, .. }) = ready.iter().find(|it| it.prepared.features.weight() > max) {
            let weight = prepared.features.weight();
            return Err(InferManyError::of_item(*index, QueueError::TooHeavy { weight, max }.into()));
        }
        let (mut features, mut rest) = (Vec::with_capacity(ready.len()), Vec::with_capacity(ready.len()));
        for Ready { index, prepared, prepare, sample } in ready {
            let sample = sample.map(|sample| sample.of(&prepared.features));
            rest.push((index, Extent::of(&prepared), prepare, sample));
            features.push(prepared.features);
        }
        self.model.arrived(features.len(), Some(features.iter().map(Features::weight).sum()));
        let tickets = match self.terms.when_full {
            WhenFull::Wait => queue.submit_many(features, self.terms.of_queue()).await,
            WhenFull::Refuse => queue.try_submit_many(features, self.terms.of_queue()),
        };
        let tickets = tickets.map_err(|error| InferManyError::of_all(error.into()))?;
        let admitted = |(ticket, (index, extent, prepare, sample))| Admitted { index, ticket, extent, prepare, sample };
        Ok(tickets.into_iter().zip(rest).map(admitted).collect())
    }

    async fn computed(self, admitted: Admitted) -> Result<Computed, InferError> {
        let Admitted { ticket, extent, prepare, sample, .. } = admitted;
        let completion = ticket.await?;
        self.model.compare_later(sample, &completion.output);
        Ok(computed(self.rung, completion, extent, prepare))
    }

    /// Computes one more item after the others were admitted, waiting for room.
    async fn compute(self, input: Input) -> Result<Computed, InferError> {
        self.model.compute(self.rung, input, self.truncation, self.terms.waiting()).await
    }

    /// Prepares the items in parts, in parallel, so that many items do not block one worker.
    async fn prepare(self, items: Vec<(usize, Input)>) -> Result<Vec<Ready>, InferManyError> {
        let mut parts = parts(items);
        let last = parts.pop();
        if parts.is_empty() {
            // A single part is prepared on the caller's own task.
            return prepare_part(self.model, self.rung.index, last.unwrap_or_default(), self.truncation).await;
        }
        let mut tasks = JoinSet::new();
        for part in parts.into_iter().chain(last) {
            let (model, rung, truncation) = (self.model.clone(), self.rung.index, self.truncation);
            tasks.spawn(async move { prepare_part(&model, rung, part, truncation).await });
        }
        let mut ready = Vec::new();
        while let Some(task) = tasks.join_next().await {
            ready.extend(task.unwrap_or_else(|error| resume_unwind(error.into_panic()))?);
        }
        ready.sort_unstable_by_key(|ready| ready.index);
        Ok(ready)
    }
}

async fn prepare_part(
    model: &Model,
    rung: usize,
    part: Vec<(usize, Input)>,
    truncation: Truncation,
) -> Result<Vec<Ready>, InferManyError> {
    let mut ready = Vec::with_capacity(part.len());
    for (index, input) in part {
        let started = Instant::now();
        let sample = model.sample(rung, &input);
        let prepared = model.inner.preparation.prepare(input, truncation).await;
        let (prepared, on) = prepared.map_err(|source| InferManyError::of_item(index, source))?;
        ready.push(Ready { index, prepared, prepare: PrepareTime::new(started.elapsed(), on), sample });
    }
    Ok(ready)
}

/// Splits items into parts of at most [`MAX_PART_BYTES`] each; a larger item is a part by itself.
fn parts(items: Vec<(usize, Input)>) -> Vec<Vec<(usize, Input)>> {
    let mut parts: Vec<Vec<(usize, Input)>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        bytes += item.1.bytes();
        match parts.last_mut() {
            Some(part) if bytes <= MAX_PART_BYTES => part.push(item),
            _ => {
                bytes = item.1.bytes();
                parts.push(vec![item]);
            }
        }
    }
    parts
}

/// The answers known so far, one for each distinct input of a call.
struct Values<'a> {
    of: Vec<Option<(sconce_cache::SourcedValue, Timing)>>,
    /// For each distinct input, the index of its first occurrence.
    firsts: &'a [usize],
}

impl Values<'_> {
    fn put(
        &mut self,
        place: usize,
        answer: Result<sconce_cache::SourcedValue, Arc<InferError>>,
        timing: Timing,
    ) -> Result<(), InferManyError> {
        let answer = answer.map_err(|error| InferManyError::of_item(self.firsts[place], (*error).clone()))?;
        self.of[place] = Some((answer, timing));
        Ok(())
    }
}

/// The distinct inputs of a call, found by their keys.
struct Distinct {
    /// For each distinct input, the index of its first occurrence.
    firsts: Vec<usize>,
    /// For each input, its position in `firsts`.
    places: Vec<usize>,
}

impl Distinct {
    fn of(keys: &[Keys]) -> Self {
        let (mut firsts, mut places, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
        for (index, Keys { key, .. }) in keys.iter().enumerate() {
            places.push(*seen.entry(*key).or_insert_with(|| {
                firsts.push(index);
                firsts.len() - 1
            }));
        }
        Self { firsts, places }
    }
}

#[cfg(test)]
mod tests {
    use sconce_cache::Key;

    use super::*;

    #[test]
    fn parts_hold_every_item_in_order_and_no_more_bytes_than_one_task_prepares() {
        let sizes = [10, MAX_PART_BYTES - 10, 1, MAX_PART_BYTES + 1, 0, 7];
        let items = sizes.map(|size| Input::from("a".repeat(size))).into_iter().enumerate().collect();
        let cut: Vec<Vec<usize>> =
            parts(items).into_iter().map(|part| part.into_iter().map(|(index, _)| index).collect()).collect();
        assert_eq!(cut, [vec![0, 1], vec![2], vec![3], vec![4, 5]]);
        assert!(parts(Vec::new()).is_empty());
    }

    #[test]
    fn inputs_with_one_key_have_one_place_that_of_the_first() {
        let keys = [7, 8, 7, 9, 8].map(|byte| Keys { key: Key::from_bytes([byte; 32]), instead: Vec::new() });
        let Distinct { firsts, places } = Distinct::of(&keys);
        assert_eq!((firsts, places), (vec![0, 1, 3], vec![0, 1, 0, 2, 1]));
    }
}
