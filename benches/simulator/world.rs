//! Virtual time: arrivals, one device, and what became of each request.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::policy::{Decision, Policy};

/// How long a client of a closed loop takes to come back.
const RETURN_TIME: Duration = Duration::from_micros(200);

/// A batch of n items takes `fixed_us + n · per_item_us` microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    pub(crate) fixed_us: u64,
    pub(crate) per_item_us: u64,
}

impl Cost {
    fn of(self, items: usize) -> Duration {
        Duration::from_micros(self.fixed_us + self.per_item_us * items as u64)
    }

    /// Requests per second in the largest batches that take no longer than `time`.
    pub(crate) fn rate_of_batches_within(self, time: Duration) -> f64 {
        let items = (time.as_micros() as f64 - self.fixed_us as f64) / self.per_item_us as f64;
        items.floor() / time.as_secs_f64()
    }
}

/// Who sends requests.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// Independent requests at a mean rate.
    Poisson { rate: f64 },
    /// Each client sends its next request once it has the answer to its last.
    Closed { clients: usize },
}

/// What became of the requests. The first tenth, in which policies still learn, is left out.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    requests: usize,
    in_time: usize,
    latency: Duration,
    answered: usize,
    elapsed: Duration,
}

impl Outcome {
    /// The share of all requests that was answered in time.
    pub(crate) fn in_time(&self) -> f64 {
        self.in_time as f64 / self.requests as f64
    }

    /// Of those that were answered.
    pub(crate) fn mean_latency(&self) -> Duration {
        self.latency.div_f64(self.answered as f64)
    }

    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Completion(Vec<usize>),
    Wake,
}

struct World<'a> {
    policy: &'a mut dyn Policy,
    cost: Cost,
    load: Load,
    slo: Duration,
    rng: StdRng,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    scheduled: u64,
    arrivals: Vec<Instant>,
    requests: usize,
    warm_up: usize,
    idle: bool,
    settled: usize,
    outcome: Outcome,
    measured_from: Option<Instant>,
}

/// Runs `requests` requests to their end. The same seed gives the same outcome.
pub(crate) fn simulate(
    policy: &mut dyn Policy,
    cost: Cost,
    load: Load,
    slo: Duration,
    requests: usize,
    seed: u64,
) -> Outcome {
    let now = Instant::now();
    let mut world = World {
        policy,
        cost,
        load,
        slo,
        rng: StdRng::seed_from_u64(seed),
        now,
        events: BinaryHeap::new(),
        scheduled: 0,
        arrivals: Vec::with_capacity(requests),
        requests,
        warm_up: requests / 10,
        idle: true,
        settled: 0,
        outcome: Outcome::default(),
        measured_from: None,
    };
    match load {
        Load::Poisson { .. } => world.schedule_next_arrival(),
        Load::Closed { clients } => (0..clients).for_each(|_| world.schedule(now, Event::Arrival)),
    }
    world.run();
    assert_eq!(world.settled, world.arrivals.len(), "every request has one end");
    world.outcome
}

impl World<'_> {
    fn run(&mut self) {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Arrival => {
                    self.arrive();
                    if !self.policy.is_due(self.now) {
                        continue;
                    }
                }
                Event::Completion(items) => {
                    self.policy.completed(self.now, items.len(), self.cost.of(items.len()));
                    self.idle = true;
                    for item in items {
                        self.settle(item, true);
                    }
                }
                Event::Wake => {}
            }
            self.dispatch();
        }
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn schedule_next_arrival(&mut self) {
        let Load::Poisson { rate } = self.load else { return };
        let gap = -(1.0 - self.rng.random::<f64>()).ln() / rate;
        self.schedule(self.now + Duration::from_secs_f64(gap), Event::Arrival);
    }

    fn arrive(&mut self) {
        if self.arrivals.len() == self.requests {
            return;
        }
        let item = self.arrivals.len();
        self.arrivals.push(self.now);
        if item == self.warm_up {
            self.measured_from = Some(self.now);
        }
        self.schedule_next_arrival();
        // Clients of a closed loop wait as long as it takes.
        let deadline = matches!(self.load, Load::Poisson { .. }).then(|| self.now + self.slo);
        if !self.policy.offer(self.now, item, deadline) {
            self.settle(item, false);
        }
    }

    fn dispatch(&mut self) {
        while self.idle {
            match self.policy.decide(self.now) {
                Decision::Run(items) => {
                    self.idle = false;
                    self.schedule(self.now + self.cost.of(items.len()), Event::Completion(items));
                }
                Decision::Drop(items) => items.into_iter().for_each(|item| self.settle(item, false)),
                Decision::WaitUntil(at) => return self.schedule(at, Event::Wake),
                Decision::Wait => return,
            }
        }
    }

    fn settle(&mut self, item: usize, answered: bool) {
        self.settled += 1;
        if matches!(self.load, Load::Closed { .. }) {
            self.schedule(self.now + RETURN_TIME, Event::Arrival);
        }
        let Some(measured_from) = self.measured_from.filter(|_| item >= self.warm_up) else { return };
        let latency = self.now - self.arrivals[item];
        self.outcome.requests += 1;
        self.outcome.elapsed = self.now - measured_from;
        if answered {
            self.outcome.answered += 1;
            self.outcome.latency += latency;
            self.outcome.in_time += usize::from(latency <= self.slo);
        }
    }
}
