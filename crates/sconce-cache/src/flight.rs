//! Single flight within the process: of those who want the same thing at the same time one works, the others wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use crate::Key;

/// What is in flight.
pub(crate) struct Flights<T> {
    flights: Mutex<HashMap<Key, watch::Receiver<Option<T>>>>,
}

/// What somebody who wants something is to do.
pub(crate) enum Boarded<'a, T> {
    /// Work, and land the outcome. Whoever drops this without landing hands over to one of those who wait.
    Leading(Lead<'a, T>),
    /// Take this, which another has worked for.
    Landed(T),
}

pub(crate) struct Lead<'a, T> {
    flights: &'a Flights<T>,
    key: Key,
    outcome: watch::Sender<Option<T>>,
}

impl<T: Clone> Flights<T> {
    pub(crate) fn new() -> Self {
        Self { flights: Mutex::new(HashMap::new()) }
    }

    /// Leads a flight for `key`, or waits for the one there is.
    pub(crate) async fn board(&self, key: Key) -> Boarded<'_, T> {
        loop {
            let mut outcome = match self.lock().entry(key) {
                Entry::Occupied(flight) => flight.get().clone(),
                Entry::Vacant(vacant) => {
                    let (outcome, wait) = watch::channel(None);
                    vacant.insert(wait);
                    return Boarded::Leading(Lead { flights: self, key, outcome });
                }
            };
            if let Ok(outcome) = outcome.wait_for(Option::is_some).await {
                return Boarded::Landed(outcome.clone().expect("waited for"));
            }
            // The leader went away without an outcome, and this may be the one who leads now.
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, watch::Receiver<Option<T>>>> {
        self.flights.lock().expect("no holder of this lock can panic")
    }
}

impl<T> Lead<'_, T> {
    /// Gives the outcome to all who wait.
    pub(crate) fn land(self, outcome: T) {
        self.outcome.send_replace(Some(outcome));
    }
}

/// The flight is gone from the map before its channel closes: those who wait wake up and find it free.
impl<T> Drop for Lead<'_, T> {
    fn drop(&mut self) {
        self.flights.flights.lock().expect("no holder of this lock can panic").remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Poll;

    use super::*;

    fn key() -> Key {
        Key::from_bytes([7; 32])
    }

    fn leads<'a>(boarded: Boarded<'a, u32>) -> Lead<'a, u32> {
        match boarded {
            Boarded::Leading(lead) => lead,
            Boarded::Landed(outcome) => panic!("{outcome} landed"),
        }
    }

    #[tokio::test]
    async fn those_who_wait_get_what_lands_and_the_next_one_leads_again() {
        let flights = Flights::new();
        let lead = leads(flights.board(key()).await);
        let (mut first, mut second) = (Box::pin(flights.board(key())), Box::pin(flights.board(key())));
        assert!(matches!(polled_once(&mut first).await, Poll::Pending));
        assert!(matches!(polled_once(&mut second).await, Poll::Pending));
        lead.land(5);
        assert!(matches!(first.await, Boarded::Landed(5)));
        assert!(matches!(second.await, Boarded::Landed(5)));
        leads(flights.board(key()).await);
    }

    #[tokio::test]
    async fn a_leader_that_goes_away_hands_over_to_one_of_those_who_wait() {
        let flights = Arc::new(Flights::new());
        let lead = leads(flights.board(key()).await);
        let (mut first, mut second) = (Box::pin(flights.board(key())), Box::pin(flights.board(key())));
        assert!(polled_once(&mut first).await.is_pending());
        assert!(polled_once(&mut second).await.is_pending());
        drop(lead);
        let Poll::Ready(boarded) = polled_once(&mut first).await else { panic!("the first leads now") };
        assert!(polled_once(&mut second).await.is_pending());
        leads(boarded).land(6);
        assert!(matches!(second.await, Boarded::Landed(6)));
    }

    #[tokio::test]
    async fn one_who_waits_no_longer_leaves_nothing_behind() {
        let flights = Flights::<u32>::new();
        let lead = leads(flights.board(key()).await);
        let mut waiting = Box::pin(flights.board(key()));
        assert!(polled_once(&mut waiting).await.is_pending());
        drop(waiting);
        lead.land(1);
        assert!(flights.lock().is_empty());
    }

    /// Polls once.
    async fn polled_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context))).await
    }
}
