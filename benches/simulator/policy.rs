//! The policies to compare. Each makes an idle device's decisions.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use sconce_batch::{BatchLayout, Batcher, BatcherConfig, DeficitRoundRobin, Ran, Step};

use crate::MAX_BATCH_SIZE;
use crate::world::Request;

/// An idle device's decision.
pub(crate) enum Decision {
    Run {
        model: usize,
        items: Vec<usize>,
    },
    /// Requests that will not be answered.
    Drop(Vec<usize>),
    WaitUntil(Instant),
    Wait,
}

pub(crate) trait Policy {
    /// Offers a request; returns true if it is admitted.
    fn offer(&mut self, now: Instant, request: Request) -> bool;

    /// True if an arrival for this model is a reason to decide again.
    fn is_due(&self, _now: Instant, _model: usize) -> bool {
        true
    }

    fn decide(&mut self, now: Instant) -> Decision;

    fn completed(&mut self, _now: Instant, _model: usize, _size: usize, _run: Duration) {}
}

/// First in, first out, without drops: runs `delay` after the first arrival, or as soon as the batch is full. Of several
/// models it takes the one whose first request has waited longest.
pub(crate) struct Fifo {
    delay: Duration,
    waiting: Vec<VecDeque<(Instant, usize)>>,
}

impl Fifo {
    pub(crate) fn new(models: usize, delay: Duration) -> Self {
        Self { delay, waiting: vec![VecDeque::new(); models] }
    }
}

impl Policy for Fifo {
    fn offer(&mut self, now: Instant, Request { item, model, .. }: Request) -> bool {
        self.waiting[model].push_back((now, item));
        true
    }

    fn decide(&mut self, now: Instant) -> Decision {
        let ready_at = |waiting: &VecDeque<(Instant, usize)>| {
            let (first, _) = *waiting.front()?;
            Some(if waiting.len() >= MAX_BATCH_SIZE { now.min(first + self.delay) } else { first + self.delay })
        };
        let ready = self.waiting.iter().enumerate().filter_map(|(model, waiting)| Some((ready_at(waiting)?, model)));
        let Some((ready_at, model)) = ready.min() else { return Decision::Wait };
        if now < ready_at {
            return Decision::WaitUntil(ready_at);
        }
        let len = self.waiting[model].len().min(MAX_BATCH_SIZE);
        Decision::Run { model, items: self.waiting[model].drain(..len).map(|(_, item)| item).collect() }
    }
}

/// Longer than any simulation lasts.
const NEVER: Duration = Duration::from_hours(1);

/// Runs the most urgent requests of the model that has the most urgent one; drops those whose deadline has passed.
pub(crate) struct EarliestDeadlineFirst {
    waiting: Vec<BTreeSet<(Instant, usize)>>,
}

impl EarliestDeadlineFirst {
    pub(crate) fn new(models: usize) -> Self {
        Self { waiting: vec![BTreeSet::new(); models] }
    }
}

impl Policy for EarliestDeadlineFirst {
    fn offer(&mut self, now: Instant, Request { item, model, deadline }: Request) -> bool {
        self.waiting[model].insert((deadline.unwrap_or(now + NEVER), item))
    }

    fn decide(&mut self, now: Instant) -> Decision {
        let mut late = Vec::new();
        for waiting in &mut self.waiting {
            let in_time = waiting.split_off(&(now, usize::MAX));
            late.extend(std::mem::replace(waiting, in_time).into_iter().map(|(_, item)| item));
        }
        if !late.is_empty() {
            return Decision::Drop(late);
        }
        let firsts = self.waiting.iter().enumerate().filter_map(|(model, waiting)| Some((*waiting.first()?, model)));
        let Some((_, model)) = firsts.min() else { return Decision::Wait };
        let waiting = &mut self.waiting[model];
        let items = (0..MAX_BATCH_SIZE).map_while(|_| waiting.pop_first()).map(|(_, item)| item).collect();
        Decision::Run { model, items }
    }
}

/// The batchers of Sconce, and the turns of the models.
pub(crate) struct Sconce {
    batchers: Vec<Batcher<usize>>,
    robin: DeficitRoundRobin,
}

impl Sconce {
    pub(crate) fn new(models: usize, now: Instant) -> Self {
        let config = BatcherConfig { max_batch_size: MAX_BATCH_SIZE, ..BatcherConfig::default() };
        let batcher = || Batcher::new(now, config.clone(), BatchLayout::Packed).expect("valid bounds");
        let mut robin = DeficitRoundRobin::default();
        (0..models).for_each(|_| _ = robin.add());
        Self { batchers: std::iter::repeat_with(batcher).take(models).collect(), robin }
    }
}

impl Policy for Sconce {
    fn offer(&mut self, now: Instant, Request { item, model, deadline }: Request) -> bool {
        self.batchers[model].offer(now, item, 1, deadline).is_ok()
    }

    fn is_due(&self, now: Instant, model: usize) -> bool {
        self.batchers[model].is_due(now)
    }

    fn decide(&mut self, now: Instant) -> Decision {
        let items = |entries: Vec<sconce_batch::Entry<usize>>| entries.into_iter().map(|entry| entry.payload).collect();
        let wants: Vec<_> = self.batchers.iter().map(Batcher::want).collect();
        let mut order = Vec::new();
        self.robin.order(&wants, &mut order);
        let mut wake_at = None;
        for turn in order {
            match self.batchers[turn.queue].poll(now) {
                Step::Run(batch) => {
                    self.robin.begin(turn, &wants, !self.batchers[turn.queue].is_empty());
                    return Decision::Run { model: turn.queue, items: items(batch) };
                }
                Step::Expire(entries) => return Decision::Drop(items(entries)),
                Step::WaitUntil(at) => wake_at = [wake_at, Some(at)].into_iter().flatten().min(),
                Step::Wait | Step::Finish => {}
            }
        }
        wake_at.map_or(Decision::Wait, Decision::WaitUntil)
    }

    fn completed(&mut self, now: Instant, model: usize, size: usize, run: Duration) {
        self.robin.charge(model, run);
        self.batchers[model].completed(now, Ran { size, weight: size, run: Some(run) });
    }
}
