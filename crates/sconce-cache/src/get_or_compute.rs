//! Lookups that compute the value on a miss, once for all callers that want it at the same time.

use std::sync::Arc;

use crate::answer::{Failure, FlightResult, Source, SourcedValue};
use crate::cache::Cache;
use crate::claim::{Claim, ClaimOutcome, Leader};
use crate::replica::LeaseOutcome;
use crate::terms::FlightTerms;
use crate::{Key, Value};

impl<E: Send + Sync + 'static> Cache<E> {
    /// Looks up or computes a value as [`get_or_compute_on`](Self::get_or_compute_on) does, without terms: an error of
    /// `compute` goes to all callers that waited for it.
    ///
    /// # Errors
    /// The error of `compute`, or that of an earlier call, if it was a [`Failure::BadInput`].
    pub async fn get_or_compute<C, F>(&self, key: Key, instead: &[Key], compute: C) -> Result<SourcedValue, Arc<E>>
    where
        C: FnOnce() -> F + Send,
        F: Future<Output = Result<Value, Failure<E>>> + Send,
    {
        self.get_or_compute_on((), key, instead, compute).await
    }
}

impl<E: Send + Sync + 'static, T: FlightTerms<E>> Cache<E, T> {
    /// Looks up a value as [`get`](Self::get) does and computes it on a miss, once for all callers that want it at the
    /// same time.
    ///
    /// If the caller that computes goes away, or its `compute` panics, the waiting caller with the best `terms` takes
    /// over and runs its own `compute`. An error of `compute` goes at once to all waiting callers whose terms would get
    /// it too ([`FlightTerms::would_get`]); the best of the others computes next, and the rest wait for it.
    ///
    /// # Errors
    /// The error of `compute`, of this caller or of one that it waited for; or that of an earlier call, if it was a
    /// [`Failure::BadInput`].
    pub async fn get_or_compute_on<C, F>(
        &self,
        terms: T,
        key: Key,
        instead: &[Key],
        compute: C,
    ) -> Result<SourcedValue, Arc<E>>
    where
        C: FnOnce() -> F + Send,
        F: Future<Output = Result<Value, Failure<E>>> + Send,
    {
        let leader = match self.claim(terms, key, instead) {
            Claim::Known(outcome) => return outcome,
            Claim::Leads(leader) => leader,
            Claim::Waits(follower) => match follower.outcome().await {
                ClaimOutcome::Landed(outcome) => return outcome,
                ClaimOutcome::Leads(leader) => leader,
            },
        };
        self.lead(leader, instead, compute).await
    }

    /// Looks up the value in the lower tiers, asks the other replicas, and computes it if neither has it.
    async fn lead<C, F>(&self, leader: Leader<'_, E, T>, instead: &[Key], compute: C) -> FlightResult<E>
    where
        C: FnOnce() -> F + Send,
        F: Future<Output = Result<Value, Failure<E>>> + Send,
    {
        let key = leader.key();
        if let Some(answer) = self.in_lower_tiers(key, instead).await {
            return leader.found(answer);
        }
        let lease = match &self.replicas {
            None => None,
            Some(replicas) => match replicas.lease_or_wait(key, || self.in_lower_tiers(key, instead)).await {
                LeaseOutcome::Compute(lease) => lease,
                LeaseOutcome::Found(answer) => {
                    self.counts.from_replicas.add(1);
                    return leader.found(SourcedValue { source: Source::Replica, ..answer });
                }
            },
        };
        leader.finish_holding(compute().await, lease)
    }
}
