//! Values that are wanted, each known, to be computed by its caller, or being computed by another.

use std::collections::HashMap;
use std::sync::Arc;

use crate::answer::{Answer, Failure, Outcome, Source};
use crate::cache::Cache;
use crate::flight::{self, Boarded, Lead, Waiting};
use crate::replica::Lease;
use crate::terms::Terms;
use crate::{Key, Value};

/// What a caller that wants a value is to do about it.
pub enum Claim<'a, E, T: Terms<E> = ()> {
    /// Nothing: a tier has it, or its input is remembered as bad.
    Known(Result<Answer, Arc<E>>),
    /// Compute it.
    Leads(Leader<'a, E, T>),
    /// Wait for another caller that computes it.
    Waits(Follower<'a, E, T>),
}

/// What became of a value that another caller was computing.
pub enum Turn<'a, E, T: Terms<E> = ()> {
    /// The other's outcome.
    Landed(Result<Answer, Arc<E>>),
    /// The other had no outcome for this caller, who is to compute it now.
    Leads(Leader<'a, E, T>),
}

impl<E: Send + Sync + 'static, T: Terms<E>> Cache<E, T> {
    /// Claims many values, each by its key and the keys that may answer for it: looks all of them up, with one operation per tier, and
    /// leads the computing of those that nobody computes yet. Gives one claim for each, in the same order. No key may come twice: the
    /// second would wait for the first.
    ///
    /// A caller that has done its part for each that it leads before it waits for one that another computes cannot end in a
    /// deadlock, whatever others claim. Replicas are not asked: which of them computes is agreed on for single values only
    /// ([`get_or_compute_on`](Self::get_or_compute_on)).
    pub async fn claim_many(&self, terms: T, wanted: &[(Key, &[Key])]) -> Vec<Claim<'_, E, T>> {
        let mut claims: Vec<_> = wanted.iter().map(|(key, instead)| self.claim(terms, *key, instead)).collect();
        for level in 0..self.lower.len() {
            let missing: Vec<_> = (0..wanted.len()).filter(|at| matches!(claims[*at], Claim::Leads(_))).collect();
            if missing.is_empty() {
                break;
            }
            let keys = |at: usize| std::iter::once(wanted[at].0).chain(wanted[at].1.iter().copied());
            let all: Vec<_> = missing.iter().flat_map(|at| keys(*at)).collect();
            let mut values = self.lower[level].tier.get_many(&all).await.into_iter();
            let mut found = HashMap::new();
            for at in missing {
                for (key, value) in keys(at).zip(values.by_ref()) {
                    // Of several that may answer the nearest is the first.
                    value.map(|value| found.entry(at).or_insert((key, value)));
                }
            }
            let known = |(at, claim)| match (claim, found.remove(&at)) {
                (Claim::Leads(leader), Some((key, value))) => {
                    Claim::Known(leader.found(self.promote(key, value, level)))
                }
                (claim, _) => claim,
            };
            claims = claims.into_iter().enumerate().map(known).collect();
        }
        claims
    }

    /// What the nearest looks say of a value: memory, bad inputs, computations in flight.
    pub(crate) fn claim(&self, terms: T, key: Key, instead: &[Key]) -> Claim<'_, E, T> {
        if let Some(answer) = self.in_memory(key, instead) {
            return Claim::Known(Ok(answer));
        }
        if let Some(error) = self.negatives.get(&key) {
            self.counts.negative_hits.add(1);
            return Claim::Known(Err(error));
        }
        // A caller that accepts other precisions may get an answer that the others must not see, so that is another flight.
        match self.flights.board(Key::of_list(key, instead), terms) {
            Boarded::Leads(lead) => {
                let leader = Leader { cache: self, terms, key, lead };
                // A flight may have landed between the look into memory and this one's start.
                match self.in_memory(key, instead) {
                    Some(answer) => Claim::Known(leader.found(answer)),
                    None => Claim::Leads(leader),
                }
            }
            Boarded::Waits(waiting) => Claim::Waits(Follower { cache: self, terms, key, waiting }),
        }
    }
}

/// The right and the duty to compute a value. Dropped, it passes to the best of the callers that wait for the value.
#[must_use = "the callers that wait for the value get nothing before this is finished or dropped"]
pub struct Leader<'a, E, T: Terms<E> = ()> {
    cache: &'a Cache<E, T>,
    terms: T,
    key: Key,
    lead: Lead<Outcome<E>, T>,
}

impl<E: Send + Sync + 'static, T: Terms<E>> Leader<'_, E, T> {
    /// Gives what was computed to all that wait for it, and stores it. An error goes to those that would get it, too; then the best
    /// of the others computes.
    ///
    /// # Errors
    /// Those of computing.
    pub fn finish(self, computed: Result<Value, Failure<E>>) -> Result<Answer, Arc<E>> {
        self.finish_holding(computed, None)
    }

    pub(crate) fn finish_holding(self, computed: Result<Value, Failure<E>>, lease: Option<Lease>) -> Outcome<E> {
        let Self { cache, terms, key, lead } = self;
        match computed {
            Ok(value) => {
                cache.counts.computed.add(1);
                cache.store(key, &value, lease);
                let outcome = Ok(Answer { value, source: Source::Computed });
                lead.land(&outcome);
                outcome
            }
            Err(Failure::BadInput(error)) => {
                cache.counts.failed.add(1);
                let error = Arc::new(error);
                cache.negatives.insert(key, Arc::clone(&error));
                let outcome = Err(error);
                lead.land(&outcome);
                outcome
            }
            Err(Failure::Passing(error)) => {
                cache.counts.failed.add(1);
                let error = Arc::new(error);
                lead.land_where(&Err(Arc::clone(&error)), |waiting| waiting.would_get(&error, &terms));
                Err(error)
            }
        }
    }

    /// Gives an answer that was found after all to all that wait for it.
    pub(crate) fn found(self, answer: Answer) -> Outcome<E> {
        let outcome = Ok(answer);
        self.lead.land(&outcome);
        outcome
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }
}

/// A caller that waits for a value which another computes. Dropped, it waits no longer.
#[must_use = "dropping it is waiting no longer"]
pub struct Follower<'a, E, T: Terms<E> = ()> {
    cache: &'a Cache<E, T>,
    terms: T,
    key: Key,
    waiting: Waiting<Outcome<E>, T>,
}

impl<'a, E: Send + Sync + 'static, T: Terms<E>> Follower<'a, E, T> {
    /// Waits for the other's outcome, or until it is this caller's turn to compute.
    pub async fn turn(self) -> Turn<'a, E, T> {
        let Self { cache, terms, key, waiting } = self;
        match waiting.turn().await {
            flight::Turn::Leads(lead) => Turn::Leads(Leader { cache, terms, key, lead }),
            flight::Turn::Landed(outcome) => {
                cache.counts.shared.add(1);
                Turn::Landed(outcome.map(|answer| Answer { source: Source::Shared, ..answer }))
            }
        }
    }
}
