//! A device thread in virtual time: it polls the queues in their turns, runs batches, and has faults.

use std::time::{Duration, Instant};

use rand::RngExt;
use sconce_batch::{BatchLayout, Batcher, DeficitRoundRobin, DeviceFault, Entry, Ran, Step, Want};

use crate::scenario::{Device, Lost};
use crate::world::{Event, Outcome, World};

/// One device.
pub(crate) struct Driver {
    robin: DeficitRoundRobin,
    running: Option<Running>,
    /// Expected end of the running batch.
    busy_until: Option<Instant>,
    sleeps: bool,
    pub(crate) batches: usize,
}

/// A running batch.
pub(crate) struct Running {
    pub(crate) queue: usize,
    pub(crate) batch: Vec<Entry<usize>>,
    pub(crate) weight: usize,
    started: Instant,
    /// The fault, if the device is lost in this batch.
    lost: Option<DeviceFault>,
}

impl Driver {
    pub(crate) fn new(queues: usize) -> Self {
        let mut robin = DeficitRoundRobin::default();
        (0..queues).for_each(|_| _ = robin.add());
        Self { robin, running: None, busy_until: None, sleeps: true, batches: 0 }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

impl World {
    /// Wakes a device for the entries of a queue; the device that `looked` just now is awake.
    pub(crate) fn wake(&mut self, queue: usize, looked: Option<usize>) {
        if self.drivers.len() == 1 {
            return self.wake_device(0);
        }
        self.observe_load(queue);
        if let Some(device) = self.queues[queue].whom_to_wake(self.now, looked) {
            self.wake_device(device);
        }
    }

    pub(crate) fn wake_device(&mut self, device: usize) {
        if std::mem::take(&mut self.drivers[device].sleeps) {
            self.schedule(self.now, Event::Wake { device });
        }
    }

    fn observe_load(&mut self, queue: usize) {
        let busy: Vec<_> = self.drivers.iter().map(|driver| driver.busy_until).collect();
        self.queues[queue].observe_load(busy);
    }

    /// Polls the queues in their turns until one gives a batch; falls asleep if none does.
    pub(crate) fn drive(&mut self, device: usize) {
        self.drivers[device].sleeps = false;
        let wake_at = if self.queues.len() == 1 {
            match self.ask(0, device) {
                Step::Run(batch) => return self.begin(device, 0, batch),
                step => self.sleeps_until(0, &step),
            }
        } else {
            let wants: Vec<Option<Want>> = self.queues.iter().map(|queue| queue.want_on(self.now, device)).collect();
            let mut order = Vec::new();
            self.drivers[device].robin.order(&wants, &mut order);
            // A device that is away looks again when it is back.
            let mut wake_at = self.back_at(device);
            for turn in order {
                match self.ask(turn.queue, device) {
                    Step::Run(batch) => {
                        let leaves_work = !self.queues[turn.queue].is_empty();
                        self.drivers[device].robin.begin(turn, &wants, leaves_work);
                        return self.begin(device, turn.queue, batch);
                    }
                    step => wake_at = [wake_at, self.sleeps_until(turn.queue, &step)].into_iter().flatten().min(),
                }
            }
            wake_at
        };
        self.drivers[device].sleeps = true;
        if let Some(at) = wake_at {
            self.schedule(at.max(self.now + Duration::from_nanos(1)), Event::Wake { device });
        }
    }

    fn back_at(&self, device: usize) -> Option<Instant> {
        let away = self.queues.iter().filter(|queue| !queue.is_over());
        away.filter_map(|queue| queue.back_at(self.now, device)).min()
    }

    fn sleeps_until(&self, queue: usize, step: &Step<usize>) -> Option<Instant> {
        let batcher = &self.queues[queue];
        match step {
            Step::WaitUntil(at) => {
                assert!(*at > self.now, "it would spin");
                if self.scenario.keeps_order() {
                    let fixed_cost = batcher.cost().fixed().unwrap_or_default();
                    let longest = batcher.config().max_queue_delay.max(fixed_cost / 5 + Duration::from_micros(1));
                    assert!(*at <= self.now + longest);
                }
                Some(*at)
            }
            Step::Wait | Step::Finish => {
                assert!(!self.scenario.keeps_order() || batcher.is_empty(), "an idle device waits while work does");
                None
            }
            Step::Run(_) | Step::Expire(_) => unreachable!("those are not slept on"),
        }
    }

    /// Polls a queue, settling the entries that expire, until it gives another step.
    fn ask(&mut self, queue: usize, device: usize) -> Step<usize> {
        loop {
            self.observe_load(queue);
            let step = self.queues[queue].poll_on(self.now, device);
            if matches!(step, Step::Run(_)) {
                self.drivers[device].busy_until = self.queues[queue].expected_end(device);
            }
            if self.drivers.len() > 1 && !self.queues[queue].is_empty() && !self.queues[queue].is_lingering() {
                self.wake(queue, Some(device));
            }
            match step {
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

    fn begin(&mut self, device: usize, queue: usize, batch: Vec<Entry<usize>>) {
        let weight = self.weight(queue, &batch);
        let of = self.scenario.devices[device];
        let lost = self.is_lost(device, of);
        let running = Running { queue, batch, weight, started: self.now, lost };
        self.check_start(&running);
        // The time of a batch varies a little.
        let mut run = of.run(weight).mul_f64(self.rng.random_range(0.95..1.1));
        if of.hangs_in == Some(self.drivers[device].batches) {
            run *= 100;
        }
        if running.batch.len() > 1 && running.batch.iter().any(|entry| self.scenario.is_bad(entry.payload))
            || weight > of.memory
        {
            run += of.run(weight / running.batch.len()) * u32::try_from(running.batch.len()).expect("a batch is small");
        }
        let driver = &mut self.drivers[device];
        driver.batches += 1;
        driver.running = Some(running);
        self.schedule(self.now + run, Event::Completion { device });
    }

    fn weight(&self, queue: usize, batch: &[Entry<usize>]) -> usize {
        let weights = || batch.iter().map(|entry| entry.weight);
        let layout: BatchLayout = self.scenario.queues[queue];
        layout.batch_weight(batch.len(), weights().sum(), weights().max().unwrap_or_default())
    }

    /// Weight of the heaviest part that fits the memory, if a batch is halved until its parts do.
    fn managed(&self, queue: usize, batch: &[Entry<usize>], memory: usize) -> usize {
        match self.weight(queue, batch) {
            weight if weight <= memory => weight,
            _ if batch.len() <= 1 => 0,
            _ => {
                let (first, second) = batch.split_at(batch.len() / 2);
                self.managed(queue, first, memory).max(self.managed(queue, second, memory))
            }
        }
    }

    fn is_lost(&mut self, device: usize, of: Device) -> Option<DeviceFault> {
        match of.lost {
            Lost::ForEver(batch) if self.drivers[device].batches >= batch => {
                Some(DeviceFault::Lost { retry_after: None })
            }
            Lost::Sometimes(one_in, longest) if self.rng.random_ratio(1, one_in) => {
                Some(DeviceFault::Lost { retry_after: Some(longest.mul_f64(self.rng.random())) })
            }
            _ => None,
        }
    }

    /// Completes a batch as `running.rs` and `queue_worker.rs` do: items that ran are answered, the others are given
    /// back if another device can run them.
    pub(crate) fn complete(&mut self, device: usize) {
        let Running { queue, batch, weight, started, lost } =
            self.drivers[device].running.take().expect("it runs a batch");
        self.drivers[device].busy_until = None;
        self.drivers[device].robin.charge(queue, self.now - started);
        let size = batch.len();
        let memory = self.scenario.devices[device].memory;
        let fails = size > 1 && batch.iter().any(|entry| self.scenario.is_bad(entry.payload));
        let mut back = Vec::new();
        let managed = self.managed(queue, &batch, memory);
        for mut entry in batch {
            if lost.is_none() && entry.weight <= memory {
                self.answer(entry.payload);
                continue;
            }
            entry.excluded = entry.excluded.with(device);
            if self.queues[queue].has_another(self.now, device, entry.excluded) {
                back.push(entry);
            } else {
                self.settle(entry.payload, Outcome::Failed);
            }
        }
        let out_of_memory = (weight > memory && lost.is_none()).then_some(DeviceFault::OutOfMemory { managed });
        let batcher: &mut Batcher<usize> = &mut self.queues[queue];
        for fault in out_of_memory.into_iter().chain(lost) {
            // A lost device is lost to all its queues, but each queue finds out by itself.
            batcher.report_fault(self.now, device, fault);
        }
        batcher.give_back(back);
        let is_whole = !fails && out_of_memory.is_none() && lost.is_none();
        let run = (is_whole && self.scenario.learns).then(|| self.now - started);
        batcher.completed_on(self.now, device, Ran { size, weight, run });
        let (closed, empty) = (batcher.is_closed(), batcher.is_empty());
        self.settle_stranded(queue);
        if self.drivers.len() > 1 && closed {
            (0..self.drivers.len()).for_each(|device| self.wake_device(device));
        } else if self.drivers.len() > 1 && !empty {
            self.wake(queue, Some(device));
        }
    }
}
