//! A seeded simulation of a queue that a slow and a fast device drain, in virtual time: nothing is lost or left waiting, whatever
//! happens to the fast one, and which device takes what pays.

#![expect(clippy::unwrap_used, reason = "clippy knows the tests as tests, but not the functions they share")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sconce_batch::{Batcher, BatcherConfig, Entry, Layout, Line, Profile, Ran, Role, Step, Trouble};

/// A CPU and a GPU with a small model: they meet at a weight of 32.
const DEVICES: [Line; 2] =
    [Line { fixed: 0.000_2, per_weight: 0.000_05 }, Line { fixed: 0.001_8, per_weight: 0.000_000_5 }];

#[derive(Debug, Clone, Copy)]
struct Scenario {
    seed: u64,
    arrivals: usize,
    /// Items a second.
    rate: f64,
    /// Whether the queue is told what to expect of its devices, and so chooses.
    chooses: bool,
    /// Which devices there are.
    devices: [bool; 2],
    /// The batch in which the fast device is lost.
    lost_in: Option<usize>,
    /// The batch in which it takes a hundred times as long as it should.
    hangs_in: Option<usize>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Completion { device: usize },
    Wake { device: usize },
}

struct World {
    scenario: Scenario,
    rng: StdRng,
    start: Instant,
    now: Instant,
    batcher: Batcher<usize>,
    /// The devices by their places in the queue.
    lines: Vec<Line>,
    running: Vec<Option<(Vec<Entry<usize>>, Instant)>>,
    busy_until: Vec<Option<Instant>>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    scheduled: u64,
    arrived: usize,
    batches: Vec<usize>,
    answered: Vec<u32>,
    latencies: Vec<Duration>,
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let lines: Vec<Line> = DEVICES.into_iter().zip(scenario.devices).filter(|it| it.1).map(|it| it.0).collect();
        let profile = |line: &Line| Profile { estimate: scenario.chooses.then_some(*line), role: Role::Serves };
        let profiles: Vec<Profile> = lines.iter().map(profile).collect();
        let start = Instant::now();
        let config = BatcherConfig {
            max_queue_size: usize::MAX,
            max_queue_weight: BatcherConfig::MAX_WEIGHT,
            ..Default::default()
        };
        Self {
            rng: StdRng::seed_from_u64(scenario.seed),
            start,
            now: start,
            batcher: Batcher::on(start, config, Layout::Packed, &profiles).unwrap(),
            running: lines.iter().map(|_| None).collect(),
            busy_until: vec![None; lines.len()],
            batches: vec![0; lines.len()],
            lines,
            events: BinaryHeap::new(),
            scheduled: 0,
            arrived: 0,
            answered: vec![0; scenario.arrivals],
            latencies: Vec::new(),
            scenario,
        }
    }

    fn run(mut self) -> Self {
        self.schedule(self.start, Event::Arrival);
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Arrival => self.arrive(),
                Event::Completion { device } => self.complete(device),
                Event::Wake { device } if self.running[device].is_none() => self.drive(device),
                Event::Wake { .. } => {}
            }
        }
        assert!(self.batcher.is_empty(), "{} are left waiting", self.batcher.len());
        assert!(self.answered.iter().all(|answers| *answers == 1), "each is answered exactly once");
        self
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn arrive(&mut self) {
        let weight = 8 + self.rng.random_range(0..24);
        self.batcher.offer(self.now, self.arrived, weight, None).expect("the queue has no bound");
        self.arrived += 1;
        if self.arrived < self.scenario.arrivals {
            let gap = -self.rng.random_range(f64::EPSILON..1.0).ln() / self.scenario.rate;
            self.schedule(self.now + Duration::from_secs_f64(gap), Event::Arrival);
        }
        if self.batcher.is_due(self.now) {
            self.wake(None);
        }
    }

    /// As the queue does it: one that sleeps is woken, and it looks at once.
    fn wake(&mut self, looked: Option<usize>) {
        let asleep = self.running.iter().position(Option::is_none);
        let whom = if self.lines.len() == 1 {
            asleep.filter(|_| looked.is_none())
        } else {
            self.batcher.observe_load(self.busy_until.iter().copied());
            self.batcher.whom_to_wake(self.now, looked)
        };
        if let Some(device) = whom.filter(|device| self.running[*device].is_none()) {
            self.drive(device);
        }
    }

    fn drive(&mut self, device: usize) {
        self.batcher.observe_load(self.busy_until.iter().copied());
        match self.batcher.poll_on(self.now, device) {
            Step::Run(batch) => self.begin(device, batch),
            Step::Expire(_) => panic!("nobody is in a hurry"),
            Step::WaitUntil(at) => self.schedule(at, Event::Wake { device }),
            Step::Wait | Step::Finish => {}
        }
        if !self.batcher.is_empty() && self.batcher.is_due(self.now) {
            self.wake(Some(device));
        }
    }

    fn begin(&mut self, device: usize, batch: Vec<Entry<usize>>) {
        let weight = batch.iter().map(|entry| entry.weight).sum();
        let noise = self.rng.random_range(0.9..1.2);
        let hangs = device + 1 == self.lines.len() && self.scenario.hangs_in == Some(self.batches[device]);
        let seconds = self.lines[device].at(weight) * noise * if hangs { 100.0 } else { 1.0 };
        self.busy_until[device] = self.batcher.expected_end(device);
        self.batches[device] += 1;
        self.running[device] = Some((batch, self.now));
        self.schedule(self.now + Duration::from_secs_f64(seconds), Event::Completion { device });
    }

    fn complete(&mut self, device: usize) {
        let (batch, started) = self.running[device].take().expect("it runs");
        self.busy_until[device] = None;
        let size = batch.len();
        let weight = batch.iter().map(|entry| entry.weight).sum();
        let lost = device + 1 == self.lines.len() && self.scenario.lost_in == Some(self.batches[device]);
        if lost {
            self.batcher.trouble(self.now, device, Trouble::Lost { retry_after: None });
            self.batcher.give_back(batch);
            assert!(self.batcher.stranded(self.now).is_empty(), "the slow device is there");
        } else {
            for entry in batch {
                self.answered[entry.payload] += 1;
                self.latencies.push(self.now - entry.arrived);
            }
        }
        let run = (!lost).then(|| self.now - started);
        self.batcher.completed_on(self.now, device, Ran { size, weight, run });
        if self.batcher.is_empty() {
            return;
        }
        self.wake(Some(device));
        if self.running[device].is_none() {
            self.drive(device);
        }
    }

    fn mean_latency(&self) -> f64 {
        self.latencies.iter().map(Duration::as_secs_f64).sum::<f64>() / self.latencies.len() as f64
    }
}

fn scenario(rate: f64) -> Scenario {
    let (devices, seed) = ([true, true], 7);
    Scenario { seed, arrivals: 20_000, rate, chooses: true, devices, lost_in: None, hangs_in: None }
}

#[test]
fn choosing_beats_either_device_alone_and_whoever_is_idle_at_every_load() {
    for rate in [50.0, 200.0, 800.0, 2000.0, 5000.0, 8000.0] {
        let chosen = World::new(scenario(rate)).run();
        let whoever = World::new(Scenario { chooses: false, ..scenario(rate) }).run().mean_latency();
        let fast = World::new(Scenario { devices: [false, true], ..scenario(rate) }).run().mean_latency();
        let mean = chosen.mean_latency();
        println!(
            "{rate:5} items/s: {:.2} ms chosen ({} batches slow, {} fast), {:.2} ms whoever is idle, {:.2} ms fast alone",
            1e3 * mean,
            chosen.batches[0],
            chosen.batches[1],
            1e3 * whoever,
            1e3 * fast
        );
        assert!(mean <= 1.02 * whoever.min(fast), "{rate} items/s: {mean}, {whoever}, {fast}");
    }
}

#[test]
fn whatever_happens_to_the_fast_device_nothing_is_lost_or_left_waiting() {
    for seed in 0..40 {
        for rate in [100.0, 700.0, 3000.0] {
            let at = usize::try_from(seed).unwrap() * 3 + 1;
            let scenario = Scenario { seed, arrivals: 2000, ..scenario(rate) };
            let lost = World::new(Scenario { lost_in: Some(at), ..scenario }).run();
            assert_eq!(lost.batcher.stats().lost_devices, u64::from(lost.batches[1] >= at));
            let hung = World::new(Scenario { hangs_in: Some(at), ..scenario }).run();
            // What was in the batch that hung waited for it; nobody else waited as long, if the slow device can do it all.
            let bound = Duration::from_millis(150);
            let late = hung.latencies.iter().filter(|latency| **latency > bound).count();
            assert!(late <= 32 || rate > 700.0, "{late} waited for the device that hung, seed {seed}, {rate} items/s");
        }
    }
}
