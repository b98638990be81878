//! Claims on values: each value is known, to be computed by its caller, or being computed by another.

use std::collections::HashMap;
use std::sync::Arc;

use crate::answer::{Failure, FlightResult, Source, SourcedValue};
use crate::cache::Cache;
use crate::flight::{Boarded, FlightWaiter, FollowerOutcome, Lead};
use crate::replica::Lease;
use crate::terms::FlightTerms;
use crate::{Key, Value};

/// A caller's claim on a value.
pub enum Claim<'a, E, T: FlightTerms<E> = ()> {
    /// The answer is known: a tier has the value, or its input is remembered as bad.
    Known(Result<SourcedValue, Arc<E>>),
    /// The caller leads: it must compute the value.
    Leads(Leader<'a, E, T>),
    /// The caller follows another that computes the value.
    Waits(Follower<'a, E, T>),
}

/// The end of a follower's wait for a value.
pub enum ClaimOutcome<'a, E, T: FlightTerms<E> = ()> {
    /// The leader's outcome.
    Landed(Result<SourcedValue, Arc<E>>),
    /// The leader had no outcome for this caller, which must compute the value now.
    Leads(Leader<'a, E, T>),
}

impl<E: Send + Sync + 'static, T: FlightTerms<E>> Cache<E, T> {
    /// Claims many values, each by its key and the keys that may answer for it: looks up all of them, with one
    /// operation per tier, and becomes the leader of those that nobody computes yet. Returns one claim for each, in the
    /// same order. No key may come twice: the second would wait for the first.
    ///
    /// To avoid a deadlock, a caller must finish or drop every value that it leads before it waits for one that another
    /// computes. Replicas do not agree on a leader here, only for single values
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
                    // If several keys have a value, the nearest key is the first.
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

    /// Claims a value by the lookups that do not wait: memory, remembered bad inputs, computations in flight.
    pub(crate) fn claim(&self, terms: T, key: Key, instead: &[Key]) -> Claim<'_, E, T> {
        if let Some(answer) = self.in_memory(key, instead) {
            return Claim::Known(Ok(answer));
        }
        if let Some(error) = self.negatives.get(&key) {
            self.counts.negative_hits.add(1);
            return Claim::Known(Err(error));
        }
        // A caller that accepts other keys too may get an answer that others must not see, so it has a flight of its own.
        match self.flights.board(Key::of_list(key, instead), terms) {
            Boarded::Leads(lead) => {
                let leader = Leader { cache: self, terms, key, lead };
                // Another flight may have landed between the lookup in memory and the start of this one.
                match self.in_memory(key, instead) {
                    Some(answer) => Claim::Known(leader.found(answer)),
                    None => Claim::Leads(leader),
                }
            }
            Boarded::Waits(waiting) => Claim::Waits(Follower { cache: self, terms, key, waiting }),
        }
    }
}

/// The right and the duty to compute a value. Dropped, it passes to the follower with the best terms.
#[must_use = "the callers that wait for the value get nothing before this is finished or dropped"]
pub struct Leader<'a, E, T: FlightTerms<E> = ()> {
    cache: &'a Cache<E, T>,
    terms: T,
    key: Key,
    lead: Lead<FlightResult<E>, T>,
}

impl<E: Send + Sync + 'static, T: FlightTerms<E>> Leader<'_, E, T> {
    /// Stores the computed value and gives it to all followers. A [`Failure::BadInput`] also goes to all of them; a
    /// [`Failure::Passing`] goes to those that would get it too ([`FlightTerms::would_get`]), and the best of the others
    /// leads next.
    ///
    /// # Errors
    /// The error in `computed`.
    pub fn finish(self, computed: Result<Value, Failure<E>>) -> Result<SourcedValue, Arc<E>> {
        self.finish_holding(computed, None)
    }

    pub(crate) fn finish_holding(self, computed: Result<Value, Failure<E>>, lease: Option<Lease>) -> FlightResult<E> {
        let Self { cache, terms, key, lead } = self;
        match computed {
            Ok(value) => {
                cache.counts.computed.add(1);
                cache.store(key, &value, lease);
                let outcome = Ok(SourcedValue { value, source: Source::Computed });
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

    /// Gives an answer that a further lookup found to all followers.
    pub(crate) fn found(self, answer: SourcedValue) -> FlightResult<E> {
        let outcome = Ok(answer);
        self.lead.land(&outcome);
        outcome
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }
}

/// A caller that waits for a value that another computes. Dropped, it waits no longer.
#[must_use = "dropping it is waiting no longer"]
pub struct Follower<'a, E, T: FlightTerms<E> = ()> {
    cache: &'a Cache<E, T>,
    terms: T,
    key: Key,
    waiting: FlightWaiter<FlightResult<E>, T>,
}

impl<'a, E: Send + Sync + 'static, T: FlightTerms<E>> Follower<'a, E, T> {
    /// Waits for the leader's outcome, or until this caller has to lead.
    pub async fn outcome(self) -> ClaimOutcome<'a, E, T> {
        let Self { cache, terms, key, waiting } = self;
        match waiting.outcome().await {
            FollowerOutcome::Leads(lead) => ClaimOutcome::Leads(Leader { cache, terms, key, lead }),
            FollowerOutcome::Landed(outcome) => {
                cache.counts.shared.add(1);
                ClaimOutcome::Landed(outcome.map(|answer| SourcedValue { source: Source::Shared, ..answer }))
            }
        }
    }
}
