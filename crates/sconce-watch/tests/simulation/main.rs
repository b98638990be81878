//! The watch in simulated hours and days, seeded and in virtual time. `-- --nocapture` prints the figures.

mod world;

use std::collections::BTreeMap;

use sconce_watch::{CostPart, Degradation, DegradationEvent, WatchedStage};
use world::{Costs, Moment, Slower, World};

const SEEDS: u64 = 20;
/// Time that a scenario runs before anything changes.
const USUAL: f64 = 900.0;

/// A small model: half of a batch's cost is fixed at the usual load.
const SMALL: Costs = Costs { fixed: 3e-3, per_weight: 45e-6, prepare: 1e-3, prepare_per_weight: 40e-6, finish: 400e-6 };
/// A large model on a CPU.
const LARGE: Costs =
    Costs { fixed: 15e-3, per_weight: 0.6e-3, prepare: 60e-6, prepare_per_weight: 2e-6, finish: 40e-6 };

fn steady(slower: Slower) -> Moment {
    Moment { rate: 60.0, length: 48.0, hits: 0.3, errors: 0.001, slower }
}

/// A factor that grows by 1 % of the beginning each minute.
fn growing(at: f64) -> f64 {
    1.0 + 0.01 * ((at - USUAL) / 60.0).max(0.0)
}

fn stepping(at: f64) -> f64 {
    if at < USUAL { 1.0 } else { 1.2 }
}

fn p99(latencies: &[(f64, f64)], from: f64, to: f64) -> f64 {
    let mut within: Vec<f64> =
        latencies.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, took)| *took).collect();
    within.sort_unstable_by(f64::total_cmp);
    within[within.len() * 99 / 100]
}

fn began(reports: &[world::Report]) -> Option<(f64, Degradation)> {
    reports.iter().find_map(|(at, event)| match event {
        DegradationEvent::Began(degradation) => Some((*at, *degradation)),
        DegradationEvent::Ended(_) => None,
    })
}

struct Slowdown {
    name: &'static str,
    slower: fn(f64) -> Slower,
    stage: WatchedStage,
    part: Option<CostPart>,
}

const SLOWDOWNS: [Slowdown; 5] = [
    Slowdown {
        name: "run, a",
        slower: |factor| Slower { fixed: factor, ..Slower::NOTHING },
        stage: WatchedStage::Run,
        part: Some(CostPart::Fixed),
    },
    Slowdown {
        name: "run, c",
        slower: |factor| Slower { per_weight: factor, ..Slower::NOTHING },
        stage: WatchedStage::Run,
        part: Some(CostPart::PerWeight),
    },
    Slowdown {
        name: "run, a and c",
        slower: |factor| Slower { fixed: factor, per_weight: factor, ..Slower::NOTHING },
        stage: WatchedStage::Run,
        part: Some(CostPart::Both),
    },
    Slowdown {
        name: "prepare",
        slower: |factor| Slower { prepare: factor, ..Slower::NOTHING },
        stage: WatchedStage::Prepare,
        part: None,
    },
    Slowdown {
        name: "finish",
        slower: |factor| Slower { finish: factor, ..Slower::NOTHING },
        stage: WatchedStage::Finish,
        part: None,
    },
];

#[test]
fn a_slowdown_of_one_percent_a_minute_is_reported_before_p99_has_risen_by_a_quarter_and_names_the_stage() {
    for Slowdown { name, slower, stage, part } in SLOWDOWNS {
        let mut delays = Vec::new();
        let (mut rises, mut parts) = (Vec::new(), Vec::new());
        for seed in 0..SEEDS {
            let mut world = World::new(seed, SMALL, |at| steady(slower(growing(at))));
            world.run_until(USUAL);
            assert_eq!(world.reports, [], "{name}, seed {seed}: nothing has changed yet");
            let mut end = USUAL;
            while world.reports.is_empty() && end < USUAL + 3600.0 {
                end += 10.0;
                world.run_until(end);
            }
            let (at, degradation) = began(&world.reports).unwrap_or_else(|| panic!("{name}, seed {seed}: no report"));
            let rise = p99(&world.latencies, at - 120.0, at) / p99(&world.latencies, 0.0, USUAL);
            assert_eq!(degradation.stage, stage, "{name}, seed {seed}: {degradation:?}");
            assert!(rise < 1.25, "{name}, seed {seed}: p99 had risen {rise}-fold after {} s", at - USUAL);
            delays.push(at - USUAL);
            rises.push(rise);
            // The part is told when it is sure, and never wrongly.
            let known = |world: &World<_>| world.watch.degradations().first().and_then(|found| found.part);
            while part.is_some() && known(&world).is_none() && end < USUAL + 3600.0 {
                end += 10.0;
                world.run_until(end);
            }
            let rise = p99(&world.latencies, end - 120.0, end) / p99(&world.latencies, 0.0, USUAL);
            assert_eq!(known(&world), part, "{name}, seed {seed}: {:?}", world.watch.degradations());
            assert!(rise < 1.25, "{name}, seed {seed}: p99 had risen {rise}-fold before its part was known");
            let blamed = world.reports.iter().map(|(_, event)| match event {
                DegradationEvent::Began(degradation) | DegradationEvent::Ended(degradation) => degradation.stage,
            });
            assert!(blamed.into_iter().all(|blamed| blamed == stage), "{name}, seed {seed}: {:?}", world.reports);
            parts.push(end - USUAL);
        }
        print_spread(&format!("{name}: 1 % a minute, delay in s"), &mut delays);
        if part.is_some() {
            print_spread(&format!("{name}: 1 % a minute, time until the part is told in s"), &mut parts);
        }
        print_spread(&format!("{name}: 1 % a minute, p99 of the last 2 min / before"), &mut rises);
    }
}

#[test]
fn a_step_of_a_fifth_is_reported_within_seconds_and_its_end_as_well() {
    for Slowdown { name, slower, stage, .. } in SLOWDOWNS.into_iter().skip(2) {
        let (mut delays, mut ends, mut errors, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for seed in 0..SEEDS {
            let until = USUAL + 600.0;
            let factor = |at: f64| if at < until { stepping(at) } else { 1.0 };
            let mut world = World::new(seed, SMALL, |at| steady(slower(factor(at))));
            world.run_until(until);
            let [(at, DegradationEvent::Began(began))] = world.reports[..] else {
                panic!("{name}, seed {seed}: {:?}", world.reports)
            };
            assert_eq!(began.stage, stage, "{name}, seed {seed}");
            let now = world.watch.degradations();
            assert!((now[0].ratio() - 1.2).abs() < 0.03, "{name}, seed {seed}: {now:?}");
            ratios.push(now[0].ratio());
            world.run_until(until + 240.0);
            let [_, (end, DegradationEvent::Ended(ended))] = world.reports[..] else {
                panic!("{name}, seed {seed}: {:?}", world.reports)
            };
            assert_eq!(ended.since, began.since, "{name}, seed {seed}");
            assert!(world.watch.degradations().is_empty());
            delays.push(at - USUAL);
            errors.push(at - (began.reported - began.since).as_secs_f64() - USUAL);
            ends.push(end - until);
        }
        assert!(delays.iter().all(|delay| *delay < 30.0), "{name}: {delays:?}");
        print_spread(&format!("{name}: step of 20 %, delay in s"), &mut delays);
        print_spread(&format!("{name}: step of 20 %, estimated - true beginning in s"), &mut errors);
        print_spread(&format!("{name}: step of 20 %, reported ratio"), &mut ratios);
        print_spread(&format!("{name}: recovery, delay in s"), &mut ends);
    }
}

#[test]
fn a_day_of_noise_with_changing_load_lengths_bursts_and_hits_gives_no_alarm() {
    let seeds = std::env::var("SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number"));
    let day = |at: f64| {
        let hour = at / 3600.0;
        let curve = 0.5 - 0.5 * (hour * std::f64::consts::TAU / 24.0).cos();
        Moment {
            rate: 1.0 + 7.0 * curve,
            length: 24.0 * 4.0_f64.powf(0.5 + 0.5 * (hour * std::f64::consts::TAU / 11.0).sin()),
            hits: 0.1 + 0.5 * curve,
            errors: 0.001,
            slower: Slower::NOTHING,
        }
    };
    let mut alarms = BTreeMap::new();
    let (mut requests, mut days) = (0, 0.0);
    std::thread::scope(|scope| {
        let halves: Vec<_> = (0..2)
            .map(|half| {
                scope.spawn(move || {
                    (half..seeds)
                        .step_by(2)
                        .map(|seed| {
                            let mut world = World::new(seed, LARGE, day);
                            world.run_until(86_400.0);
                            (seed, world.reports, world.latencies.len())
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for (seed, reports, answered) in halves.into_iter().flat_map(|half| half.join().expect("no panic")) {
            requests += answered;
            days += 1.0;
            if !reports.is_empty() {
                alarms.insert(seed, reports);
            }
        }
    });
    println!("noise: {days} days, {requests} requests, {} days with an alarm", alarms.len());
    assert!(alarms.is_empty(), "{alarms:#?}");
}

fn print_spread(name: &str, values: &mut [f64]) {
    values.sort_unstable_by(f64::total_cmp);
    let [least, median, most] = [0, values.len() / 2, values.len() - 1].map(|at| values[at]);
    println!("{name}: median {median:.2}, {least:.2} to {most:.2}, of {} runs", values.len());
}
