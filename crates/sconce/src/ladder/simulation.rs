//! The policy in virtual time, with the batchers that serve: rungs of a model that share a processor, of known cost.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sconce_batch::{BatchLayout, Batcher, BatcherConfig, CostLine, CostModel, Forecast, Ran, Step, Terms};
use sconce_watch::{DegradationEvent, ModelWatch};

use super::policy::{Arrived, LadderFigures, LadderPolicy, LadderStep, MAX_REST};

const HOUR: Duration = Duration::from_hours(1);
/// The time in which every request is to be answered.
const TARGET: Duration = Duration::from_millis(500);
const F32: CostLine = CostLine { fixed: 0.004, per_weight: 0.000_25 };
/// 2.2 times as fast as f32.
const INT8: CostLine = CostLine { fixed: F32.fixed / 2.2, per_weight: F32.per_weight / 2.2 };
/// Tokens of a text: at least, and at most.
const WEIGHTS: (usize, usize) = (8, 64);
/// Weight that f32 computes in a second in batches of half the target.
const F32_CAPACITY: f64 = 984.0 / 0.25;

/// A rung: its queue, its true cost, and the batch that it runs.
struct Rung {
    batcher: Batcher<Instant>,
    cost: CostLine,
    running: Option<Running>,
    wakes: Option<Instant>,
}

struct Running {
    batch: Vec<(Instant, usize)>,
    started: Instant,
    /// Seconds of work that are left, on a processor that does nothing else.
    left: f64,
}

struct World {
    rng: StdRng,
    start: Instant,
    now: Instant,
    rungs: Vec<Rung>,
    policy: LadderPolicy,
    looks: Instant,
    arrived: Arrived,
    steps: Vec<(Duration, LadderStep)>,
    /// The watch for slowdowns, which a step is not.
    watch: ModelWatch,
    slowdowns: Vec<(Duration, DegradationEvent)>,
    in_time: usize,
    late: usize,
    refused: usize,
}

/// The load as a share of the capacity in f32, at a time since the start.
type Load<'a> = &'a dyn Fn(Duration) -> f64;

impl World {
    fn new(seed: u64, costs: &[CostLine]) -> Self {
        let start = Instant::now();
        let rung = |cost: &CostLine| {
            let batcher = Batcher::new(start, BatcherConfig::default(), BatchLayout::Packed);
            let mut batcher = batcher.expect("the defaults are valid");
            // Rungs are measured before they serve.
            let mut learned = CostModel::default();
            (1..64).for_each(|weight| learned.observe(8 * weight, Duration::from_secs_f64(cost.at(8 * weight))));
            batcher.learned(0, learned);
            Rung { batcher, cost: *cost, running: None, wakes: None }
        };
        Self {
            rng: StdRng::seed_from_u64(seed),
            start,
            now: start,
            rungs: costs.iter().map(rung).collect(),
            policy: LadderPolicy::new(0, costs.len() - 1),
            looks: start,
            arrived: Arrived::default(),
            steps: Vec::new(),
            watch: ModelWatch::default().running_at_a_time(1),
            slowdowns: Vec::new(),
            in_time: 0,
            late: 0,
            refused: 0,
        }
    }

    /// Lets requests come at random for a time, with this load.
    fn run(mut self, time: Duration, load: Load<'_>) -> Self {
        let mut next_arrival = self.start;
        while next_arrival < self.start + time {
            while let Some((at, rung)) = self.next_event().filter(|(at, _)| *at <= next_arrival) {
                self.pass(at);
                self.drive(rung);
            }
            self.pass(next_arrival);
            self.arrive();
            let mean_weight = (WEIGHTS.0 + WEIGHTS.1) as f64 / 2.0;
            let rate = load(self.now - self.start) * F32_CAPACITY / mean_weight;
            let gap = -(1.0 - self.rng.random::<f64>()).ln() / rate;
            next_arrival += Duration::from_secs_f64(gap);
        }
        self
    }

    /// The next time at which a rung completes its batch or looks for one.
    fn next_event(&self) -> Option<(Instant, usize)> {
        let sharing = self.rungs.iter().filter(|rung| rung.running.is_some()).count() as f64;
        let at = |rung: &Rung| match &rung.running {
            Some(running) => Some(self.now + Duration::from_secs_f64(running.left * sharing) + Duration::from_nanos(1)),
            None => rung.wakes,
        };
        self.rungs.iter().enumerate().filter_map(|(index, rung)| Some((at(rung)?, index))).min()
    }

    /// Rungs that run at the same time share the processor.
    fn pass(&mut self, until: Instant) {
        let passed = until.saturating_duration_since(self.now).as_secs_f64();
        let sharing = self.rungs.iter().filter(|rung| rung.running.is_some()).count() as f64;
        self.rungs.iter_mut().filter_map(|rung| rung.running.as_mut()).for_each(|it| it.left -= passed / sharing);
        self.now = until.max(self.now);
    }

    fn arrive(&mut self) {
        let weight = self.rng.random_range(WEIGHTS.0..=WEIGHTS.1);
        let Arrived { items, weighed, weight: sum } = self.arrived;
        self.arrived = Arrived { items: items + 1, weighed: weighed + 1, weight: sum + weight as u64 };
        if self.now >= self.looks {
            self.looks = self.now + TARGET / 32;
            self.look(weight);
        }
        let (now, active) = (self.now, self.policy.active());
        let terms = Terms { deadline: Some(now + TARGET), ..Terms::default() };
        match self.rungs[active].batcher.offer(now, now, weight, terms) {
            Ok(_) if self.rungs[active].running.is_none() && self.rungs[active].batcher.is_due(now) => {
                self.drive(active);
            }
            Ok(_) => {}
            Err(_) => self.refused += 1,
        }
    }

    fn look(&mut self, weight: usize) {
        let forecasts: Vec<Forecast> = self.rungs.iter().map(|rung| rung.batcher.forecast(self.now, weight)).collect();
        let BatcherConfig { max_batch_size, max_batch_weight, .. } = BatcherConfig::default();
        let (arrived, target) = (self.arrived, TARGET);
        let figures = LadderFigures { arrived, target, max_batch_size, max_batch_weight, forecasts: &forecasts };
        let step = self.policy.look(self.now, &figures);
        self.steps.extend(step.map(|step| (self.now - self.start, step)));
    }

    /// Ends a rung's batch that is due, and begins the next.
    fn drive(&mut self, rung: usize) {
        let (now, index, rung) = (self.now, rung, &mut self.rungs[rung]);
        if let Some(Running { batch, started, .. }) = rung.running.take() {
            let (run, weight) = (now - started, batch.iter().map(|(_, weight)| weight).sum());
            let mut events = self.watch.ran(now, index, weight, run).to_vec();
            for (arrived, _) in &batch {
                events.push(self.watch.waited(now, started - *arrived, run));
                *(if now - *arrived <= TARGET { &mut self.in_time } else { &mut self.late }) += 1;
            }
            self.slowdowns.extend(events.into_iter().flatten().map(|event| (now - self.start, event)));
            rung.batcher.completed(now, Ran { size: batch.len(), weight, run: Some(run) });
        }
        loop {
            match rung.batcher.poll(now) {
                Step::Run(entries) => {
                    let batch: Vec<_> = entries.into_iter().map(|entry| (entry.payload, entry.weight)).collect();
                    let weight = batch.iter().map(|(_, weight)| weight).sum();
                    let left = rung.cost.at(weight) * self.rng.random_range(0.95..1.1);
                    rung.running = Some(Running { batch, started: now, left });
                    break;
                }
                Step::Expire(entries) => self.late += entries.len(),
                Step::WaitUntil(at) => {
                    rung.wakes = Some(at);
                    return;
                }
                Step::Wait | Step::Finish => break,
            }
        }
        rung.wakes = None;
    }

    /// The share of all requests that were answered in time.
    fn share_in_time(&self) -> f64 {
        self.in_time as f64 / (self.in_time + self.late + self.refused) as f64
    }

    fn print(&self, what: &str) {
        let share = self.share_in_time();
        println!("{what}: {share:.4} in time, {} late, {} refused", self.late, self.refused);
        for (at, LadderStep { from, to, reason }) in &self.steps {
            println!("  {at:.1?}: {from} to {to}, {reason}");
        }
    }

    /// No step follows another within a minute.
    fn assert_steps_are_rare(&self) {
        for pair in self.steps.windows(2) {
            assert!(pair[1].0 >= pair[0].0 + Duration::from_mins(1), "{:?}", self.steps);
        }
    }
}

fn steady(seed: u64, costs: &[CostLine], time: Duration, load: f64) -> World {
    let world = World::new(seed, costs).run(time, &|_| load);
    world.print(&format!("{load} of f32's capacity on {} rungs", costs.len()));
    world
}

#[test]
fn at_half_as_much_again_as_f32_can_do_int8_keeps_nearly_all_requests_in_time() {
    let time = Duration::from_mins(5);
    let alone = steady(1, &[F32], time, 1.5);
    assert!(alone.share_in_time() < 0.75, "f32 alone can do two thirds");
    let ladder = steady(1, &[F32, INT8], time, 1.5);
    assert!(ladder.share_in_time() >= 0.95);
    assert_eq!(ladder.steps.len(), 1, "{:?}", ladder.steps);
}

#[test]
fn at_a_steady_load_there_is_at_most_one_step_a_minute_and_no_oscillation() {
    for (seed, load) in [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3, 1.5].into_iter().enumerate() {
        let world = steady(seed as u64, &[F32, INT8], HOUR, load);
        world.assert_steps_are_rare();
        assert!(world.steps.len() <= 3, "{:?}", world.steps);
        assert!(world.share_in_time() >= 0.99, "{load}: {}", world.share_in_time());
        if load <= 0.6 {
            assert_eq!(world.steps, [], "f32 does");
        }
    }
}

#[test]
fn it_steps_back_up_once_the_load_has_fallen_and_stays_there() {
    const MINUTE: Duration = Duration::from_mins(1);
    for (seed, fallen) in [0.3, 0.5, 0.6].into_iter().enumerate() {
        let load = |at: Duration| if at < 5 * MINUTE { 1.4 } else { fallen };
        let world = World::new(seed as u64, &[F32, INT8]).run(30 * MINUTE, &load);
        world.print(&format!("1.4 for five minutes, then {fallen}"));
        assert!(world.slowdowns.is_empty(), "a step is no slowdown: {:?}", world.slowdowns);
        let [(down, _), (up, _)] = world.steps[..] else { panic!("{:?}", world.steps) };
        assert!(down < MINUTE && up > 6 * MINUTE && up < 10 * MINUTE);
        assert!(world.share_in_time() >= 0.99);
    }
}

#[test]
fn a_load_that_grows_right_after_a_step_up_is_met_at_once() {
    const MINUTE: Duration = Duration::from_mins(1);
    // It steps up a good minute and a half after the load has fallen, and has been up for less than a minute when it is back.
    let load = |at: Duration| if at < 2 * MINUTE || at > 4 * MINUTE { 1.5 } else { 0.2 };
    let world = World::new(1, &[F32, INT8]).run(5 * MINUTE, &load);
    world.print("1.5, then 0.2, then 1.5 again");
    let [_, (up, _), (down, _)] = world.steps[..] else { panic!("{:?}", world.steps) };
    assert!(up < 4 * MINUTE && down > 4 * MINUTE && down < up + MINUTE);
    assert!(world.share_in_time() >= 0.95);
}

#[test]
fn bursts_are_answered_and_the_more_often_they_come_the_longer_it_stays_down() {
    const PERIOD: Duration = Duration::from_mins(3);
    let load = |at: Duration| if at.as_secs() % PERIOD.as_secs() < 20 { 1.8 } else { 0.3 };
    let world = World::new(1, &[F32, INT8]).run(HOUR, &load);
    world.print("1.8 for 20 seconds of every 3 minutes, else 0.3");
    let in_half = |half: u32| world.steps.iter().filter(|(at, _)| (*at > HOUR / 2) == (half == 1)).count();
    assert!(in_half(1) < in_half(0), "{:?}", world.steps);
    assert!(world.share_in_time() >= 0.97);
    assert!(world.steps.len() <= 2 * usize::try_from(HOUR.as_secs() / PERIOD.as_secs()).expect("few"));
    assert!(MAX_REST < HOUR);
}

#[test]
fn of_several_lower_rungs_it_takes_the_highest_that_is_fast_enough() {
    const FASTEST: CostLine = CostLine { fixed: F32.fixed / 4.0, per_weight: F32.per_weight / 4.0 };
    let time = Duration::from_mins(10);
    let world = steady(1, &[F32, INT8, FASTEST], time, 1.5);
    assert_eq!(world.steps.iter().map(|(_, step)| step.to).collect::<Vec<_>>(), [1]);
    let world = steady(1, &[F32, INT8, FASTEST], time, 3.0);
    assert_eq!(world.policy.active(), 2);
    world.assert_steps_are_rare();
    assert!(world.share_in_time() >= 0.95);
}
