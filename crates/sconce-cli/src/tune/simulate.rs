//! A replay in virtual time: the batcher that serves requests, with measured times in place of a model.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sconce::BatcherConfig;
use sconce_batch::{BatchLayout, Batcher, Entry, Ran, Standing, Step, Terms};

use super::samples::ServiceSamples;
use crate::replay::{PlannedRequest, SortedTimes};

/// The outcome of a simulated run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SimulatedRun {
    /// Latencies of the answered requests.
    pub(crate) latency: SortedTimes,
    /// Requests that were refused or too late.
    pub(crate) failed: usize,
    /// Answered requests per second, from the first arrival to the last answer.
    pub(crate) throughput: f64,
    /// Share of that time for which the device ran batches.
    pub(crate) utilisation: f64,
    /// Items of a batch on average.
    pub(crate) batch_size: f64,
}

impl SimulatedRun {
    /// The time within which 99 of 100 requests are answered; `None` if more than one of 100 is not answered at all.
    pub(crate) fn p99(&self) -> Option<Duration> {
        p99_of_all(&self.latency, self.failed)
    }
}

/// The 99th percentile over answered and failed requests, of which the latter took for ever.
pub(crate) fn p99_of_all(latency: &SortedTimes, failed: usize) -> Option<Duration> {
    let all = latency.len() + failed;
    let part = 0.99 * all as f64 / latency.len() as f64;
    (latency.len() > 0 && part <= 1.0).then(|| latency.quantile(part))
}

/// Runs the requests through a batcher with this configuration, on one device.
pub(crate) fn simulate(
    requests: &[PlannedRequest],
    config: &BatcherConfig,
    samples: &ServiceSamples,
    seed: u64,
) -> SimulatedRun {
    let mut world = World::new(requests, config, samples, seed);
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        world.now = at;
        match event {
            Event::Offer(request) => world.offer(request),
            Event::Wake => world.wake(),
            Event::Complete => world.complete(),
        }
    }
    world.outcome()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request is prepared, and offered to the queue.
    Offer(usize),
    /// The device wakes up, or looks again by itself.
    Wake,
    /// The running batch ends.
    Complete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceActivity {
    Sleeps,
    /// Woken, and not running yet.
    WakesUp,
    Runs,
}

/// Progress of a request.
#[derive(Debug, Clone, Copy)]
struct RequestProgress {
    /// Items that are not answered yet.
    open: usize,
    after: Duration,
    failed: bool,
}

struct World<'a> {
    requests: &'a [PlannedRequest],
    samples: &'a ServiceSamples,
    rng: StdRng,
    /// The place among the measured disturbances at which the simulation begins.
    offset: Duration,
    start: Instant,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    scheduled: u64,
    batcher: Batcher<usize>,
    device: DeviceActivity,
    running: Vec<Entry<usize>>,
    ran: Ran,
    progress: Vec<RequestProgress>,
    latencies: Vec<Duration>,
    failed: usize,
    last_answer: Instant,
}

impl<'a> World<'a> {
    fn new(requests: &'a [PlannedRequest], config: &BatcherConfig, samples: &'a ServiceSamples, seed: u64) -> Self {
        let start = Instant::now();
        let batcher = Batcher::new(start, config.clone(), BatchLayout::Packed).expect("the configuration is checked");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = Self {
            requests,
            samples,
            offset: samples.period().mul_f64(rng.random()),
            rng,
            start,
            now: start,
            events: BinaryHeap::with_capacity(requests.len() + 2),
            scheduled: 0,
            batcher,
            device: DeviceActivity::Sleeps,
            running: Vec::new(),
            ran: Ran { size: 0, weight: 0, run: None },
            progress: Vec::with_capacity(requests.len()),
            latencies: Vec::with_capacity(requests.len()),
            failed: 0,
            last_answer: start,
        };
        for (index, request) in requests.iter().enumerate() {
            let weight = request.weights.iter().map(|weight| *weight as usize).sum();
            let (before, after) = samples.around(weight, &mut world.rng);
            world.progress.push(RequestProgress { open: request.weights.len(), after, failed: false });
            world.schedule(start + request.at + before, Event::Offer(index));
        }
        world
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn offer(&mut self, index: usize) {
        let request = &self.requests[index];
        let deadline = request.deadline.map(|time| self.start + request.at + time);
        let terms = Terms { deadline, priority: request.priority };
        let items = request.weights.iter().map(|weight| (index, *weight as usize)).collect();
        if self.batcher.offer_many(self.now, items, terms, Standing::Newcomer).is_err() {
            self.fail(index);
        } else if self.device == DeviceActivity::Sleeps && self.batcher.is_due(self.now) {
            self.device = DeviceActivity::WakesUp;
            self.schedule(self.now + self.samples.wake(), Event::Wake);
        }
    }

    fn wake(&mut self) {
        if self.device != DeviceActivity::Runs {
            self.drive();
        }
    }

    /// The idle device asks for its next batch.
    fn drive(&mut self) {
        loop {
            match self.batcher.poll(self.now) {
                Step::Run(batch) => {
                    let weight = batch.iter().map(|entry| entry.weight).sum();
                    let run = self.samples.run(weight, self.now - self.start + self.offset, &mut self.rng);
                    self.ran = Ran { size: batch.len(), weight, run: Some(run) };
                    self.running = batch;
                    self.device = DeviceActivity::Runs;
                    return self.schedule(self.now + run, Event::Complete);
                }
                Step::Expire(entries) => entries.into_iter().for_each(|entry| self.fail(entry.payload)),
                Step::WaitUntil(at) => {
                    self.device = DeviceActivity::Sleeps;
                    return self.schedule(at.max(self.now + Duration::from_nanos(1)), Event::Wake);
                }
                Step::Wait | Step::Finish => {
                    self.device = DeviceActivity::Sleeps;
                    return;
                }
            }
        }
    }

    fn complete(&mut self) {
        self.batcher.completed(self.now, self.ran);
        for entry in std::mem::take(&mut self.running) {
            self.answer(entry.payload);
        }
        self.drive();
    }

    fn answer(&mut self, index: usize) {
        let progress = &mut self.progress[index];
        progress.open -= 1;
        if progress.open > 0 || progress.failed {
            return;
        }
        let (request, answered) = (&self.requests[index], self.now + progress.after);
        let latency = answered - (self.start + request.at);
        if request.deadline.is_some_and(|deadline| latency > deadline) {
            return self.fail(index);
        }
        self.latencies.push(latency);
        self.last_answer = self.last_answer.max(answered);
    }

    fn fail(&mut self, index: usize) {
        let progress = &mut self.progress[index];
        if !std::mem::replace(&mut progress.failed, true) {
            self.failed += 1;
        }
    }

    fn outcome(self) -> SimulatedRun {
        let first = self.requests.first().map_or(Duration::ZERO, |request| request.at);
        let took = self.last_answer.saturating_duration_since(self.start + first).as_secs_f64().max(1e-9);
        let stats = self.batcher.stats();
        SimulatedRun {
            throughput: self.latencies.len() as f64 / took,
            utilisation: stats.run.as_secs_f64() / took,
            batch_size: stats.batched as f64 / stats.batches.max(1) as f64,
            failed: self.failed,
            latency: self.latencies.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::tests::requests;
    use super::*;

    fn poisson(rate: f64, weight: u32, count: usize) -> Vec<PlannedRequest> {
        let length = Duration::from_secs_f64(count as f64 / rate);
        let arrivals = sconce_trace::ArrivalProcess::Poisson { rate };
        let synthetic =
            sconce_trace::Synthetic { arrivals, lengths: sconce_trace::Lengths::Fixed(weight), length, seed: 3 };
        let trace = synthetic.trace().expect("it is valid");
        trace.requests().iter().map(|request| PlannedRequest::sized(request.at, vec![weight])).collect()
    }

    fn samples(a: f64, c: f64) -> ServiceSamples {
        let measured = requests(a, c, 500);
        ServiceSamples::of(&measured, &measured, &measured).expect("there are enough")
    }

    /// The Pollaczek-Khinchine formula: the average wait in an M/D/1 queue is ρ · service / (2 · (1 − ρ)).
    #[test]
    fn without_batches_waits_are_those_of_an_m_d_1_queue() {
        let config = BatcherConfig { max_batch_size: 1, ..BatcherConfig::default() };
        let service = 3e-3;
        for utilisation in [0.3, 0.6, 0.8] {
            let load = poisson(utilisation / service, 10, 40_000);
            let run = simulate(&load, &config, &samples(2.0, 0.1), 1);
            let expected = service + 80e-6 + utilisation * service / (2.0 * (1.0 - utilisation));
            let found = run.latency.mean();
            assert!((found / expected - 1.0).abs() < 0.08, "at {utilisation}: {found}, not {expected}");
            assert!((run.utilisation / utilisation - 1.0).abs() < 0.05);
        }
    }

    #[test]
    fn every_request_is_answered_or_failed_and_the_same_seed_gives_the_same_run() {
        let mut load = poisson(2000.0, 30, 5000);
        for (index, request) in load.iter_mut().enumerate() {
            request.deadline = (index % 3 == 0).then_some(Duration::from_millis(20));
            if index % 7 == 0 {
                request.weights = vec![10, 20, 30];
            }
        }
        let config = BatcherConfig { max_queue_size: 50, ..BatcherConfig::default() };
        let run = simulate(&load, &config, &samples(2.0, 0.1), 1);
        assert_eq!(run.latency.len() + run.failed, load.len());
        assert!(run.failed > 0, "the load is too much");
        assert_eq!(run, simulate(&load, &config, &samples(2.0, 0.1), 1));
        assert!(run.p99().is_none(), "{} failed", run.failed);
    }

    #[test]
    fn larger_batches_carry_more_load_where_the_fixed_cost_is_large() {
        let load = poisson(600.0, 4, 6000);
        let of = |max_batch_size| {
            let config = BatcherConfig { max_batch_size, ..BatcherConfig::default() };
            simulate(&load, &config, &samples(5.0, 0.01), 1)
        };
        let (small, large) = (of(2), of(32));
        assert!(small.p99().is_none_or(|p99| p99 > large.p99().unwrap() * 5), "{:?} {:?}", small.p99(), large.p99());
        assert!(large.batch_size > 2.0);
    }

    #[test]
    fn a_percentile_counts_failed_requests_as_the_slowest() {
        let latency: SortedTimes = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(p99_of_all(&latency, 0), Some(Duration::from_millis(99)));
        assert_eq!(p99_of_all(&latency, 1), Some(Duration::from_millis(100)));
        assert_eq!(p99_of_all(&latency, 2), None);
        assert_eq!(p99_of_all(&SortedTimes::default(), 0), None);
    }
}
