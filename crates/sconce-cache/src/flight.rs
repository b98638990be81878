//! Single flight within the process: of those who want the same thing at the same time one works, the others wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::Key;
use crate::sync::{Mutex, MutexGuard};

/// What is in flight.
pub(crate) struct Flights<T> {
    flights: Mutex<HashMap<Key, Listed<T>>>,
}

struct Listed<T> {
    flight: Arc<Flight<T>>,
    /// Those who lead it or wait for it.
    seats: usize,
}

struct Flight<T> {
    outcome: OnceLock<T>,
    /// Whoever has its only permit leads; closed when the outcome is there. It is fair: the next to lead is the one who has
    /// waited longest.
    lead: Semaphore,
}

/// What somebody who wants something is to do.
pub(crate) enum Boarded<'a, T> {
    /// Work, and land the outcome. Whoever drops this without landing hands over to one of those who wait.
    Leading(Lead<'a, T>),
    /// Take this, which another has worked for.
    Landed(T),
}

impl<T: Clone> Flights<T> {
    pub(crate) fn new() -> Self {
        Self { flights: Mutex::new(HashMap::new()) }
    }

    /// Leads a flight for `key`, or waits for the one there is.
    pub(crate) async fn board(&self, key: Key) -> Boarded<'_, T> {
        let seat = self.seat(key);
        // `Lead` gives the permit back.
        let leads = seat.flight.lead.acquire().await.map(SemaphorePermit::forget).is_ok();
        if leads {
            return Boarded::Leading(Lead { seat });
        }
        Boarded::Landed(seat.flight.outcome.get().expect("closed after landing").clone())
    }

    fn seat(&self, key: Key) -> Seat<'_, T> {
        let flight = || Arc::new(Flight { outcome: OnceLock::new(), lead: Semaphore::new(1) });
        let mut flights = self.lock();
        let listed = flights.entry(key).or_insert_with(|| Listed { flight: flight(), seats: 0 });
        listed.seats += 1;
        Seat { flights: self, key, flight: Arc::clone(&listed.flight) }
    }
}

impl<T> Flights<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Listed<T>>> {
        self.flights.lock().expect("no holder of this lock can panic")
    }
}

/// The right and the duty to work.
pub(crate) struct Lead<'a, T> {
    seat: Seat<'a, T>,
}

impl<T> Lead<'_, T> {
    /// Gives the outcome to all who wait.
    pub(crate) fn land(self, outcome: T) {
        let Seat { flights, key, flight } = &self.seat;
        flight.outcome.set(outcome).ok();
        // From here on a new one starts another flight.
        flights.lock().remove(key);
        flight.lead.close();
    }
}

impl<T> Drop for Lead<'_, T> {
    fn drop(&mut self) {
        // To the next, unless it has landed.
        self.seat.flight.lead.add_permits(1);
    }
}

/// A place in a flight. The flight ends with the last of them, if it has not landed.
struct Seat<'a, T> {
    flights: &'a Flights<T>,
    key: Key,
    flight: Arc<Flight<T>>,
}

impl<T> Drop for Seat<'_, T> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        // It is not listed any more if it has landed; then another may be under its key.
        let Entry::Occupied(mut listed) = flights.entry(self.key) else { return };
        if Arc::ptr_eq(&listed.get().flight, &self.flight) {
            listed.get_mut().seats -= 1;
            if listed.get().seats == 0 {
                listed.remove();
            }
        }
    }
}

#[cfg(all(test, shuttle))]
mod schedules;

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn key() -> Key {
        Key::from_bytes([7; 32])
    }

    fn leads(boarded: Boarded<'_, u32>) -> Lead<'_, u32> {
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

    #[tokio::test]
    async fn a_flight_that_all_leave_is_forgotten() {
        let flights = Flights::new();
        let lead = leads(flights.board(key()).await);
        let mut waiting = Box::pin(flights.board(key()));
        assert!(polled_once(&mut waiting).await.is_pending());
        drop(lead);
        drop(waiting);
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn all_who_waited_when_the_leader_went_away_get_what_the_next_one_lands() {
        let flights = Flights::new();
        let lead = leads(flights.board(key()).await);
        let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(flights.board(key()))).collect();
        for waiting in &mut waiting {
            assert!(polled_once(waiting).await.is_pending());
        }
        drop(lead);
        // The next lands before the others have even noticed.
        leads(waiting.remove(0).await).land(3);
        for waiting in waiting {
            assert!(matches!(waiting.await, Boarded::Landed(3)));
        }
        assert!(flights.lock().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn callers_that_come_and_go_leave_nothing_behind_and_none_waits_for_ever() {
        let flights = Arc::new(Flights::new());
        let callers = (0..2000_u64).map(|number| {
            let flights = Arc::clone(&flights);
            tokio::spawn(async move {
                let work = async {
                    if let Boarded::Leading(lead) = flights.board(Key::from_bytes([(number % 3) as u8; 32])).await {
                        tokio::task::yield_now().await;
                        // Some leave without an outcome, some land one.
                        if number % 5 > 0 {
                            lead.land(number);
                        }
                    }
                };
                // Some go away at once, some in the middle, most stay.
                match number % 7 {
                    0 => drop(tokio::time::timeout(std::time::Duration::ZERO, work).await),
                    1 => drop(tokio::time::timeout(std::time::Duration::from_micros(50), work).await),
                    _ => work.await,
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        assert!(flights.lock().is_empty());
    }

    /// Polls once.
    async fn polled_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context))).await
    }
}
