//! A seeded simulation drives the pure batcher with virtual time: bursts, deadlines, cancellations, failing batches.
//! Each entry must be answered exactly once, no bound may be exceeded, and the same seed must give the same trace.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sconce_batch::{Batcher, BatcherConfig, Entry, EntryId, Error, Layout, Ran, Step};

const ARRIVALS: usize = 100_000;
/// Items that a batch of full weight holds on average.
const FULL_BATCH: f64 = 1500.0 / 64.5;
/// A fifth of what a batch costs at least, and a little, because that is learned.
const MAX_LINGER: Duration = Duration::from_micros(1500);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Outcome {
    Answered,
    Failed,
    Expired,
    Cancelled,
    Refused,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival(usize),
    Cancellation(usize),
    /// A device has run these items.
    Completion {
        device: usize,
        items: Vec<usize>,
        weight: usize,
        run: Option<Duration>,
    },
    /// A lingering device asks again.
    Wake {
        device: usize,
    },
}

struct Simulation {
    rng: StdRng,
    start: Instant,
    now: Instant,
    batcher: Batcher<usize>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    scheduled: u64,
    devices: usize,
    /// Devices that sleep, the last to fall asleep on top.
    idle: Vec<usize>,
    ids: Vec<Option<EntryId>>,
    deadlines: Vec<Option<Instant>>,
    outcomes: Vec<Option<Outcome>>,
    trace: DefaultHasher,
    last_admitted_run: usize,
    learns: bool,
    batches: usize,
    in_time: usize,
}

impl Simulation {
    fn new(seed: u64, config: BatcherConfig, devices: usize) -> Self {
        let start = Instant::now();
        Self {
            rng: StdRng::seed_from_u64(seed),
            start,
            now: start,
            batcher: Batcher::new(start, config, Layout::Packed).expect("a valid configuration"),
            events: BinaryHeap::new(),
            scheduled: 0,
            devices,
            idle: (0..devices).collect(),
            ids: vec![None; ARRIVALS],
            deadlines: vec![None; ARRIVALS],
            outcomes: vec![None; ARRIVALS],
            trace: DefaultHasher::new(),
            last_admitted_run: 0,
            learns: true,
            batches: 0,
            in_time: 0,
        }
    }

    /// Runs all arrivals; `load` is their rate as a share of what the devices can do in full batches.
    fn run(mut self, load: f64) -> Self {
        let mean_gap = self.full_batch_cost().as_secs_f64() / (load * FULL_BATCH * self.devices as f64);
        let mut at = self.start;
        for item in 0..ARRIVALS {
            // Bursts: nine of ten come at once, the tenth after ten gaps.
            if item % 10 == 0 {
                at += Duration::from_secs_f64(-10.0 * mean_gap * (1.0 - self.rng.random::<f64>()).ln());
            }
            self.schedule(at, Event::Arrival(item));
        }
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            assert!(at >= self.now, "time runs forward");
            self.now = at;
            self.handle(event);
            self.check_bounds();
        }
        self.batcher.close();
        assert!(matches!(self.batcher.poll(self.now), Step::Finish), "nothing is left behind");
        self
    }

    fn full_batch_cost(&self) -> Duration {
        cost(self.batcher.config().max_batch_weight)
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival(item) => {
                self.arrive(item);
                // As the queue does it: one sleeping device is woken, and only if the arrival is a reason to.
                if self.batcher.is_due(self.now)
                    && let Some(device) = self.idle.pop()
                {
                    self.drive(device);
                }
            }
            Event::Cancellation(item) => {
                let id = self.ids[item].expect("only admitted items are cancelled");
                if let Some(payload) = self.batcher.cancel(id) {
                    assert_eq!(payload, item);
                    self.settle(item, Outcome::Cancelled);
                }
            }
            Event::Completion { device, items, weight, run } => {
                if self.learns {
                    self.batcher.completed(self.now, Ran { size: items.len(), weight, run });
                }
                // One item in 500 is bad: its batch fails, and run alone it fails again while its neighbours succeed.
                for item in items {
                    let in_time = self.deadlines[item].is_none_or(|deadline| self.now <= deadline);
                    self.in_time += usize::from(in_time && !is_bad(item));
                    self.settle(item, if is_bad(item) { Outcome::Failed } else { Outcome::Answered });
                }
                self.drive(device);
            }
            Event::Wake { device } => {
                if let Some(at) = self.idle.iter().position(|idle| *idle == device) {
                    self.idle.remove(at);
                    self.drive(device);
                }
            }
        }
    }

    fn arrive(&mut self, item: usize) {
        let weight = self.rng.random_range(1..=128);
        let patience = self.full_batch_cost() * self.rng.random_range(1..=8);
        let deadline = self.rng.random_bool(0.7).then(|| self.now + patience);
        match self.batcher.offer(self.now, item, weight, deadline) {
            Ok(id) => {
                self.ids[item] = Some(id);
                self.deadlines[item] = deadline;
                if self.rng.random_bool(0.1) {
                    let regret = self.full_batch_cost().mul_f64(self.rng.random_range(0.0..3.0));
                    self.schedule(self.now + regret, Event::Cancellation(item));
                }
            }
            Err(refused) => {
                assert!(matches!(
                    refused.error,
                    Error::QueueFull { .. }
                        | Error::QueueTooHeavy { .. }
                        | Error::TooHeavy { .. }
                        | Error::Overloaded { .. }
                ));
                assert_eq!(refused.payload, item);
                self.settle(item, Outcome::Refused);
            }
        }
    }

    /// What a device thread does: asks for work until it runs a batch or falls asleep.
    fn drive(&mut self, device: usize) {
        loop {
            match self.batcher.poll(self.now) {
                Step::Run(batch) => return self.start_batch(device, &batch),
                Step::Expire(entries) => {
                    assert!(!entries.is_empty());
                    for entry in entries {
                        assert!(entry.deadline.is_some(), "an entry without a deadline was dropped");
                        self.settle(entry.payload, Outcome::Expired);
                    }
                }
                Step::WaitUntil(at) => {
                    assert!(at > self.now && at <= self.now + self.batcher.config().max_queue_delay.max(MAX_LINGER));
                    self.idle.push(device);
                    return self.schedule(at, Event::Wake { device });
                }
                Step::Wait => {
                    assert!(self.batcher.is_empty(), "an idle device waits while work does");
                    return self.idle.push(device);
                }
                Step::Finish => panic!("finished before it was closed"),
            }
        }
    }

    fn start_batch(&mut self, device: usize, batch: &[Entry<usize>]) {
        let config = self.batcher.config();
        let weight: usize = batch.iter().map(|entry| entry.weight).sum();
        assert!((1..=config.max_batch_size).contains(&batch.len()));
        assert!(weight <= config.max_batch_weight);
        let items: Vec<usize> = batch.iter().map(|entry| entry.payload).collect();
        for &item in &items {
            assert!(item >= self.last_admitted_run, "first in, first out");
            self.last_admitted_run = item;
            assert!(self.deadlines[item].is_none_or(|deadline| deadline > self.now), "an expired entry ran");
            assert_eq!(self.outcomes[item], None, "a settled entry ran");
        }
        let run = cost(weight);
        let fails = items.len() > 1 && items.iter().any(|&item| is_bad(item));
        let busy = if fails {
            run + cost(weight / items.len()) * u32::try_from(items.len()).expect("a batch is small")
        } else {
            run
        };
        let run = (!fails).then_some(run);
        self.batches += 1;
        self.schedule(self.now + busy, Event::Completion { device, items, weight, run });
    }

    fn settle(&mut self, item: usize, outcome: Outcome) {
        assert_eq!(self.outcomes[item].replace(outcome), None, "item {item} was answered twice");
        (item, outcome, self.now - self.start).hash(&mut self.trace);
    }

    fn check_bounds(&self) {
        let config = self.batcher.config();
        assert!(self.batcher.len() <= config.max_queue_size);
        assert!(self.batcher.weight() <= config.max_queue_weight);
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.outcomes.iter().filter(|settled| **settled == Some(outcome)).count()
    }
}

/// A device like a GPU: a fixed cost and a little for each unit of weight.
fn cost(weight: usize) -> Duration {
    Duration::from_micros(5000 + 5 * weight as u64)
}

fn is_bad(item: usize) -> bool {
    item % 500 == 499
}

fn config(max_queue_delay: Duration) -> BatcherConfig {
    BatcherConfig {
        max_batch_size: 32,
        max_batch_weight: 1500,
        max_queue_size: 200,
        max_queue_weight: 10_000,
        max_queue_delay,
        ..BatcherConfig::default()
    }
}

#[test]
fn each_of_100_000_entries_is_answered_exactly_once_and_no_bound_is_exceeded() {
    for (seed, delay_ms, devices, load) in
        [(1, 0, 1, 0.5), (2, 0, 1, 1.5), (3, 0, 3, 1.2), (4, 3, 1, 0.3), (5, 3, 2, 1.5)]
    {
        let ran = Simulation::new(seed, config(Duration::from_millis(delay_ms)), devices).run(load);
        let counts = [Outcome::Answered, Outcome::Failed, Outcome::Expired, Outcome::Cancelled, Outcome::Refused]
            .map(|outcome| ran.count(outcome));
        println!(
            "seed {seed}: delay {delay_ms} ms, {devices} devices, load {load}: [answered, failed, expired, cancelled, \
             refused] = {counts:?}, {} answered in time, {} batches",
            ran.in_time, ran.batches
        );
        assert_eq!(counts.iter().sum::<usize>(), ARRIVALS, "every entry has one outcome");
        let (stats, [answered, failed, expired, cancelled, refused]) = (ran.batcher.stats(), counts.map(|n| n as u64));
        assert_eq!((stats.batched, stats.dropped, stats.cancelled), (answered + failed, expired, cancelled));
        assert_eq!((stats.admitted, stats.batches), (ARRIVALS as u64 - refused, ran.batches as u64));
        assert_eq!(stats.batch_sizes.iter().sum::<u64>(), stats.batches);
        assert!(counts[..4].iter().all(|&count| count > 0), "the run covers every outcome of an admitted entry");
        if load > 1.0 {
            assert!(counts[4] > 0, "an overloaded queue refuses");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| Simulation::new(seed, config(Duration::from_millis(1)), 2).run(0.9).trace.finish();
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn learning_what_a_batch_costs_answers_more_in_time_under_overload() {
    let run = |learns| Simulation { learns, ..Simulation::new(9, config(Duration::ZERO), 1) }.run(1.5);
    let (learned, plain) = (run(true).in_time, run(false).in_time);
    println!("{learned} in time, {plain} without learning");
    assert!(learned as f64 > 1.05 * plain as f64, "{learned} in time, {plain} without learning");
}
