//! A seeded simulation drives the pure decisions with virtual time: several queues on several devices, bursts, priorities,
//! deadlines, cancellations, failing batches, a queue that closes in the middle. Each entry must be answered exactly once, no
//! bound may be exceeded, and the same seed must give the same trace.

mod world;

use std::time::Duration;

use sconce_batch::Layout;
use world::{Outcome, Scenario, World};

const PACKED: &[Layout] = &[Layout::Packed];
const MIXED: &[Layout] = &[Layout::Packed, Layout::Padded, Layout::Packed];

fn scenario(seed: u64, load: f64) -> Scenario {
    Scenario {
        seed,
        arrivals: 50_000,
        load,
        max_queue_delay: Duration::ZERO,
        devices: 1,
        queues: PACKED,
        closes_at: None,
        learns: true,
    }
}

fn check(scenario: Scenario) -> World {
    let arrivals = scenario.arrivals;
    let ran = World::new(scenario).run();
    let counts = Outcome::ALL.map(|outcome| ran.count(outcome));
    println!("{scenario:?}:\n  {:?} = {counts:?}, {} in time, {} batches", Outcome::ALL, ran.in_time, ran.batches);
    assert_eq!(counts.iter().sum::<usize>(), arrivals, "every entry has one outcome");
    let [answered, failed, expired, cancelled, refused] = counts.map(|count| count as u64);
    let total = |of: fn(&sconce_batch::Stats) -> u64| ran.queues.iter().map(|queue| of(queue.stats())).sum::<u64>();
    assert_eq!(total(|stats| stats.admitted), arrivals as u64 - refused);
    assert_eq!(total(|stats| stats.batched), answered + failed);
    assert_eq!((total(|stats| stats.dropped), total(|stats| stats.cancelled)), (expired, cancelled));
    assert_eq!(total(|stats| stats.batches), ran.batches as u64);
    assert_eq!(total(|stats| stats.batch_sizes.iter().sum()), ran.batches as u64);
    assert!(counts.iter().all(|count| *count > 0), "the run covers every outcome");
    ran
}

#[test]
fn each_of_a_million_entries_is_answered_exactly_once_and_no_bound_is_exceeded() {
    check(Scenario { arrivals: 1_000_000, devices: 2, queues: MIXED, closes_at: Some(700_000), ..scenario(1, 1.1) });
}

#[test]
fn so_it_is_below_and_above_capacity_with_fixed_delays_and_any_number_of_devices_and_queues() {
    let delay = |ms, scenario| Scenario { max_queue_delay: Duration::from_millis(ms), ..scenario };
    for scenario in [
        scenario(2, 0.7),
        scenario(3, 1.5),
        Scenario { devices: 3, ..scenario(4, 1.2) },
        delay(3, scenario(5, 0.6)),
        delay(3, Scenario { devices: 2, ..scenario(6, 1.5) }),
        Scenario { queues: &[Layout::Padded], ..scenario(7, 1.2) },
        Scenario { queues: &[Layout::Packed; 16], ..scenario(8, 1.2) },
        Scenario { queues: MIXED, devices: 4, closes_at: Some(25_000), ..scenario(9, 2.0) },
    ] {
        check(scenario);
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| World::new(Scenario { devices: 2, queues: MIXED, ..scenario(seed, 0.9) }).run().trace();
    assert_eq!(trace(17), trace(17));
    assert_ne!(trace(17), trace(18));
}

#[test]
fn learning_what_a_batch_costs_answers_more_in_time_under_overload() {
    let run = |learns| World::new(Scenario { learns, ..scenario(19, 1.5) }).run().in_time;
    let (learned, plain) = (run(true), run(false));
    println!("{learned} in time, {plain} without learning");
    assert!(learned as f64 > 1.03 * plain as f64, "{learned} in time, {plain} without learning");
}

#[test]
fn higher_priorities_are_answered_sooner_and_the_lowest_are_not_starved() {
    let ran = World::new(Scenario { queues: &[Layout::Packed], ..scenario(20, 0.95) }).run();
    let [high, normal, low] = ran.mean_waits();
    println!("mean waits by priority: {high:?}, {normal:?}, {low:?}");
    assert!(high < normal && normal < low, "{high:?}, {normal:?}, {low:?}");
    assert!(ran.longest_wait < 2 * world::AGEING + ran.longest_wait_of_the_highest, "{:?}", ran.longest_wait);
}
