//! Virtual time, some queues, and the devices that drain all of them.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sconce_batch::{
    Batcher, BatcherConfig, DeficitRoundRobin, Entry, EntryId, Error, Layout, Priority, Ran, Step, Terms,
};

/// By how much a lower priority counts as younger.
pub(crate) const AGEING: Duration = Duration::from_millis(100);
/// Items that a batch of full weight holds on average.
const FULL_BATCH: f64 = 1500.0 / 64.5;
/// One item in so many makes its batch fail, and fails again when it runs alone.
const BAD_ONE_IN: usize = 500;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) arrivals: usize,
    /// The rate of arrivals as a share of what the devices can do in full batches.
    pub(crate) load: f64,
    pub(crate) max_queue_delay: Duration,
    pub(crate) devices: usize,
    /// How the executors of each queue lay out their batches.
    pub(crate) queues: &'static [Layout],
    /// The arrival at which the first queue closes.
    pub(crate) closes_at: Option<usize>,
    /// Whether the queues are told what batches cost.
    pub(crate) learns: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Answered,
    Failed,
    Expired,
    Cancelled,
    Refused,
}

impl Outcome {
    pub(crate) const ALL: [Self; 5] = [Self::Answered, Self::Failed, Self::Expired, Self::Cancelled, Self::Refused];
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival(usize),
    Cancellation(usize),
    /// A device has run these items of a queue, and once more one by one if their batch failed (`run` is `None` then).
    Completion {
        device: usize,
        queue: usize,
        items: Vec<usize>,
        weight: usize,
        busy: Duration,
        run: Option<Duration>,
    },
    /// A lingering device asks again.
    Wake {
        device: usize,
    },
}

/// What is known of an item.
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
    scenario: Scenario,
    rng: StdRng,
    start: Instant,
    now: Instant,
    pub(crate) queues: Vec<Batcher<usize>>,
    /// The turns of the queues on each device.
    robins: Vec<DeficitRoundRobin>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    scheduled: u64,
    /// Devices that sleep, the last to fall asleep on top.
    idle: Vec<usize>,
    items: Vec<Item>,
    /// The latest item to run of each queue, priority and, where lengths matter, weight.
    latest_run: HashMap<(usize, Priority, usize), usize>,
    waits: [(Duration, u32); 3],
    pub(crate) longest_wait: Duration,
    pub(crate) longest_wait_of_the_highest: Duration,
    trace: DefaultHasher,
    pub(crate) batches: usize,
    pub(crate) in_time: usize,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let start = Instant::now();
        let queue = |layout: &Layout| Batcher::new(start, config(scenario.max_queue_delay), *layout);
        let mut robin = DeficitRoundRobin::default();
        scenario.queues.iter().for_each(|_| _ = robin.add());
        Self {
            rng: StdRng::seed_from_u64(scenario.seed),
            start,
            now: start,
            queues: scenario.queues.iter().map(queue).collect::<Result<_, _>>().expect("a valid configuration"),
            robins: vec![robin; scenario.devices],
            events: BinaryHeap::new(),
            scheduled: 0,
            idle: (0..scenario.devices).collect(),
            items: vec![Item::default(); scenario.arrivals],
            latest_run: HashMap::new(),
            waits: [(Duration::ZERO, 0); 3],
            longest_wait: Duration::ZERO,
            longest_wait_of_the_highest: Duration::ZERO,
            trace: DefaultHasher::new(),
            batches: 0,
            in_time: 0,
            scenario,
        }
    }

    pub(crate) fn run(mut self) -> Self {
        self.schedule(self.start, Event::Arrival(0));
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            assert!(at >= self.now, "time runs forward");
            self.now = at;
            self.handle(event);
            self.check_bounds();
        }
        for queue in &mut self.queues {
            queue.close();
            assert!(matches!(queue.poll(self.now), Step::Finish), "nothing is left behind");
        }
        self
    }

    fn schedule(&mut self, at: Instant, event: Event) {
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
                let queue = self.queue_of(item);
                self.arrive(item, queue);
                // As the queue does it: one sleeping device is woken, and only if the arrival is a reason to.
                if self.queues[queue].is_due(self.now)
                    && let Some(device) = self.idle.pop()
                {
                    self.drive(device);
                }
            }
            Event::Cancellation(item) => {
                let queue = self.queue_of(item);
                let id = self.items[item].id.expect("only admitted items are cancelled");
                if let Some(payload) = self.queues[queue].cancel(id) {
                    assert_eq!(payload, item);
                    self.settle(item, Outcome::Cancelled);
                }
            }
            Event::Completion { device, queue, items, weight, busy, run } => {
                self.robins[device].charge(queue, busy);
                if self.scenario.learns {
                    self.queues[queue].completed(self.now, Ran { size: items.len(), weight, run });
                }
                for item in items {
                    let in_time = self.items[item].deadline.is_none_or(|deadline| self.now <= deadline);
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

    /// Bursts: nine of ten come at once, the tenth after ten gaps.
    fn schedule_arrival_after(&mut self, item: usize) {
        let Scenario { arrivals, load, devices, .. } = self.scenario;
        if item + 1 == arrivals {
            return;
        }
        let mean_gap = full_batch_cost().as_secs_f64() / (load * FULL_BATCH * devices as f64);
        let gaps = if item % 10 == 9 { -10.0 * (1.0 - self.rng.random::<f64>()).ln() } else { 0.0 };
        self.schedule(self.now + Duration::from_secs_f64(gaps * mean_gap), Event::Arrival(item + 1));
    }

    fn queue_of(&self, item: usize) -> usize {
        item % self.queues.len()
    }

    fn close(&mut self, queue: usize) {
        self.queues[queue].close();
        for device in std::mem::take(&mut self.idle) {
            self.drive(device);
        }
    }

    fn arrive(&mut self, item: usize, queue: usize) {
        let weight = self.rng.random_range(1..=128);
        let patience = full_batch_cost() * self.rng.random_range(1..=8);
        let deadline = self.rng.random_bool(0.7).then(|| self.now + patience);
        let priority = Priority::ALL[self.rng.random_range(0..3)];
        match self.queues[queue].offer(self.now, item, weight, Terms { deadline, priority }) {
            Ok(id) => {
                let arrived = Some(self.now);
                self.items[item] = Item { id: Some(id), arrived, deadline, priority, weight, outcome: None };
                if self.rng.random_bool(0.1) {
                    let regret = full_batch_cost().mul_f64(self.rng.random_range(0.0..3.0));
                    self.schedule(self.now + regret, Event::Cancellation(item));
                }
            }
            Err(refused) => {
                let closed = self.queues[queue].is_closed();
                assert!(match refused.error {
                    Error::ShuttingDown => closed,
                    Error::QueueFull { .. } | Error::QueueTooHeavy { .. } | Error::Overloaded { .. } => !closed,
                    _ => false,
                });
                assert_eq!(refused.payload, item);
                self.settle(item, Outcome::Refused);
            }
        }
    }

    /// What a device thread does: asks the queues in their turns until one gives a batch, or falls asleep.
    fn drive(&mut self, device: usize) {
        let wants: Vec<_> = self.queues.iter().map(Batcher::want).collect();
        let mut order = Vec::new();
        self.robins[device].order(&wants, &mut order);
        let mut wake_at: Option<Instant> = None;
        for turn in order {
            match self.ask(turn.queue) {
                Step::Run(batch) => {
                    let leaves_work = !self.queues[turn.queue].is_empty();
                    self.robins[device].begin(turn, &wants, leaves_work);
                    return self.start_batch(device, turn.queue, &batch);
                }
                Step::WaitUntil(at) => {
                    let queue = &self.queues[turn.queue];
                    let fixed_cost = queue.cost().fixed().unwrap_or_default();
                    let longest = queue.config().max_queue_delay.max(fixed_cost / 5 + Duration::from_micros(1));
                    assert!(at > self.now && at <= self.now + longest);
                    wake_at = Some(wake_at.map_or(at, |other| other.min(at)));
                }
                Step::Wait | Step::Finish => {
                    assert!(self.queues[turn.queue].is_empty(), "an idle device waits while work does");
                }
                Step::Expire(_) => unreachable!("those are asked again"),
            }
        }
        self.idle.push(device);
        if let Some(at) = wake_at {
            self.schedule(at, Event::Wake { device });
        }
    }

    /// Asks a queue until it has dropped all that it drops.
    fn ask(&mut self, queue: usize) -> Step<usize> {
        loop {
            match self.queues[queue].poll(self.now) {
                Step::Expire(entries) => {
                    assert!(!entries.is_empty());
                    for entry in entries {
                        assert!(entry.deadline.is_some(), "an entry without a deadline was dropped");
                        self.settle(entry.payload, Outcome::Expired);
                    }
                }
                step => return step,
            }
        }
    }

    fn start_batch(&mut self, device: usize, queue: usize, batch: &[Entry<usize>]) {
        let config = self.queues[queue].config();
        let heaviest = batch.iter().map(|entry| entry.weight).max().unwrap_or(0);
        let weight = match self.scenario.queues[queue] {
            Layout::Packed => batch.iter().map(|entry| entry.weight).sum(),
            Layout::Padded => batch.len() * heaviest,
        };
        assert!((1..=config.max_batch_size).contains(&batch.len()));
        assert!(weight <= config.max_batch_weight);
        let items: Vec<usize> = batch.iter().map(|entry| entry.payload).collect();
        for &item in &items {
            self.check_start(item, queue);
        }
        // Devices are not exact.
        let run = cost(weight).mul_f64(self.rng.random_range(0.95..1.1));
        let fails = items.len() > 1 && items.iter().any(|&item| is_bad(item));
        let alone = cost(weight / items.len()) * u32::try_from(items.len()).expect("a batch is small");
        let (busy, run) = if fails { (run + alone, None) } else { (run, Some(run)) };
        self.batches += 1;
        self.schedule(self.now + busy, Event::Completion { device, queue, items, weight, busy, run });
    }

    fn check_start(&mut self, item: usize, queue: usize) {
        let Item { arrived, deadline, priority, weight, outcome, .. } = self.items[item];
        let alike = match self.scenario.queues[queue] {
            Layout::Packed => 0,
            Layout::Padded => weight,
        };
        let before = self.latest_run.insert((queue, priority, alike), item);
        assert!(before.is_none_or(|before| before < item), "first in, first out among those that are alike");
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

    fn settle(&mut self, item: usize, outcome: Outcome) {
        assert_eq!(self.items[item].outcome.replace(outcome), None, "item {item} was answered twice");
        (item, outcome, self.now - self.start).hash(&mut self.trace);
    }

    fn check_bounds(&self) {
        for queue in &self.queues {
            assert!(queue.len() <= queue.config().max_queue_size);
            assert!(queue.weight() <= queue.config().max_queue_weight);
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) -> usize {
        self.items.iter().filter(|item| item.outcome == Some(outcome)).count()
    }

    /// Of the items that ran, from the highest priority to the lowest.
    pub(crate) fn mean_waits(&self) -> [Duration; 3] {
        self.waits.map(|(sum, count)| sum / count)
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }
}

/// A device like a GPU: a fixed cost and a little for each unit of weight.
fn cost(weight: usize) -> Duration {
    Duration::from_micros(5000 + 5 * weight as u64)
}

fn config(max_queue_delay: Duration) -> BatcherConfig {
    BatcherConfig {
        max_batch_size: 32,
        max_batch_weight: 1500,
        max_queue_size: 200,
        max_queue_weight: 10_000,
        max_queue_delay,
        priority_ageing: AGEING,
    }
}

fn full_batch_cost() -> Duration {
    cost(1500)
}

fn is_bad(item: usize) -> bool {
    item % BAD_ONE_IN == BAD_ONE_IN - 1
}
