//! Single flight under many schedules of its callers (`tests/run schedules`).
//!
//! A schedule fails if an assertion of the test fails, or if all its callers wait: a lost wake-up shows as such a deadlock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sconce_test_schedules::{explore, perhaps};
use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::{Boarded, Flights, FollowerOutcome, Lead, lock};
use crate::{Cache, Failure, Key, MemoryConfig, Source, Value};

/// Flights whose outcomes count up, so that a later landing has a higher outcome. Outcomes that land for some concern
/// terms below 10 only.
struct Counted {
    flights: Flights<u32, u32>,
    leaders: AtomicU32,
    next: AtomicU32,
    /// The highest outcome whose landing is complete.
    landed: AtomicU32,
}

/// The way in which a leader lands its outcome.
#[derive(Clone, Copy)]
enum Lands {
    ForAll,
    ForSome,
    Not,
}

impl Counted {
    fn new() -> Self {
        Self { flights: Flights::new(), leaders: AtomicU32::new(0), next: AtomicU32::new(0), landed: AtomicU32::new(0) }
    }

    /// Leads, or follows another leader; returns the outcome, if there is one.
    async fn fly(&self, terms: u32, lands: Lands) -> Option<u32> {
        let before = self.landed.load(Ordering::SeqCst);
        let outcome = match self.flights.board(key(7), terms) {
            Boarded::Leads(lead) => FollowerOutcome::Leads(lead),
            Boarded::Waits(waiting) => waiting.outcome().await,
        };
        match outcome {
            FollowerOutcome::Leads(lead) => self.lead(lead, lands),
            FollowerOutcome::Landed(outcome) => {
                assert!(outcome > before, "{outcome} had landed before this caller came, and so had {before}");
                Some(outcome)
            }
        }
    }

    fn lead(&self, lead: Lead<u32, u32>, lands: Lands) -> Option<u32> {
        assert_eq!(self.leaders.fetch_add(1, Ordering::SeqCst), 0, "two lead at the same time");
        thread::yield_now();
        self.leaders.fetch_sub(1, Ordering::SeqCst);
        let outcome = || self.next.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = match lands {
            Lands::ForAll => {
                let outcome = outcome();
                lead.land(&outcome);
                outcome
            }
            Lands::ForSome => {
                let outcome = outcome();
                lead.land_where(&outcome, |terms| *terms < 10);
                outcome
            }
            Lands::Not => return None,
        };
        self.landed.fetch_max(outcome, Ordering::SeqCst);
        Some(outcome)
    }

    fn is_empty(&self) -> bool {
        lock(&self.flights.listed).flights.is_empty()
    }
}

fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

fn value(byte: u8) -> Value {
    Value::new(&format!("precision {byte}"), &[]).unwrap()
}

#[test]
fn every_caller_gets_what_lands_while_it_waits_and_one_leads_at_a_time() {
    explore(|| {
        let counted = Arc::new(Counted::new());
        let callers = [Lands::ForAll, Lands::ForAll, Lands::ForSome, Lands::ForSome].map(|lands| {
            let counted = Arc::clone(&counted);
            let terms = thread_rng().gen_range(8..12);
            thread::spawn(move || block_on(counted.fly(terms, lands)))
        });
        for caller in callers {
            assert!(caller.join().unwrap().is_some());
        }
        assert!(counted.is_empty());
    });
}

// A leader that panics is not tested separately from one that leaves: both drop their `Lead`. Threads that unwind would
// poison each other's locks here, where all of them run on one thread of the system.
#[test]
fn a_leader_that_leaves_or_is_cancelled_hands_over_and_nobody_waits_for_ever() {
    explore(|| {
        let counted = Arc::new(Counted::new());
        let caller = |how: u32| {
            let counted = Arc::clone(&counted);
            thread::spawn(move || match how {
                0 => assert!(block_on(counted.fly(1, Lands::ForAll)).is_some()),
                1 => drop(block_on(counted.fly(2, Lands::Not))),
                // Cancelled while it waits, or in the moment in which it gets the lead.
                _ => drop(perhaps(counted.fly(3, Lands::Not))),
            })
        };
        let callers: Vec<_> =
            [0, 0].into_iter().chain((0..3).map(|_| thread_rng().gen_range(0..3))).map(caller).collect();
        for caller in callers {
            caller.join().unwrap();
        }
        assert!(counted.is_empty());
    });
}

#[test]
fn callers_of_the_same_compute_once_and_those_of_another_by_themselves() {
    // A cache must be built within a runtime, though one of memory alone does not use it.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    explore(|| {
        let cache = Arc::new(Cache::<&str>::builder().memory(MemoryConfig::default()).build().unwrap());
        let computed = Arc::new(AtomicU32::new(0));
        let call = |byte: u8| {
            let (cache, computed) = (Arc::clone(&cache), Arc::clone(&computed));
            thread::spawn(move || {
                let compute = || async {
                    thread::yield_now();
                    computed.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, Failure<&str>>(value(byte))
                };
                let answer = block_on(cache.get_or_compute(key(byte), &[], compute)).unwrap();
                assert_eq!(answer.value, value(byte));
                answer.source
            })
        };
        let callers = [1, 1, 1, 2].map(call);
        let sources = callers.map(|caller| caller.join().unwrap());
        assert_eq!(computed.load(Ordering::SeqCst), 2);
        assert_eq!(sources.iter().filter(|source| **source == Source::Computed).count(), 2, "{sources:?}");
    });
}
