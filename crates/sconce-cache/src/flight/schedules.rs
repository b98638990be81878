//! Single flight under many schedules of its callers (`tests/run schedules`).
//!
//! A schedule fails if a test's assertion does, and if all callers of it wait for each other: a wake-up that is lost shows as that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sconce_test_schedules::{explore, perhaps};
use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::{Boarded, Flights, Lead};
use crate::{Cache, Failure, Key, MemoryConfig, Source, Value};

/// Flights of numbers that count up: a later landing has a higher one.
struct Counted {
    flights: Flights<u32>,
    leaders: AtomicU32,
    next: AtomicU32,
    /// The last number whose landing is complete.
    landed: AtomicU32,
}

impl Counted {
    fn new() -> Self {
        Self { flights: Flights::new(), leaders: AtomicU32::new(0), next: AtomicU32::new(0), landed: AtomicU32::new(0) }
    }

    /// Leads and lands, or gets what another landed, and says which.
    async fn fly(&self, key: Key, lands: bool) -> Option<u32> {
        let before = self.landed.load(Ordering::SeqCst);
        match self.flights.board(key).await {
            Boarded::Leading(lead) => self.lead(lead, lands),
            Boarded::Landed(number) => {
                assert!(number > before, "{number} had landed before this caller came, {before} too");
                Some(number)
            }
        }
    }

    fn lead(&self, lead: Lead<'_, u32>, lands: bool) -> Option<u32> {
        assert_eq!(self.leaders.fetch_add(1, Ordering::SeqCst), 0, "two lead at the same time");
        thread::yield_now();
        self.leaders.fetch_sub(1, Ordering::SeqCst);
        if !lands {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::SeqCst) + 1;
        lead.land(number);
        self.landed.fetch_max(number, Ordering::SeqCst);
        Some(number)
    }
}

fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32])
}

#[test]
fn all_callers_of_a_flight_get_what_lands_while_they_wait_and_one_leads_at_a_time() {
    explore(|| {
        let counted = Arc::new(Counted::new());
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let counted = Arc::clone(&counted);
                thread::spawn(move || block_on(counted.fly(key(7), true)))
            })
            .collect();
        for caller in callers {
            assert!(caller.join().unwrap().is_some());
        }
        assert!(counted.flights.lock().is_empty());
    });
}

// A leader that panics is one that leaves: what counts is that its `Lead` is dropped. Threads that unwind would poison each other's
// locks here, where all are one thread of the system.
#[test]
fn a_leader_that_leaves_or_is_cancelled_hands_over_and_nobody_waits_for_ever() {
    explore(|| {
        let counted = Arc::new(Counted::new());
        let caller = |how: u32| {
            let counted = Arc::clone(&counted);
            thread::spawn(move || match how {
                0 => assert!(block_on(counted.fly(key(7), true)).is_some()),
                1 => drop(block_on(counted.fly(key(7), false))),
                _ => drop(perhaps(async {
                    if let Boarded::Leading(_lead) = counted.flights.board(key(7)).await {
                        // Cancelled here, most of the time.
                        yield_once().await;
                        yield_once().await;
                    }
                })),
            })
        };
        let callers: Vec<_> =
            [0, 0].into_iter().chain((0..3).map(|_| thread_rng().gen_range(0..3))).map(caller).collect();
        for caller in callers {
            caller.join().unwrap();
        }
        assert!(counted.flights.lock().is_empty());
    });
}

/// Pending once, and awake.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[test]
fn callers_of_the_same_compute_once_and_those_of_another_by_themselves() {
    // A cache is built within a runtime, which a cache of memory alone then has no use for.
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

fn value(byte: u8) -> Value {
    Value::new(&format!("precision {byte}"), &[]).unwrap()
}
