//! Stand-ins for threads, locks and the clock, by which a test tries many schedules.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(loom)]
use loom as model;
#[cfg(shuttle)]
use shuttle as model;

use model::sync::Condvar;
pub(crate) use model::sync::{Mutex, MutexGuard, atomic};
pub(crate) use model::thread;

thread_local! {
    /// The clock of a schedule: all its threads run on one thread of the system.
    static CLOCK: (Instant, Cell<Duration>) = (Instant::now(), Cell::default());
}

/// Time that passes from one reading of the clock to the next.
const TICK: Duration = Duration::from_micros(1);

/// Reads the clock. The same schedule reads the same times whenever it runs.
pub(crate) fn now() -> Instant {
    CLOCK.with(|(began, passed)| {
        passed.set(passed.get() + TICK);
        *began + passed.get()
    })
}

/// A stand-in for crossbeam's parker: a token, given by any number of other threads, that lets its thread go on.
pub(crate) struct Parker {
    unparker: Unparker,
}

#[derive(Clone)]
pub(crate) struct Unparker {
    inner: Arc<(Mutex<bool>, Condvar)>,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Self { unparker: Unparker { inner: Arc::new((Mutex::new(false), Condvar::new())) } }
    }

    pub(crate) fn unparker(&self) -> &Unparker {
        &self.unparker
    }

    pub(crate) fn park(&self) {
        let (token, given) = &*self.unparker.inner;
        let mut token = token.lock().expect("nobody panics with it");
        while !*token {
            token = given.wait(token).expect("nobody panics with it");
        }
        *token = false;
    }

    /// Blocks until the token is given, or for a random number of steps of other threads: how much they do before an
    /// instant is not known.
    pub(crate) fn park_deadline(&self, deadline: Instant) {
        for _ in 0..patience() {
            if std::mem::take(&mut *self.unparker.inner.0.lock().expect("nobody panics with it")) {
                return;
            }
            thread::yield_now();
        }
        CLOCK.with(|(began, passed)| passed.set(passed.get().max(deadline.saturating_duration_since(*began))));
    }
}

#[cfg(shuttle)]
fn patience() -> usize {
    use shuttle::rand::Rng;
    shuttle::rand::thread_rng().gen_range(0..8)
}

#[cfg(loom)]
fn patience() -> usize {
    1
}

impl Unparker {
    pub(crate) fn unpark(&self) {
        let (token, given) = &*self.inner;
        *token.lock().expect("nobody panics with it") = true;
        given.notify_one();
    }
}

/// A stand-in for crossbeam's wait group: waits until all its clones are dropped.
pub(crate) struct WaitGroup {
    inner: Arc<(Mutex<usize>, Condvar)>,
}

impl WaitGroup {
    pub(crate) fn new() -> Self {
        Self { inner: Arc::new((Mutex::new(1), Condvar::new())) }
    }

    pub(crate) fn wait(self) {
        let inner = Arc::clone(&self.inner);
        drop(self);
        let (clones, dropped) = &*inner;
        let mut clones = clones.lock().expect("nobody panics with it");
        while *clones > 0 {
            clones = dropped.wait(clones).expect("nobody panics with it");
        }
    }
}

impl Clone for WaitGroup {
    fn clone(&self) -> Self {
        *self.inner.0.lock().expect("nobody panics with it") += 1;
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl Drop for WaitGroup {
    fn drop(&mut self) {
        let (clones, dropped) = &*self.inner;
        // A failed schedule is torn down while its threads still hold locks.
        if let Ok(mut clones) = clones.lock() {
            *clones -= 1;
            dropped.notify_all();
        }
    }
}
