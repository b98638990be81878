//! A served model in virtual time: requests arrive, are looked up, prepared, batched by the real batcher, run and
//! finished, with noise in every step. Each step's time is given to the watch as a runtime would give it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp, LogNormal, Pareto};
use sconce_batch::{BatchLayout, Batcher, BatcherConfig, Ran, Step};
use sconce_watch::{DegradationEvent, ModelWatch};

/// The costs of a model, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Costs {
    pub fixed: f64,
    pub per_weight: f64,
    pub prepare: f64,
    pub prepare_per_weight: f64,
    pub finish: f64,
}

/// The circumstances of one moment.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    /// Requests per second.
    pub rate: f64,
    /// Mean length of a text.
    pub length: f64,
    /// Share of requests that the cache answers; 0: no cache.
    pub hits: f64,
    /// Share of requests that fail.
    pub errors: f64,
    /// Factors of the costs: 1 is as usual.
    pub slower: Slower,
}

#[derive(Clone, Copy)]
pub(crate) struct Slower {
    pub fixed: f64,
    pub per_weight: f64,
    pub prepare: f64,
    pub lookup: f64,
    pub finish: f64,
}

impl Slower {
    pub(crate) const NOTHING: Self = Self { fixed: 1.0, per_weight: 1.0, prepare: 1.0, lookup: 1.0, finish: 1.0 };
}

/// A report of the watch, and the instant of it in seconds.
pub(crate) type Report = (f64, DegradationEvent);

pub(crate) struct World<F> {
    began: Instant,
    costs: Costs,
    moment: F,
    random: StdRng,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    next: u64,
    batcher: Batcher<Request>,
    is_busy: bool,
    running: Vec<(Request, Instant)>,
    run: Duration,
    weight: usize,
    noise: Noise,
    pub watch: ModelWatch,
    pub reports: Vec<Report>,
    /// End and latency of every answered request, in seconds.
    pub latencies: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    arrived: Duration,
    weight: usize,
    keyed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    /// Several requests at once.
    Burst,
    Offered(Request),
    Polls,
    Completes,
}

/// Noise that lasts: the speed of the machine wanders by about 1 %, and now and then something disturbs it for a while.
struct Noise {
    wander: f64,
    second: u64,
    disturbed_until: u64,
}

impl<F: Fn(f64) -> Moment> World<F> {
    pub(crate) fn new(seed: u64, costs: Costs, moment: F) -> Self {
        let began = Instant::now();
        let config = BatcherConfig { max_batch_size: 32, max_queue_size: 100_000, ..BatcherConfig::default() };
        Self {
            began,
            costs,
            moment,
            random: StdRng::seed_from_u64(seed),
            events: BinaryHeap::from([
                Reverse((Duration::ZERO, 0, Event::Arrives)),
                Reverse((Duration::from_mins(1), 1, Event::Burst)),
            ]),
            next: 2,
            batcher: Batcher::new(began, config, BatchLayout::Packed).expect("a valid configuration"),
            is_busy: false,
            running: Vec::new(),
            run: Duration::ZERO,
            weight: 0,
            noise: Noise { wander: 0.0, second: 0, disturbed_until: 0 },
            watch: ModelWatch::new(),
            reports: Vec::new(),
            latencies: Vec::new(),
        }
    }

    /// Runs until `end`, in seconds from the beginning.
    pub(crate) fn run_until(&mut self, end: f64) {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at.as_secs_f64() >= end {
                self.events.push(Reverse((at, 0, event)));
                return;
            }
            match event {
                Event::Arrives => {
                    self.arrive(at);
                    let gap = Exp::new((self.moment)(at.as_secs_f64()).rate).expect("a rate above 0");
                    let gap = Duration::from_secs_f64(gap.sample(&mut self.random));
                    self.push(at + gap, Event::Arrives);
                }
                Event::Burst => {
                    for _ in 0..self.random.random_range(10..60) {
                        let after = Duration::from_secs_f64(self.random.random_range(0.0..0.5));
                        self.arrive(at + after);
                    }
                    let gap = Duration::from_secs(self.random.random_range(120..900));
                    self.push(at + gap, Event::Burst);
                }
                Event::Offered(request) => {
                    let now = self.began + at;
                    self.batcher.offer(now, request, request.weight, None).expect("there is room");
                    self.poll(at);
                }
                Event::Polls => self.poll(at),
                Event::Completes => self.complete(at),
            }
        }
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.next += 1;
        self.events.push(Reverse((at, self.next, event)));
    }

    fn report(&mut self, at: Duration, event: Option<DegradationEvent>) {
        self.reports.extend(event.map(|event| (at.as_secs_f64(), event)));
    }

    /// A time with the noise of a busy machine: a spread of 6 %, and one in a hundred takes several times as long.
    fn noisy(&mut self, at: Duration, seconds: f64, spread: f64) -> Duration {
        let mut factor = LogNormal::new(0.0, spread).expect("a spread").sample(&mut self.random);
        if self.random.random_bool(0.01) {
            factor *= 1.0 + f64::min(Pareto::new(0.5, 1.5).expect("a shape").sample(&mut self.random), 50.0);
        }
        Duration::from_secs_f64(seconds * factor * self.noise.factor(at, &mut self.random))
    }

    fn arrive(&mut self, at: Duration) {
        let moment = (self.moment)(at.as_secs_f64());
        let spread: f64 = 0.6;
        let length = LogNormal::new(moment.length.ln() - spread * spread / 2.0, spread).expect("a spread");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let weight = length.sample(&mut self.random).clamp(2.0, 512.0) as usize;
        let keyed = moment.hits > 0.0;
        let mut ready = at;
        if keyed {
            let hit = self.random.random_bool(moment.hits);
            let lookup = if hit { 60e-6 } else { 300e-6 } * moment.slower.lookup;
            ready += self.noisy(at, lookup, 0.2);
            let event = self.watch.looked_up(self.began + ready, usize::from(hit), ready.saturating_sub(at));
            self.report(ready, event);
            if hit {
                return self.answered(ready, Request { arrived: at, weight, keyed }, Some(true), moment);
            }
        }
        let prepare = (self.costs.prepare + self.costs.prepare_per_weight * weight as f64) * moment.slower.prepare;
        let prepare = self.noisy(at, prepare, 0.15);
        ready += prepare;
        let event = self.watch.prepared(self.began + ready, weight, prepare);
        self.report(ready, event);
        self.push(ready, Event::Offered(Request { arrived: at, weight, keyed }));
    }

    fn poll(&mut self, at: Duration) {
        if self.is_busy {
            return;
        }
        let now = self.began + at;
        match self.batcher.poll(now) {
            Step::Run(batch) => {
                let slower = (self.moment)(at.as_secs_f64()).slower;
                self.weight = batch.iter().map(|entry| entry.weight).sum();
                let seconds =
                    self.costs.fixed * slower.fixed + self.costs.per_weight * slower.per_weight * self.weight as f64;
                self.run = self.noisy(at, seconds, 0.06);
                self.running = batch.into_iter().map(|entry| (entry.payload, entry.arrived)).collect();
                self.is_busy = true;
                self.push(at + self.run, Event::Completes);
            }
            Step::WaitUntil(until) => self.push(until - self.began, Event::Polls),
            Step::Wait => {}
            Step::Expire(_) | Step::Finish => unreachable!("no deadlines, and the queue stays open"),
        }
    }

    fn complete(&mut self, at: Duration) {
        let (now, run) = (self.began + at, self.run);
        self.is_busy = false;
        let ran = Ran { size: self.running.len(), weight: self.weight, run: Some(run) };
        self.batcher.completed(now, ran);
        for event in self.watch.ran(now, 0, self.weight, run) {
            self.report(at, event);
        }
        for (request, admitted) in std::mem::take(&mut self.running) {
            let wait = now.saturating_duration_since(admitted).saturating_sub(run);
            let event = self.watch.waited(now, wait, run);
            self.report(at, event);
            let moment = (self.moment)(at.as_secs_f64());
            let finish = self.noisy(at, self.costs.finish * moment.slower.finish, 0.2);
            let event = self.watch.finished(now + finish, request.weight, finish);
            self.report(at, event);
            self.answered(at + finish, request, request.keyed.then_some(false), moment);
        }
        self.poll(at);
    }

    fn answered(&mut self, at: Duration, request: Request, hit: Option<bool>, moment: Moment) {
        let failed = self.random.random_bool(moment.errors);
        for event in self.watch.answered(self.began + at, hit, failed) {
            self.report(at, event);
        }
        self.latencies.push((at.as_secs_f64(), at.saturating_sub(request.arrived).as_secs_f64()));
    }
}

impl Noise {
    fn factor(&mut self, at: Duration, random: &mut StdRng) -> f64 {
        while self.second < at.as_secs() {
            self.second += 1;
            self.wander += -self.wander / 60.0 + 0.01 * (2.0_f64 / 60.0).sqrt() * random.random_range(-1.7..1.7);
            if random.random_bool(6.0 / 3600.0) {
                self.disturbed_until = self.second + random.random_range(1..4);
            }
        }
        self.wander.exp() * if self.second < self.disturbed_until { 1.3 } else { 1.0 }
    }
}
