//! Single flight within the process: of those who want the same thing at the same time one works, the others wait.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::Key;

/// Computations in flight, each with the callers that wait for it. `R` are a caller's terms; of two the greater is the better.
pub(crate) struct Flights<T, R: Ord + Copy> {
    listed: Arc<Mutex<Listed<T, R>>>,
}

struct Listed<T, R: Ord + Copy> {
    flights: HashMap<Key, Waiters<T, R>>,
    next_number: u64,
}

/// Callers that wait, the next to lead last: the one with the best terms, and among equals the one that came first.
type Waiters<T, R> = BTreeMap<(R, Reverse<u64>), oneshot::Sender<Turn<T, R>>>;

/// A place in a flight.
pub(crate) enum Boarded<T, R: Ord + Copy> {
    /// Nobody is at it: this caller works.
    Leads(Lead<T, R>),
    /// Another is at it.
    Waits(Waiting<T, R>),
}

/// What comes to a caller that waits.
pub(crate) enum Turn<T, R: Ord + Copy> {
    /// Its turn to work, since the leader before it had no outcome for it.
    Leads(Lead<T, R>),
    /// The leader's outcome.
    Landed(T),
}

impl<T, R: Ord + Copy> Flights<T, R> {
    pub(crate) fn new() -> Self {
        Self { listed: Arc::new(Mutex::new(Listed { flights: HashMap::new(), next_number: 0 })) }
    }

    /// Leads a flight for `key`, or joins the one there is. Does not wait, so that a caller may board several and work on those
    /// that it leads before it waits for the others.
    pub(crate) fn board(&self, key: Key, terms: R) -> Boarded<T, R> {
        let mut listed = lock(&self.listed);
        let number = Reverse(listed.next_number);
        match listed.flights.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(BTreeMap::new());
                Boarded::Leads(Lead { listed: Arc::clone(&self.listed), key, in_flight: true })
            }
            Entry::Occupied(mut waiters) => {
                let (turn, turned) = oneshot::channel();
                waiters.get_mut().insert((terms, number), turn);
                listed.next_number += 1;
                Boarded::Waits(Waiting { listed: Arc::clone(&self.listed), key, place: (terms, number), turned })
            }
        }
    }
}

fn lock<T, R: Ord + Copy>(listed: &Mutex<Listed<T, R>>) -> MutexGuard<'_, Listed<T, R>> {
    listed.lock().expect("no holder of this lock can panic")
}

/// The right and the duty to work. Dropped without an outcome, it passes to the best of the callers that wait.
pub(crate) struct Lead<T, R: Ord + Copy> {
    listed: Arc<Mutex<Listed<T, R>>>,
    key: Key,
    in_flight: bool,
}

impl<T: Clone, R: Ord + Copy> Lead<T, R> {
    /// Gives the outcome to all that wait.
    pub(crate) fn land(mut self, outcome: &T) {
        self.in_flight = false;
        // From here on a new caller starts another flight.
        let waiters = lock(&self.listed).flights.remove(&self.key);
        for turn in waiters.unwrap_or_default().into_values() {
            turn.send(Turn::Landed(outcome.clone())).ok();
        }
    }

    /// Gives the outcome to the callers whose terms it `concerns`, all at once. The lead passes to the best of the others, if
    /// there are any.
    pub(crate) fn land_where(self, outcome: &T, concerns: impl Fn(&R) -> bool) {
        let concerned: Vec<_> = match lock(&self.listed).flights.get_mut(&self.key) {
            Some(waiters) => waiters.extract_if(.., |(terms, _), _| concerns(terms)).map(|(_, turn)| turn).collect(),
            None => Vec::new(),
        };
        for turn in concerned {
            turn.send(Turn::Landed(outcome.clone())).ok();
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
            let Some((_, turn)) = next else { return };
            let heir = Self { listed: Arc::clone(&self.listed), key: self.key, in_flight: true };
            if let Err(Turn::Leads(mut heir)) = turn.send(Turn::Leads(heir)) {
                // That caller went away in this moment: the next one leads.
                heir.in_flight = false;
                self.in_flight = true;
            }
        }
    }
}

/// A caller that waits for another's outcome. Dropped, it leaves the flight.
pub(crate) struct Waiting<T, R: Ord + Copy> {
    listed: Arc<Mutex<Listed<T, R>>>,
    key: Key,
    place: (R, Reverse<u64>),
    turned: oneshot::Receiver<Turn<T, R>>,
}

impl<T, R: Ord + Copy> Waiting<T, R> {
    pub(crate) async fn turn(mut self) -> Turn<T, R> {
        (&mut self.turned).await.expect("a flight with a caller that waits lands or passes the lead on")
    }
}

impl<T, R: Ord + Copy> Drop for Waiting<T, R> {
    fn drop(&mut self) {
        // After its turn it is not listed; another flight under the same key has other numbers. A lead that came to it in this
        // moment is dropped with the receiver, and passes on.
        let mut listed = lock(&self.listed);
        if let Some(waiters) = listed.flights.get_mut(&self.key) {
            waiters.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests;
