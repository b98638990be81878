//! Runs a test under many schedules of its threads, with `--cfg shuttle`; empty without.
//!
//! A schedule decides at each lock, atomic and wake-up which thread goes on. Half of the schedules are random; the others
//! come from PCT (Burckhardt et al., "A randomized scheduler with probabilistic guarantees of finding bugs", ASPLOS 2010),
//! which lets one thread run ahead of the others and finds bugs that need few, but long, interruptions.
//!
//! Environment: `SCONCE_SCHEDULES` is the number of schedules of each kind that a test runs, 2,000 by default. A test that
//! fails prints its schedule; `SCONCE_REPLAY` with that text, or with the name of a file that holds it, runs it alone.
#![cfg(shuttle)]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// Interruptions of threads in a schedule of PCT.
const INTERRUPTIONS: usize = 4;

/// Runs `test` under random schedules and those of PCT.
///
/// # Panics
/// If the test panics under one of them, if its threads all wait for each other, or if they never end.
pub fn explore(test: impl Fn() + Send + Sync + Copy + 'static) {
    if let Ok(schedule) = std::env::var("SCONCE_REPLAY") {
        let schedule = std::fs::read_to_string(&schedule).unwrap_or(schedule);
        return run(ReplayScheduler::new_from_encoded(schedule.trim_matches(['"', '\n', ' '])), test);
    }
    let iterations = std::env::var("SCONCE_SCHEDULES").map_or(2000, |count| {
        count.parse().unwrap_or_else(|_| panic!("SCONCE_SCHEDULES is {count}, but must be a number of schedules"))
    });
    run(RandomScheduler::new(iterations), test);
    run(PctScheduler::new(INTERRUPTIONS, iterations), test);
}

/// Polls a future until it is ready, or gives it up after a random number of polls.
pub fn perhaps<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..thread_rng().gen_range(1..6) {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        shuttle::thread::yield_now();
    }
    None
}

fn run(scheduler: impl Scheduler + 'static, test: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    // Some thousand steps are usual.
    config.max_steps = MaxSteps::FailAfter(200_000);
    // Shuttle warns that it treats all atomics as sequentially consistent.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(test);
}
