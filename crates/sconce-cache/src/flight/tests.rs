use std::task::Poll;

use super::*;

/// Flights whose terms are numbers: the greater is the better.
type TestFlights = Flights<u32, u8>;

fn key() -> Key {
    Key::from_bytes([7; 32])
}

fn lead(flights: &TestFlights) -> Lead<u32, u8> {
    match flights.board(key(), 0) {
        Boarded::Leads(lead) => lead,
        Boarded::Waits(_) => panic!("another leads"),
    }
}

fn waiting(flights: &TestFlights, terms: u8) -> FlightWaiter<u32, u8> {
    match flights.board(key(), terms) {
        Boarded::Leads(_) => panic!("nobody leads"),
        Boarded::Waits(waiting) => waiting,
    }
}

/// The outcome that a follower has got, if any.
fn received(waiting: &mut FlightWaiter<u32, u8>) -> Option<FollowerOutcome<u32, u8>> {
    waiting.received.try_recv().ok()
}

fn leads(waiting: &mut FlightWaiter<u32, u8>) -> Lead<u32, u8> {
    match received(waiting) {
        Some(FollowerOutcome::Leads(lead)) => lead,
        Some(FollowerOutcome::Landed(outcome)) => panic!("{outcome} landed"),
        None => panic!("it still waits"),
    }
}

fn landed(waiting: &mut FlightWaiter<u32, u8>) -> Option<u32> {
    match received(waiting) {
        Some(FollowerOutcome::Landed(outcome)) => Some(outcome),
        Some(FollowerOutcome::Leads(_)) => panic!("it leads"),
        None => None,
    }
}

#[tokio::test]
async fn those_who_wait_get_what_lands_and_the_next_one_leads_again() {
    let flights = TestFlights::new();
    let first = lead(&flights);
    let (mut one, other) = (waiting(&flights, 0), waiting(&flights, 0));
    assert!(received(&mut one).is_none());
    first.land(&5);
    for waiting in [one, other] {
        assert!(matches!(waiting.outcome().await, FollowerOutcome::Landed(5)));
    }
    lead(&flights);
}

#[test]
fn a_leader_that_goes_away_hands_over_to_the_best_terms_and_among_equals_to_who_waited_longest() {
    let flights = TestFlights::new();
    let first = lead(&flights);
    let mut poor = waiting(&flights, 1);
    let (mut good, mut as_good) = (waiting(&flights, 2), waiting(&flights, 2));
    drop(first);
    let second = leads(&mut good);
    assert!(received(&mut as_good).is_none() && received(&mut poor).is_none());
    drop(second);
    let third = leads(&mut as_good);
    assert!(received(&mut poor).is_none());
    third.land(&6);
    assert_eq!(landed(&mut poor), Some(6));
}

#[test]
fn an_outcome_for_some_terms_comes_to_all_of_them_at_once_and_the_best_of_the_others_leads() {
    let flights = TestFlights::new();
    let first = lead(&flights);
    let mut concerned: Vec<_> = (0..500).map(|_| waiting(&flights, 1)).collect();
    let (mut better, mut best) = (waiting(&flights, 2), waiting(&flights, 3));
    first.land_where(&7, |terms| *terms < 2);
    for waiting in &mut concerned {
        assert_eq!(landed(waiting), Some(7));
    }
    let second = leads(&mut best);
    assert!(received(&mut better).is_none(), "only one works at a time");
    second.land_where(&8, |_| true);
    assert_eq!(landed(&mut better), Some(8));
    drop((concerned, better, best));
    assert!(lock(&flights.listed).flights.is_empty());
}

#[test]
fn a_caller_that_comes_after_an_outcome_for_some_starts_anew_or_waits_for_the_one_that_leads_now() {
    let flights = TestFlights::new();
    lead(&flights).land_where(&1, |_| true);
    let again = lead(&flights);
    let mut better = waiting(&flights, 9);
    again.land_where(&2, |terms| *terms < 9);
    let second = leads(&mut better);
    let mut late = waiting(&flights, 0);
    second.land(&3);
    assert_eq!(landed(&mut late), Some(3));
}

#[test]
fn one_who_waits_no_longer_leaves_nothing_behind() {
    let flights = TestFlights::new();
    let first = lead(&flights);
    drop(waiting(&flights, 0));
    assert!(lock(&flights.listed).flights[&key()].is_empty());
    first.land(&1);
    assert!(lock(&flights.listed).flights.is_empty());
}

#[test]
fn a_flight_that_all_leave_is_forgotten() {
    let flights = TestFlights::new();
    let first = lead(&flights);
    let waiting = waiting(&flights, 0);
    drop(first);
    assert!(!lock(&flights.listed).flights.is_empty(), "it is the waiting one's turn");
    drop(waiting);
    assert!(lock(&flights.listed).flights.is_empty());
}

#[test]
fn a_turn_that_comes_to_one_who_has_gone_passes_on() {
    let flights = TestFlights::new();
    let first = lead(&flights);
    let (mut gone, mut next) = (waiting(&flights, 1), waiting(&flights, 0));
    gone.received.close();
    drop(first);
    leads(&mut next).land(&1);
    drop(gone);
    assert!(lock(&flights.listed).flights.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_come_and_go_leave_nothing_behind_and_none_waits_for_ever() {
    let flights = Arc::new(TestFlights::new());
    let callers = (0..2000_u32).map(|number| {
        let flights = Arc::clone(&flights);
        tokio::spawn(async move {
            let work = async {
                let key = Key::from_bytes([(number % 3) as u8; 32]);
                let outcome = match flights.board(key, (number % 4) as u8) {
                    Boarded::Leads(lead) => FollowerOutcome::Leads(lead),
                    Boarded::Waits(waiting) => waiting.outcome().await,
                };
                let FollowerOutcome::Leads(lead) = outcome else { return };
                tokio::task::yield_now().await;
                // Some leaders leave without an outcome, some land one for all followers, some for a few.
                match number % 5 {
                    0 => drop(lead),
                    1 => lead.land_where(&number, |terms| *terms < 2),
                    _ => lead.land(&number),
                }
            };
            // Some callers go away at once, some after a few polls; most stay.
            match number % 7 {
                0 => drop(polled_once(&mut Box::pin(work)).await),
                1 => {
                    let mut work = Box::pin(work);
                    for _ in 0..3 {
                        if polled_once(&mut work).await.is_ready() {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                }
                _ => work.await,
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert!(lock(&flights.listed).flights.is_empty());
}

/// Polls a future once and returns the result.
async fn polled_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *future).poll(context))).await
}
