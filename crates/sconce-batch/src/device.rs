//! A device: one thread that runs the batches of the queues that share it, one batch at a time. It decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::deficit_round_robin::{DeficitRoundRobin, Turn, Want};
use crate::lane::{Lane, Outlook, Taken};
use crate::shared::lock;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{self, Mutex, Parker, Unparker};

/// One thread on which queues run their batches, in turns of fair length ([`DeficitRoundRobin`]).
///
/// Dropping it lets the thread end once the last of its queues is closed and empty.
pub struct Device {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

/// How a device is told that there is something to do.
pub(crate) struct Bell {
    unparker: Unparker,
    /// Whether the device sleeps and nobody has woken it yet.
    asleep: AtomicBool,
    began: Instant,
    /// When what runs is expected to end, in nanoseconds since it began and at least 1; 0 if nothing runs.
    busy_until: AtomicU64,
    arrivals: Mutex<Arrivals>,
}

#[derive(Default)]
struct Arrivals {
    lanes: Vec<Box<dyn Lane>>,
    /// No more will come.
    closed: bool,
}

impl Device {
    /// Starts the thread; `name` names it.
    ///
    /// # Errors
    /// Those of the operating system, if it gives no thread.
    pub fn spawn(name: &str) -> std::io::Result<Self> {
        let parker = Parker::new();
        let unparker = parker.unparker().clone();
        let bell = Arc::new(Bell {
            unparker,
            asleep: AtomicBool::new(false),
            began: sync::now(),
            busy_until: AtomicU64::new(0),
            arrivals: Mutex::default(),
        });
        let loop_bell = Arc::clone(&bell);
        let thread =
            thread::Builder::new().name(format!("sconce-{name}")).spawn(move || Loop::new(loop_bell, parker).run())?;
        Ok(Self { bell, thread: Some(thread) })
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// Waits until the thread has ended, which it does when its queues are closed and empty. Blocks.
    pub(crate) fn join(mut self) {
        self.bell.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a device thread ended by a panic");
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.bell.close();
    }
}

impl Bell {
    /// Wakes the device if it sleeps, and says whether it did.
    pub(crate) fn ring(&self) -> bool {
        let slept = self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst);
        if slept {
            self.unparker.unpark();
        }
        slept
    }

    /// When what runs is expected to end; `None` if nothing runs.
    pub(crate) fn busy_until(&self) -> Option<Instant> {
        let until = self.busy_until.load(Ordering::Relaxed);
        (until > 0).then(|| self.began + Duration::from_nanos(until))
    }

    /// Only the device's own thread says so.
    pub(crate) fn set_busy_until(&self, until: Option<Instant>) {
        let nanoseconds = |until: Instant| until.saturating_duration_since(self.began).as_nanos();
        let until = until.map_or(0, |until| u64::try_from(nanoseconds(until)).unwrap_or(u64::MAX).max(1));
        self.busy_until.store(until, Ordering::Relaxed);
    }

    /// Gives the device one more queue to run the batches of.
    pub(crate) fn add(&self, lane: Box<dyn Lane>) {
        lock(&self.arrivals).lanes.push(lane);
        self.ring();
    }

    fn close(&self) {
        lock(&self.arrivals).closed = true;
        self.ring();
    }
}

/// What the thread keeps to itself.
struct Loop {
    bell: Arc<Bell>,
    parker: Parker,
    lanes: Vec<Box<dyn Lane>>,
    robin: DeficitRoundRobin,
    // Kept for their memory.
    wants: Vec<Option<Want>>,
    order: Vec<Turn>,
    /// Queues whose work was left for a moment in this round.
    lingers: Vec<usize>,
}

impl Loop {
    fn new(bell: Arc<Bell>, parker: Parker) -> Self {
        Self {
            bell,
            parker,
            lanes: Vec::new(),
            robin: DeficitRoundRobin::default(),
            wants: Vec::new(),
            order: Vec::new(),
            lingers: Vec::new(),
        }
    }

    /// Runs batches until no more queues will come and the last is closed and empty.
    fn run(mut self) {
        loop {
            let mut next = self.next();
            if matches!(next, Next::Sleep(_)) {
                // Said before the last look: whatever comes after that look finds it asleep and wakes it.
                self.bell.asleep.store(true, Ordering::SeqCst);
                next = self.next();
                if let Next::Sleep(until) = next {
                    match until {
                        Some(until) => self.parker.park_deadline(until),
                        None => self.parker.park(),
                    }
                }
                self.bell.asleep.store(false, Ordering::SeqCst);
            }
            match next {
                Next::Run { queue, in_turn } => {
                    let started = sync::now();
                    self.lanes[queue].run();
                    if in_turn {
                        self.robin.charge(queue, sync::now().duration_since(started));
                    }
                }
                Next::Sleep(_) => {}
                Next::End => return,
            }
        }
    }

    /// Whose batch to run; that queue has taken it.
    fn next(&mut self) -> Next {
        let closed = self.arrivals();
        if let [only] = &mut *self.lanes {
            // It needs no turns.
            match only.take() {
                Taken::Batch { .. } => return Next::Run { queue: 0, in_turn: false },
                Taken::NothingUntil(at) => return Next::Sleep(Some(at)),
                Taken::Nothing => return Next::Sleep(None),
                Taken::Over => self.end(0),
            }
        }
        let mut wake_at = self.look();
        if closed && self.lanes.is_empty() {
            return Next::End;
        }
        self.robin.order(&self.wants, &mut self.order);
        self.lingers.clear();
        for &turn in &self.order {
            match self.lanes[turn.queue].take() {
                Taken::Batch { leaves_work } => {
                    self.robin.begin(turn, &self.wants, leaves_work);
                    for &queue in &self.lingers {
                        self.lanes[queue].stop_lingering();
                    }
                    return Next::Run { queue: turn.queue, in_turn: true };
                }
                Taken::NothingUntil(at) => {
                    wake_at = [wake_at, Some(at)].into_iter().flatten().min();
                    self.lingers.push(turn.queue);
                }
                // What is over is let go of at the next look.
                Taken::Nothing | Taken::Over => {}
            }
        }
        Next::Sleep(wake_at)
    }

    /// Takes in the queues that came, and says whether no more will.
    fn arrivals(&mut self) -> bool {
        let mut arrivals = lock(&self.bell.arrivals);
        for lane in arrivals.lanes.drain(..) {
            self.lanes.push(lane);
            self.robin.add();
        }
        arrivals.closed
    }

    /// Sees what waits, lets go of the queues that are over, and says when to look again at those that cannot run here now.
    fn look(&mut self) -> Option<Instant> {
        let mut look_again_at = None;
        self.wants.clear();
        while let Some(lane) = self.lanes.get(self.wants.len()) {
            match lane.outlook() {
                Outlook::Work(want) => self.wants.push(Some(want)),
                Outlook::Nothing(until) => {
                    self.wants.push(None);
                    look_again_at = [look_again_at, until].into_iter().flatten().min();
                }
                Outlook::Over => {
                    self.end(self.wants.len());
                }
            }
        }
        look_again_at
    }

    fn end(&mut self, queue: usize) {
        self.robin.remove(queue);
        self.lanes.remove(queue).end();
    }
}

enum Next {
    Run {
        queue: usize,
        /// Whether it had to wait for its turn, and so pays for it.
        in_turn: bool,
    },
    /// Until this instant, or until the bell rings.
    Sleep(Option<Instant>),
    End,
}

#[cfg(all(test, loom))]
mod orders;

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_bell_tells_until_when_its_device_is_busy() {
        let device = Device::spawn("test").unwrap();
        let bell = device.bell();
        assert_eq!(bell.busy_until(), None);
        let until = bell.began + Duration::from_millis(5);
        bell.set_busy_until(Some(until));
        assert_eq!(bell.busy_until(), Some(until));
        bell.set_busy_until(bell.began.checked_sub(Duration::from_millis(5)));
        assert_eq!(bell.busy_until(), Some(bell.began + Duration::from_nanos(1)), "what is overdue still runs");
        bell.set_busy_until(None);
        assert_eq!(bell.busy_until(), None);
    }
}
