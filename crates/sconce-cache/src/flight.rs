//! Single flight within the process: of the callers that want the same value at the same time one leads, the others follow.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::Key;
use crate::sync::{Mutex, MutexGuard};

/// Computations in flight, each with its followers. `R` are a caller's terms; the greater of two is the better.
pub(crate) struct Flights<T, R: Ord + Copy> {
    listed: Arc<Mutex<Listed<T, R>>>,
}

struct Listed<T, R: Ord + Copy> {
    flights: HashMap<Key, Waiters<T, R>>,
    next_number: u64,
}

/// Followers in order, the next leader last: the one with the best terms, and among equals the one that came first.
type Waiters<T, R> = BTreeMap<(R, Reverse<u64>), oneshot::Sender<FollowerOutcome<T, R>>>;

/// A caller's place in a flight.
pub(crate) enum Boarded<T, R: Ord + Copy> {
    /// The caller leads: there was no flight for the key.
    Leads(Lead<T, R>),
    /// The caller follows another.
    Waits(FlightWaiter<T, R>),
}

/// The end of a follower's wait.
pub(crate) enum FollowerOutcome<T, R: Ord + Copy> {
    /// The lead passed to this caller, because the leader before it had no outcome for it.
    Leads(Lead<T, R>),
    /// The leader's outcome.
    Landed(T),
}

impl<T, R: Ord + Copy> Flights<T, R> {
    pub(crate) fn new() -> Self {
        Self { listed: Arc::new(Mutex::new(Listed { flights: HashMap::new(), next_number: 0 })) }
    }

    /// Starts a flight for `key` as its leader, or joins the one there is as a follower. Does not wait, so that a
    /// caller may board several flights and compute those that it leads before it waits for the others.
    pub(crate) fn board(&self, key: Key, terms: R) -> Boarded<T, R> {
        let mut listed = lock(&self.listed);
        let number = Reverse(listed.next_number);
        match listed.flights.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(BTreeMap::new());
                Boarded::Leads(Lead { listed: Arc::clone(&self.listed), key, in_flight: true })
            }
            Entry::Occupied(mut waiters) => {
                let (outcome, received) = oneshot::channel();
                waiters.get_mut().insert((terms, number), outcome);
                listed.next_number += 1;
                Boarded::Waits(FlightWaiter { listed: Arc::clone(&self.listed), key, place: (terms, number), received })
            }
        }
    }
}

fn lock<T, R: Ord + Copy>(listed: &Mutex<Listed<T, R>>) -> MutexGuard<'_, Listed<T, R>> {
    listed.lock().expect("no holder of this lock can panic")
}

/// The right and the duty to compute. Dropped without an outcome, it passes to the follower with the best terms.
pub(crate) struct Lead<T, R: Ord + Copy> {
    listed: Arc<Mutex<Listed<T, R>>>,
    key: Key,
    in_flight: bool,
}

impl<T: Clone, R: Ord + Copy> Lead<T, R> {
    /// Ends the flight: gives the outcome to all followers.
    pub(crate) fn land(mut self, outcome: &T) {
        self.in_flight = false;
        // Once the flight is removed, a new caller starts another.
        let waiters = lock(&self.listed).flights.remove(&self.key);
        for follower in waiters.unwrap_or_default().into_values() {
            follower.send(FollowerOutcome::Landed(outcome.clone())).ok();
        }
    }

    /// Gives the outcome to the followers whose terms it `concerns`, all at once. The lead passes to the best of the
    /// others, if there are any.
    pub(crate) fn land_where(self, outcome: &T, concerns: impl Fn(&R) -> bool) {
        let concerned: Vec<_> = match lock(&self.listed).flights.get_mut(&self.key) {
            Some(waiters) => {
                waiters.extract_if(.., |(terms, _), _| concerns(terms)).map(|(_, follower)| follower).collect()
            }
            None => Vec::new(),
        };
        for follower in concerned {
            follower.send(FollowerOutcome::Landed(outcome.clone())).ok();
        }
    }
}

impl<T, R: Ord + Copy> Drop for Lead<T, R> {
    fn drop(&mut self) {
        while self.in_flight {
            let next = {
                let mut listed = lock(&self.listed);
                let next = listed.flights.get_mut(&self.key).and_then(BTreeMap::pop_last);
                if next.is_none() {
                    listed.flights.remove(&self.key);
                }
                next
            };
            self.in_flight = false;
            let Some((_, follower)) = next else { return };
            let heir = Self { listed: Arc::clone(&self.listed), key: self.key, in_flight: true };
            if let Err(FollowerOutcome::Leads(mut heir)) = follower.send(FollowerOutcome::Leads(heir)) {
                // That follower went away in this moment: the lead passes to the next one.
                heir.in_flight = false;
                self.in_flight = true;
            }
        }
    }
}

/// A follower's place in a flight. Dropped, it leaves the flight.
pub(crate) struct FlightWaiter<T, R: Ord + Copy> {
    listed: Arc<Mutex<Listed<T, R>>>,
    key: Key,
    place: (R, Reverse<u64>),
    received: oneshot::Receiver<FollowerOutcome<T, R>>,
}

impl<T, R: Ord + Copy> FlightWaiter<T, R> {
    /// Waits for the leader's outcome, or for the lead.
    pub(crate) async fn outcome(mut self) -> FollowerOutcome<T, R> {
        (&mut self.received).await.expect("a flight with a caller that waits lands or passes the lead on")
    }
}

impl<T, R: Ord + Copy> Drop for FlightWaiter<T, R> {
    fn drop(&mut self) {
        // A follower that got its outcome is not listed any more, and another flight under the same key has other
        // numbers. A lead that came to it in this moment is dropped with the receiver, and passes on.
        let mut listed = lock(&self.listed);
        if let Some(waiters) = listed.flights.get_mut(&self.key) {
            waiters.remove(&self.place);
        }
    }
}

#[cfg(all(test, shuttle))]
mod schedules;
#[cfg(test)]
mod tests;
