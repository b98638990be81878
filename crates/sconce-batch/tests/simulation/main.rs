//! A seeded simulation that drives the pure decisions with virtual time: several queues on several devices, alike or
//! not; bursts, priorities, deadlines, cancellations, failing batches; a queue that closes in the middle; devices that
//! hang, run out of memory, are lost and come back. Each entry must be answered exactly once, no bound may be exceeded,
//! no entry may be left in a queue, and the same seed must give the same trace.

mod driver;
mod scenario;
mod world;

use std::time::Duration;

use scenario::{AGEING, Bounds, CPU, Device, GPU, Lost, Pace, Scenario};
use sconce_batch::{BatchLayout, Role};
use world::{Outcome, World};

const PACKED: &[BatchLayout] = &[BatchLayout::Packed];
const MIXED: &[BatchLayout] = &[BatchLayout::Packed, BatchLayout::Padded, BatchLayout::Packed];
const MS: Duration = Duration::from_millis(1);

fn scenario(seed: u64, load: f64) -> Scenario {
    Scenario {
        seed,
        arrivals: 50_000,
        pace: Pace::Bursts(load),
        weights: (1, 128),
        in_a_hurry: 0.7,
        cancelled: 0.1,
        bad_one_in: 500,
        bounds: Bounds::Narrow,
        max_queue_delay: Duration::ZERO,
        devices: &[GPU],
        chooses: false,
        queues: PACKED,
        closes_at: None,
        learns: true,
    }
}

fn check(scenario: Scenario) -> World {
    let arrivals = scenario.arrivals;
    let ran = World::new(scenario).run();
    let counts = Outcome::ALL.map(|outcome| ran.count(outcome));
    let batches: Vec<_> = ran.drivers.iter().map(|driver| driver.batches).collect();
    println!("{scenario:?}:\n  {:?} = {counts:?}, {} in time, {batches:?} batches", Outcome::ALL, ran.in_time);
    assert_eq!(counts.iter().sum::<usize>(), arrivals, "every entry has one outcome");
    let [answered, failed, expired, cancelled, refused, stranded] = counts.map(|count| count as u64);
    let total = |of: fn(&sconce_batch::Stats) -> u64| ran.queues.iter().map(|queue| of(queue.stats())).sum::<u64>();
    assert_eq!(total(|stats| stats.admitted), arrivals as u64 - refused);
    assert_eq!(total(|stats| stats.batched), answered + failed + total(|stats| stats.given_back));
    assert_eq!((total(|stats| stats.dropped), total(|stats| stats.cancelled)), (expired, cancelled));
    assert_eq!(total(|stats| stats.stranded), stranded);
    let batches = batches.iter().sum::<usize>() as u64;
    assert_eq!(total(|stats| stats.batches), batches);
    assert_eq!(total(|stats| stats.batch_sizes.iter().sum()), batches);
    ran
}

fn check_all_outcomes(scenario: Scenario) -> World {
    let ran = check(scenario);
    let common = Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Stranded);
    assert!(common.into_iter().all(|outcome| ran.count(outcome) > 0), "the run covers every outcome");
    ran
}

#[test]
fn each_of_a_million_entries_is_answered_exactly_once_and_no_bound_is_exceeded() {
    check_all_outcomes(Scenario {
        arrivals: 1_000_000,
        devices: &[GPU, GPU],
        queues: MIXED,
        closes_at: Some(700_000),
        ..scenario(1, 1.1)
    });
}

#[test]
fn so_it_is_below_and_above_capacity_with_fixed_delays_and_any_number_of_devices_and_queues() {
    let delay = |ms, scenario| Scenario { max_queue_delay: Duration::from_millis(ms), ..scenario };
    for scenario in [
        scenario(2, 0.7),
        scenario(3, 1.5),
        Scenario { devices: &[GPU; 3], ..scenario(4, 1.2) },
        delay(3, scenario(5, 0.6)),
        delay(3, Scenario { devices: &[GPU; 2], ..scenario(6, 1.5) }),
        Scenario { queues: &[BatchLayout::Padded], ..scenario(7, 1.2) },
        Scenario { queues: &[BatchLayout::Packed; 16], ..scenario(8, 1.2) },
        Scenario { queues: MIXED, devices: &[GPU; 4], closes_at: Some(25_000), ..scenario(9, 2.0) },
    ] {
        check_all_outcomes(scenario);
    }
}

/// Devices that hang, have little memory, are lost and come back, and one that is lost for ever.
const FAULTY: &[Device] = &[
    Device { memory: 600, lost: Lost::Sometimes(40, Duration::from_millis(150)), ..GPU },
    Device { lost: Lost::Sometimes(100, Duration::from_millis(400)), hangs_in: Some(50), ..CPU },
    Device { lost: Lost::ForEver(120), ..GPU },
    Device { role: Role::Standby, memory: 100, ..CPU },
];

#[test]
fn so_it_is_whatever_happens_to_unlike_devices() {
    for seed in 0..6 {
        for (queues, chooses, load) in
            [(PACKED, true, 0.5), (MIXED, true, 1.2), (MIXED, false, 0.9), (&[BatchLayout::Padded][..], true, 1.2)]
        {
            let scenario = Scenario {
                arrivals: 20_000,
                bad_one_in: 50,
                devices: FAULTY,
                chooses,
                queues,
                closes_at: Some(15_000),
                ..scenario(seed, load)
            };
            let ran = check_all_outcomes(scenario);
            let total = |of: fn(&sconce_batch::Stats) -> u64| ran.queues.iter().map(|it| of(it.stats())).sum::<u64>();
            let faults = [total(|it| it.lost_devices), total(|it| it.out_of_memory), total(|it| it.given_back)];
            assert!(faults.iter().all(|count| *count > 0), "{faults:?}");
        }
    }
}

#[test]
fn where_the_last_device_is_lost_what_waits_is_answered_and_the_rest_refused() {
    for (seed, queues) in [(1, PACKED), (2, MIXED), (3, MIXED)] {
        for devices in
            [&[Device { lost: Lost::ForEver(70), ..GPU }][..], &[Device { lost: Lost::ForEver(50), ..CPU }; 2]]
        {
            let scenario = Scenario { devices, queues, chooses: seed == 3, ..scenario(seed, 1.2) };
            let ran = check(scenario);
            assert!(ran.count(Outcome::Stranded) > 0);
            assert!(ran.count(Outcome::Refused) > scenario.arrivals / 2, "all that came afterwards");
        }
    }
}

const FLAKY: &[Device] = &[Device { memory: 500, lost: Lost::Sometimes(20, Duration::from_millis(300)), ..GPU }];

#[test]
fn the_only_device_may_come_and_go() {
    for seed in 0..4 {
        for (queues, closes_at) in [(PACKED, None), (MIXED, Some(30_000))] {
            let ran = check(Scenario { devices: FLAKY, queues, closes_at, ..scenario(seed, 0.8) });
            assert!(ran.count(Outcome::Answered) > 5_000, "it goes on after each loss");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed, devices| {
        World::new(Scenario { devices, chooses: true, queues: MIXED, ..scenario(seed, 0.9) }).run().trace()
    };
    for devices in [&[GPU; 2][..], FAULTY] {
        assert_eq!(trace(17, devices), trace(17, devices));
        assert_ne!(trace(17, devices), trace(18, devices));
    }
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
    let ran = World::new(Scenario { queues: &[BatchLayout::Packed], ..scenario(20, 0.95) }).run();
    let [high, normal, low] = ran.mean_waits();
    println!("mean waits by priority: {high:?}, {normal:?}, {low:?}");
    assert!(high < normal && normal < low, "{high:?}, {normal:?}, {low:?}");
    assert!(ran.longest_wait < 2 * AGEING + ran.longest_wait_of_the_highest, "{:?}", ran.longest_wait);
}

/// A GPU whose launches are cheap: it is faster than the CPU from a weight of about 32 on.
const SMALL_GPU: Device = Device { line: sconce_batch::CostLine { fixed: 0.001_8, per_weight: 0.000_000_5 }, ..GPU };

/// A scenario without deadlines, in which `rate` items arrive a second.
fn patient(rate: f64, devices: &'static [Device]) -> Scenario {
    Scenario {
        arrivals: 20_000,
        pace: Pace::Rate(rate),
        weights: (8, 31),
        in_a_hurry: 0.0,
        cancelled: 0.0,
        bad_one_in: usize::MAX,
        bounds: Bounds::None,
        devices,
        chooses: true,
        ..scenario(7, 1.0)
    }
}

#[test]
fn choosing_beats_either_device_alone_and_whichever_is_idle_at_every_load() {
    for rate in [50.0, 200.0, 800.0, 2000.0, 5000.0, 8000.0] {
        let both: &[Device] = &[CPU, SMALL_GPU];
        let chosen = World::new(patient(rate, both)).run();
        let idle = World::new(Scenario { chooses: false, ..patient(rate, both) }).run().mean_latency();
        let fast = World::new(patient(rate, &[SMALL_GPU])).run().mean_latency();
        let mean = chosen.mean_latency();
        println!(
            "{rate:5} items/s: {:.2} ms chosen ({} batches slow, {} fast), {:.2} ms whichever is idle, {:.2} ms fast alone",
            1e3 * mean,
            chosen.drivers[0].batches,
            chosen.drivers[1].batches,
            1e3 * idle,
            1e3 * fast
        );
        assert!(mean <= 1.02 * idle.min(fast), "{rate} items/s: {mean}, {idle}, {fast}");
    }
}

#[test]
fn only_the_batch_of_a_device_that_hangs_waits_for_it() {
    for seed in 0..40 {
        for rate in [100.0, 700.0] {
            let devices: &[Device] = match seed % 4 {
                0 => &[CPU, Device { hangs_in: Some(1), ..SMALL_GPU }],
                1 => &[CPU, Device { hangs_in: Some(10), ..SMALL_GPU }],
                2 => &[CPU, Device { hangs_in: Some(40), ..SMALL_GPU }],
                _ => &[CPU, Device { hangs_in: Some(100), ..SMALL_GPU }],
            };
            let hung = World::new(Scenario { seed, arrivals: 2000, ..patient(rate, devices) }).run();
            let late = hung.latencies.iter().filter(|latency| **latency > 150 * MS).count();
            assert!(late <= 32, "{late} waited for the device that hung, seed {seed}, {rate} items/s");
        }
    }
}
