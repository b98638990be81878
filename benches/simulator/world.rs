//! Virtual time: arrivals for some models, one device that they share, and the outcome of each request.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::policy::{Decision, Policy};

/// Time until a client of a closed loop comes back.
const RETURN_TIME: Duration = Duration::from_micros(200);
/// Requests in a burst, on average.
const MEAN_BURST: usize = 10;

/// Cost of a batch: n items take `fixed + n · per_item`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) name: &'static str,
    pub(crate) fixed: Duration,
    pub(crate) per_item: Duration,
}

impl Cost {
    pub(crate) fn of(self, items: usize) -> Duration {
        self.fixed + self.per_item.mul_f64(items as f64)
    }

    /// Items of the largest batch that takes no longer than `time`.
    pub(crate) fn items_within(self, time: Duration) -> usize {
        let items = time.saturating_sub(self.fixed).as_nanos() / self.per_item.as_nanos();
        usize::try_from(items).unwrap_or(usize::MAX)
    }

    /// Requests per second in the largest batches that take no longer than `time`.
    pub(crate) fn rate_of_batches_within(self, time: Duration) -> f64 {
        self.items_within(time) as f64 / time.as_secs_f64()
    }
}

/// The arrivals of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Load {
    /// Independent requests at a mean rate per second, each for any of the models.
    Poisson { rate: f64 },
    /// Bursts at random times: of ten requests on average, all for one model.
    Bursty { rate: f64 },
    /// Each client sends its next request, always for the same model, once it has the answer to its last.
    Closed { clients: usize },
}

/// A case to simulate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// Cost of every model's batches.
    pub(crate) cost: Cost,
    pub(crate) models: usize,
    pub(crate) load: Load,
    /// Time that open load gives each request; closed load has no deadline.
    pub(crate) slo: Duration,
    pub(crate) requests: usize,
    pub(crate) seed: u64,
}

/// A request as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) item: usize,
    pub(crate) model: usize,
    pub(crate) deadline: Option<Instant>,
}

/// Outcomes of the requests. The first tenth, in which policies still learn, is not counted.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    requests: usize,
    in_time: usize,
    dropped: usize,
    answered: usize,
    latency: Duration,
    elapsed: Duration,
    /// Answers in time by model.
    by_model: Vec<usize>,
}

impl Outcome {
    /// Share of all requests that were answered in time.
    pub(crate) fn in_time(&self) -> f64 {
        self.in_time as f64 / self.requests as f64
    }

    /// Share of all requests that were admitted and then not answered.
    pub(crate) fn dropped(&self) -> f64 {
        self.dropped as f64 / self.requests as f64
    }

    /// Mean latency of the answered requests.
    pub(crate) fn mean_latency(&self) -> Duration {
        self.latency.div_f64(self.answered as f64)
    }

    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }

    /// Answers in time of the model with the fewest, as a share of those of the model with the most; `None` without any.
    pub(crate) fn fairness(&self) -> Option<f64> {
        let most = self.by_model.iter().max().filter(|most| **most > 0)?;
        Some(*self.by_model.iter().min()? as f64 / *most as f64)
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Arrival of a request for this model, or of a burst of `requests`.
    Arrival {
        model: usize,
        requests: usize,
    },
    Completion {
        model: usize,
        items: Vec<usize>,
    },
    Wake,
}

enum End {
    Answered,
    Refused,
    Dropped,
}

struct World<'a> {
    policy: &'a mut dyn Policy,
    scenario: Scenario,
    rng: StdRng,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    scheduled: u64,
    /// Arrival times of open load, the latest first.
    timetable: Vec<Instant>,
    /// Arrival time of each request, and its model.
    arrivals: Vec<(Instant, usize)>,
    idle: bool,
    settled: usize,
    outcome: Outcome,
    measured_from: Option<Instant>,
}

/// Simulates all requests to their end. The same seed gives the same outcome.
pub(crate) fn simulate(policy: &mut dyn Policy, scenario: Scenario, now: Instant) -> Outcome {
    let mut world = World {
        policy,
        scenario,
        rng: StdRng::seed_from_u64(scenario.seed),
        now,
        events: BinaryHeap::new(),
        scheduled: 0,
        timetable: Vec::new(),
        arrivals: Vec::with_capacity(scenario.requests),
        idle: true,
        settled: 0,
        outcome: Outcome { by_model: vec![0; scenario.models], ..Outcome::default() },
        measured_from: None,
    };
    match scenario.load {
        Load::Closed { clients } => {
            (0..clients).for_each(|client| world.schedule_arrival(now, client % scenario.models, 1));
        }
        Load::Poisson { rate } => world.open(rate, 1),
        Load::Bursty { rate } => world.open(rate, MEAN_BURST),
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
                Event::Arrival { model, requests } => {
                    self.schedule_next_arrival();
                    for _ in 0..requests {
                        self.arrive(model);
                    }
                    if !self.policy.is_due(self.now, model) {
                        continue;
                    }
                }
                Event::Completion { model, items } => {
                    self.policy.completed(self.now, model, items.len(), self.scenario.cost.of(items.len()));
                    self.idle = true;
                    for item in items {
                        self.settle(item, &End::Answered);
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

    fn schedule_arrival(&mut self, at: Instant, model: usize, requests: usize) {
        self.schedule(at, Event::Arrival { model, requests });
    }

    /// Schedules all requests at exactly this rate: Poisson arrivals of a known number come at independent, uniformly
    /// distributed times.
    fn open(&mut self, rate: f64, mean_burst: usize) {
        let requests = self.scenario.requests;
        let (begin, length) = (self.now, requests as f64 / rate);
        let at = |share: f64| begin + Duration::from_secs_f64(share * length);
        self.timetable = (0..requests / mean_burst).map(|_| at(self.rng.random())).collect();
        self.timetable.sort_unstable_by(|a, b| b.cmp(a));
        self.schedule_next_arrival();
    }

    /// Schedules the next arrival of open load.
    fn schedule_next_arrival(&mut self) {
        let Some(at) = self.timetable.pop() else { return };
        let requests = if matches!(self.scenario.load, Load::Bursty { .. }) { self.burst() } else { 1 };
        let model = self.rng.random_range(0..self.scenario.models);
        self.schedule_arrival(at, model, requests);
    }

    /// A geometrically distributed number of requests.
    fn burst(&mut self) -> usize {
        1 + std::iter::repeat_with(|| self.rng.random_bool(1.0 - 1.0 / MEAN_BURST as f64))
            .take_while(|more| *more)
            .count()
    }

    fn arrive(&mut self, model: usize) {
        let item = self.arrivals.len();
        if item >= self.scenario.requests {
            return;
        }
        self.arrivals.push((self.now, model));
        if item == self.warm_up() {
            self.measured_from = Some(self.now);
        }
        let deadline = (!matches!(self.scenario.load, Load::Closed { .. })).then(|| self.now + self.scenario.slo);
        if !self.policy.offer(self.now, Request { item, model, deadline }) {
            self.settle(item, &End::Refused);
        }
    }

    fn dispatch(&mut self) {
        while self.idle {
            match self.policy.decide(self.now) {
                Decision::Run { model, items } => {
                    self.idle = false;
                    let end = self.now + self.scenario.cost.of(items.len());
                    self.schedule(end, Event::Completion { model, items });
                }
                Decision::Drop(items) => items.into_iter().for_each(|item| self.settle(item, &End::Dropped)),
                Decision::WaitUntil(at) => return self.schedule(at, Event::Wake),
                Decision::Wait => return,
            }
        }
    }

    fn warm_up(&self) -> usize {
        self.scenario.requests / 10
    }

    fn settle(&mut self, item: usize, end: &End) {
        let (arrived, model) = self.arrivals[item];
        self.settled += 1;
        if matches!(self.scenario.load, Load::Closed { .. }) {
            self.schedule_arrival(self.now + RETURN_TIME, model, 1);
        }
        let Some(measured_from) = self.measured_from.filter(|_| item >= self.warm_up()) else { return };
        let latency = self.now - arrived;
        self.outcome.requests += 1;
        self.outcome.elapsed = self.now - measured_from;
        match end {
            End::Answered => {
                let in_time = usize::from(latency <= self.scenario.slo);
                self.outcome.answered += 1;
                self.outcome.latency += latency;
                self.outcome.in_time += in_time;
                self.outcome.by_model[model] += in_time;
            }
            End::Dropped => self.outcome.dropped += 1,
            End::Refused => {}
        }
    }
}
