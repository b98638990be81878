//! The simulated world: virtual time, some queues, and the devices that drain all of them.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sconce_batch::{BatchLayout, Batcher, EntryId, Error, Priority, Profile, Terms};

use crate::driver::{Driver, Running};
use crate::scenario::{Bounds, Pace, Scenario};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Answered,
    Failed,
    Expired,
    Cancelled,
    Refused,
    /// Every device that could have run it was lost.
    Stranded,
}

impl Outcome {
    pub(crate) const ALL: [Self; 6] =
        [Self::Answered, Self::Failed, Self::Expired, Self::Cancelled, Self::Refused, Self::Stranded];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Arrival(usize),
    Cancellation(usize),
    /// A device has run its batch.
    Completion {
        device: usize,
    },
    /// A sleeping device is woken, or polls again by itself.
    Wake {
        device: usize,
    },
}

/// State of an item.
#[derive(Debug, Clone, Copy, Default)]
struct Item {
    id: Option<EntryId>,
    arrived: Option<Instant>,
    deadline: Option<Instant>,
    priority: Priority,
    weight: usize,
    outcome: Option<Outcome>,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) rng: StdRng,
    start: Instant,
    pub(crate) now: Instant,
    pub(crate) queues: Vec<Batcher<usize>>,
    pub(crate) drivers: Vec<Driver>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    scheduled: u64,
    items: Vec<Item>,
    /// The latest item that ran, by queue, priority and, for padded layouts, weight.
    latest_run: HashMap<(usize, Priority, usize), usize>,
    waits: [(Duration, u32); 3],
    pub(crate) longest_wait: Duration,
    pub(crate) longest_wait_of_the_highest: Duration,
    pub(crate) latencies: Vec<Duration>,
    trace: DefaultHasher,
    pub(crate) in_time: usize,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let start = Instant::now();
        let profiles: Vec<_> = scenario
            .devices
            .iter()
            .map(|device| Profile { estimate: scenario.chooses.then_some(device.line), role: device.role })
            .collect();
        let queue = |layout: &BatchLayout| Batcher::on(start, scenario.config(), *layout, &profiles);
        Self {
            rng: StdRng::seed_from_u64(scenario.seed),
            start,
            now: start,
            queues: scenario.queues.iter().map(queue).collect::<Result<_, _>>().expect("a valid configuration"),
            drivers: scenario.devices.iter().map(|_| Driver::new(scenario.queues.len())).collect(),
            events: BinaryHeap::new(),
            scheduled: 0,
            items: vec![Item::default(); scenario.arrivals],
            latest_run: HashMap::new(),
            waits: [(Duration::ZERO, 0); 3],
            longest_wait: Duration::ZERO,
            longest_wait_of_the_highest: Duration::ZERO,
            latencies: Vec::new(),
            trace: DefaultHasher::new(),
            in_time: 0,
            scenario,
        }
    }

    pub(crate) fn run(mut self) -> Self {
        self.schedule(self.start, Event::Arrival(0));
        let mut at_once = 0;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            assert!(at >= self.now, "time runs forward");
            at_once = if at == self.now { at_once + 1 } else { 0 };
            assert!(at_once < 1000, "devices wake each other without end");
            self.now = at;
            self.handle(event);
            self.check_bounds();
        }
        for queue in 0..self.queues.len() {
            self.close(queue);
            assert!(self.queues[queue].is_over(), "nothing is left behind");
        }
        self
    }

    pub(crate) fn schedule(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival(item) => {
                self.schedule_arrival_after(item);
                if self.scenario.closes_at == Some(item) {
                    self.close(0);
                }
                self.arrive(item);
            }
            Event::Cancellation(item) => {
                let queue = self.queue_of(item);
                let id = self.items[item].id.expect("only admitted items are cancelled");
                if let Some(payload) = self.queues[queue].cancel(id) {
                    assert_eq!(payload, item);
                    self.settle(item, Outcome::Cancelled);
                }
            }
            Event::Completion { device } => {
                self.complete(device);
                self.drive(device);
            }
            Event::Wake { device } if !self.drivers[device].is_running() => self.drive(device),
            Event::Wake { .. } => {}
        }
    }

    /// Schedules the arrival after `item`. In bursts nine of ten come at once, the tenth after ten gaps.
    fn schedule_arrival_after(&mut self, item: usize) {
        if item + 1 == self.scenario.arrivals {
            return;
        }
        let gaps = match self.scenario.pace {
            Pace::Bursts(_) if item % 10 != 9 => 0.0,
            Pace::Bursts(_) => -10.0 * (1.0 - self.rng.random::<f64>()).ln(),
            Pace::Rate(_) => -(1.0 - self.rng.random::<f64>()).ln(),
        };
        self.schedule(self.now + Duration::from_secs_f64(gaps * self.scenario.mean_gap()), Event::Arrival(item + 1));
    }

    fn queue_of(&self, item: usize) -> usize {
        item % self.queues.len()
    }

    fn close(&mut self, queue: usize) {
        self.queues[queue].close();
        self.settle_stranded(queue);
        (0..self.drivers.len()).for_each(|device| self.wake_device(device));
    }

    fn arrive(&mut self, item: usize) {
        let queue = self.queue_of(item);
        let weight = self.rng.random_range(self.scenario.weight_range());
        let patience = self.scenario.full_batch_cost() * self.rng.random_range(1..=8);
        let deadline = self.rng.random_bool(self.scenario.in_a_hurry).then(|| self.now + patience);
        let priority = match self.scenario.bounds {
            Bounds::Narrow => Priority::ALL[self.rng.random_range(0..3)],
            Bounds::None => Priority::Normal,
        };
        match self.queues[queue].offer(self.now, item, weight, Terms { deadline, priority }) {
            Ok(id) => {
                let arrived = Some(self.now);
                self.items[item] = Item { id: Some(id), arrived, deadline, priority, weight, outcome: None };
                if self.rng.random_bool(self.scenario.cancelled) {
                    let regret = self.scenario.full_batch_cost().mul_f64(self.rng.random_range(0.0..3.0));
                    self.schedule(self.now + regret, Event::Cancellation(item));
                }
                if self.queues[queue].is_due(self.now) {
                    self.wake(queue, None);
                }
            }
            Err(refused) => {
                let closed = self.queues[queue].is_closed();
                assert!(match refused.error {
                    Error::ShuttingDown => closed,
                    Error::QueueFull { .. }
                    | Error::QueueTooHeavy { .. }
                    | Error::Overloaded { .. }
                    | Error::DevicesLost { .. } => !closed,
                    _ => false,
                });
                assert_eq!(refused.payload, item);
                self.settle(item, Outcome::Refused);
            }
        }
    }

    /// Settles the entries that no device will run.
    pub(crate) fn settle_stranded(&mut self, queue: usize) {
        for entry in self.queues[queue].stranded(self.now) {
            self.settle(entry.payload, Outcome::Stranded);
        }
    }

    pub(crate) fn answer(&mut self, item: usize) {
        let Item { arrived, deadline, .. } = self.items[item];
        let in_time = deadline.is_none_or(|deadline| self.now <= deadline);
        self.in_time += usize::from(in_time && !self.scenario.is_bad(item));
        self.latencies.push(self.now - arrived.expect("it was admitted"));
        self.settle(item, if self.scenario.is_bad(item) { Outcome::Failed } else { Outcome::Answered });
    }

    /// Checks a batch that begins.
    pub(crate) fn check_start(&mut self, running: &Running) {
        let queue = running.queue;
        let config = self.queues[queue].config();
        assert!((1..=config.max_batch_size).contains(&running.batch.len()));
        assert!(running.weight <= config.max_batch_weight);
        for entry in &running.batch {
            let Item { arrived, deadline, priority, weight, outcome, .. } = self.items[entry.payload];
            if self.scenario.keeps_order() {
                let alike = match self.scenario.queues[queue] {
                    BatchLayout::Packed => 0,
                    BatchLayout::Padded => weight,
                };
                let before = self.latest_run.insert((queue, priority, alike), entry.payload);
                assert!(before.is_none_or(|before| before < entry.payload), "first in, first out among those alike");
            }
            assert!(deadline.is_none_or(|deadline| deadline > self.now), "an expired entry ran");
            assert_eq!(outcome, None, "a settled entry ran");
            let wait = self.now - arrived.expect("it was admitted");
            let (sum, count) = &mut self.waits[priority as usize];
            (*sum, *count) = (*sum + wait, *count + 1);
            self.longest_wait = self.longest_wait.max(wait);
            if priority == Priority::High {
                self.longest_wait_of_the_highest = self.longest_wait_of_the_highest.max(wait);
            }
        }
    }

    pub(crate) fn settle(&mut self, item: usize, outcome: Outcome) {
        assert_eq!(self.items[item].outcome.replace(outcome), None, "item {item} was answered twice");
        (item, outcome, self.now - self.start).hash(&mut self.trace);
    }

    fn check_bounds(&self) {
        for queue in &self.queues {
            let config = queue.config();
            // Entries that a device gives back were admitted before, so they may exceed the bounds.
            let back = usize::from(queue.stats().given_back > 0) * self.drivers.len();
            assert!(queue.len() <= config.max_queue_size.saturating_add(back * config.max_batch_size));
            assert!(queue.weight() <= config.max_queue_weight.saturating_add(back * config.max_batch_weight));
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.items.iter().filter(|item| item.outcome == Some(outcome)).count()
    }

    /// Mean queue wait of the items that ran, from the highest priority to the lowest.
    pub(crate) fn mean_waits(&self) -> [Duration; 3] {
        self.waits.map(|(sum, count)| sum / count)
    }

    pub(crate) fn mean_latency(&self) -> f64 {
        self.latencies.iter().map(Duration::as_secs_f64).sum::<f64>() / self.latencies.len() as f64
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }
}
