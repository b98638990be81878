//! A retry storm on a busy processor, in virtual time: callers in a closed loop have short deadlines and retry at once
//! after each refusal, while some batches take many times as long as others. Requests for most of the capacity must
//! still be answered in time, and no estimate that a refusal gives may be far from the waits that callers see.

#![expect(clippy::unwrap_used, reason = "clippy knows the tests as tests, but not the functions they share")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sconce_batch::{BatchLayout, Batcher, BatcherConfig, Entry, Error, Ran, Step};

const MS: Duration = Duration::from_millis(1);
/// Time from an answer to the caller's next request.
const RETURN_TIME: Duration = Duration::from_micros(500);
const CALLERS: usize = 120;
const TIME: Duration = Duration::from_secs(10);

/// A caller's reaction to a refusal.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manners {
    RetriesAtOnce,
    WaitsAsTold,
}

#[derive(Debug, Clone, Copy)]
struct Storm {
    seed: u64,
    /// Fixed cost of a batch on a processor of its own.
    fixed: Duration,
    /// Cost of each unit of weight.
    per_weight: Duration,
    /// Weight of each request.
    weight: usize,
    /// Stalls per second, during which another process has the processor.
    stalls: f64,
    longest_stall: Duration,
    /// Time from a request to its deadline; `None` for no deadline.
    timeout: Option<Duration>,
    manners: Manners,
}

impl Storm {
    /// Batches of `fixed_us` + `per_weight_us` · weight on a processor with `stalls` a second of up to
    /// `longest_stall_ms` each.
    const fn of(fixed_us: u64, per_weight_us: u64, stalls: f64, longest_stall_ms: u64) -> Self {
        Self {
            seed: 1,
            fixed: Duration::from_micros(fixed_us),
            per_weight: Duration::from_micros(per_weight_us),
            weight: 12,
            stalls,
            longest_stall: Duration::from_millis(longest_stall_ms),
            timeout: Some(Duration::from_millis(100)),
            manners: Manners::RetriesAtOnce,
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    answered: usize,
    in_time: usize,
    refused: usize,
    dropped: usize,
    batches: usize,
    longest_wait: Duration,
    longest_estimate: Duration,
    longest_retry_after: Duration,
    shortest_retry_after: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Request,
    Completion,
    Wake,
}

struct World {
    storm: Storm,
    rng: StdRng,
    start: Instant,
    now: Instant,
    batcher: Batcher<()>,
    running: Option<(Vec<Entry<()>>, Instant)>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    scheduled: u64,
    seen: Seen,
}

impl World {
    fn run(storm: Storm) -> Seen {
        let start = Instant::now();
        let mut world = Self {
            storm,
            rng: StdRng::seed_from_u64(storm.seed),
            start,
            now: start,
            batcher: Batcher::new(start, BatcherConfig::default(), BatchLayout::Packed).unwrap(),
            running: None,
            events: BinaryHeap::new(),
            scheduled: 0,
            seen: Seen::default(),
        };
        for caller in 0..CALLERS {
            world.schedule(start + MS / 100 * u32::try_from(caller).unwrap(), Event::Request);
        }
        while let Some(Reverse((at, _, event))) = world.events.pop() {
            if at > start + TIME {
                break;
            }
            world.now = at;
            match event {
                Event::Request => world.request(),
                Event::Completion => world.complete(),
                Event::Wake => {}
            }
            world.dispatch();
        }
        world.seen
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    /// Returns true once the batcher has had time to learn.
    fn is_measured(&self) -> bool {
        self.now > self.start + TIME / 10
    }

    fn request(&mut self) {
        let Storm { weight, timeout, .. } = self.storm;
        let deadline = timeout.map(|timeout| self.now + timeout);
        if let Err(refused) = self.batcher.offer(self.now, (), weight, deadline) {
            self.refuse(&refused.error);
        }
    }

    fn refuse(&mut self, error: &Error) {
        let retry_after = error.retry_after();
        if self.is_measured() {
            let seen = &mut self.seen;
            seen.refused += 1;
            if let Error::Overloaded { wait, .. } = error {
                seen.longest_estimate = seen.longest_estimate.max(*wait);
            }
            let told = retry_after.expect("it is learned by now");
            seen.longest_retry_after = seen.longest_retry_after.max(told);
            seen.shortest_retry_after = Some(seen.shortest_retry_after.map_or(told, |shortest| shortest.min(told)));
        }
        let pause = match self.storm.manners {
            Manners::RetriesAtOnce => Duration::ZERO,
            Manners::WaitsAsTold => retry_after.unwrap_or_default(),
        };
        self.schedule(self.now + RETURN_TIME + pause, Event::Request);
    }

    fn dispatch(&mut self) {
        while self.running.is_none() {
            match self.batcher.poll(self.now) {
                Step::Run(batch) => self.begin(batch),
                Step::Expire(entries) => {
                    let error = Error::DeadlineExceeded { retry_after: Some(MS) };
                    for _ in entries {
                        self.seen.dropped += usize::from(self.is_measured());
                        self.refuse(&error);
                    }
                }
                Step::WaitUntil(at) => return self.schedule(at, Event::Wake),
                Step::Wait | Step::Finish => return,
            }
        }
    }

    fn begin(&mut self, batch: Vec<Entry<()>>) {
        let Storm { fixed, per_weight, weight, stalls, longest_stall, .. } = self.storm;
        let work = fixed + per_weight * u32::try_from(batch.len() * weight).unwrap();
        let mut run = work;
        let expected = stalls * work.as_secs_f64();
        let mut stalls = expected.floor() + f64::from(u8::from(self.rng.random_bool(expected.fract())));
        while stalls > 0.0 {
            run += longest_stall.mul_f64(self.rng.random::<f64>().powi(2));
            stalls -= 1.0;
        }
        self.seen.batches += usize::from(self.is_measured());
        self.running = Some((batch, self.now));
        self.schedule(self.now + run, Event::Completion);
    }

    fn complete(&mut self) {
        let (batch, started) = self.running.take().unwrap();
        let (size, weight) = (batch.len(), batch.len() * self.storm.weight);
        self.batcher.completed(self.now, Ran { size, weight, run: Some(self.now - started) });
        for entry in batch {
            if self.is_measured() {
                self.seen.answered += 1;
                self.seen.in_time += usize::from(entry.deadline.is_none_or(|deadline| self.now <= deadline));
                self.seen.longest_wait = self.seen.longest_wait.max(self.now - entry.arrived);
            }
            self.schedule(self.now + RETURN_TIME, Event::Request);
        }
    }
}

/// Processors, each with the least share of its capacity that is to be answered in time.
const PROCESSORS: [(Storm, f64); 8] = [
    (Storm::of(2_000, 80, 0.0, 1), 0.98),
    (Storm::of(2_000, 80, 100.0, 30), 0.8),
    // Its stalls take most of the time to a deadline.
    (Storm::of(2_000, 80, 20.0, 80), 0.75),
    (Storm::of(5_000, 20, 100.0, 30), 0.9),
    (Storm::of(20_000, 40, 20.0, 40), 0.8),
    (Storm::of(40_000, 100, 0.0, 1), 0.85),
    // Batches large enough to be efficient are rarely in time here; the share only requires that some requests are answered.
    (Storm::of(40_000, 100, 20.0, 40), 0.3),
    (Storm::of(60_000, 40, 2.0, 20), 0.75),
];

#[test]
fn in_a_storm_on_a_busy_processor_most_of_the_capacity_is_answered_in_time_and_estimates_are_sober() {
    for (storm, least) in PROCESSORS {
        let capacity = World::run(Storm { timeout: None, ..storm }).answered;
        for manners in [Manners::RetriesAtOnce, Manners::WaitsAsTold] {
            let storm = Storm { manners, ..storm };
            let seen = World::run(storm);
            let share = seen.in_time as f64 / capacity as f64;
            println!("{share:.2} of {capacity} in time: {storm:?}, {seen:?}");
            assert!(share >= least, "{share}, {storm:?}, {seen:?}");
            assert!(seen.longest_estimate <= 2 * seen.longest_wait, "{storm:?}, {seen:?}");
            assert!(seen.longest_retry_after <= 2 * seen.longest_wait, "{storm:?}, {seen:?}");
            assert!(seen.shortest_retry_after >= Some(MS), "{storm:?}, {seen:?}");
            assert!(seen.answered > seen.batches, "batches of one: {storm:?}, {seen:?}");
        }
    }
}
