//! Threads that help with the parts of one computation.
//!
//! The caller works too, and takes the next part whenever it is free, as the helpers do. Nothing waits for a helper that
//! the system has not woken in time: on a machine with more work than cores a computation goes on alone instead of
//! standing at a barrier. Helpers sleep when there is nothing to do. Only between the stages of one computation do they
//! and the caller wait awake, for 50 µs at most.

use std::any::Any;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Threads of the largest team.
pub const MAX_THREADS: usize = 256;

/// A caller and its helpers; several callers may share one team.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// let team = sconce_kernels::Team::default();
/// let sum = AtomicUsize::new(0);
/// team.run(10, &|part| { sum.fetch_add(part, Ordering::Relaxed); });
/// assert_eq!(sum.into_inner(), 45);
/// ```
pub struct Team {
    board: Arc<JobBoard>,
    helpers: Vec<JoinHandle<()>>,
}

impl Default for Team {
    /// A thread for each core that the process may use; the caller alone where the system starts no others.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let threads = cores.min(NonZeroUsize::new(MAX_THREADS).expect("not zero"));
        Self::new(threads).unwrap_or_else(|_| Self::alone())
    }
}

/// The board on which callers offer jobs and helpers find them.
struct JobBoard {
    state: Mutex<BoardState>,
    /// Number of jobs offered so far.
    jobs: AtomicUsize,
    /// Signalled when a job is offered or the team closes.
    job_came: Condvar,
    /// Signalled when a helper has left a job.
    helper_left: Condvar,
}

struct BoardState {
    /// Jobs on the stacks of their callers. A caller removes its job and waits for the job's helpers before it returns.
    jobs: Vec<TeamJobPointer>,
    sleeping: usize,
    closing: bool,
}

struct TeamJobPointer(*const TeamJob<'static>);

// SAFETY: a job is shared by reference among threads, and its fields are `Sync`.
unsafe impl Send for TeamJobPointer {}

struct TeamJob<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    parts: usize,
    /// Index of the next part to take.
    next: AtomicUsize,
    /// Helpers at work on the job. Changed while the state is locked; a helper's decrement is its last access to the job.
    helpers: AtomicUsize,
    /// True if the next stage of the same computation follows at once.
    more_follows: bool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl TeamJob<'_> {
    fn has_parts(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.parts
    }

    /// Takes parts until none is left. The first panic is kept, and the other parts still run.
    fn take_parts(&self) {
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part >= self.parts {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.work)(part))) {
                self.panic.lock().expect("nothing panics while it is locked").get_or_insert(panic);
            }
        }
    }
}

impl Team {
    /// A team of `threads`, the caller included.
    ///
    /// # Errors
    /// If there are more than [`MAX_THREADS`], or the system cannot start one.
    pub fn new(threads: NonZeroUsize) -> io::Result<Self> {
        if threads.get() > MAX_THREADS {
            let message = format!("{threads} threads for one computation; at most {MAX_THREADS} are allowed");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        // Dropped on an error, which ends the helpers that did start.
        let mut team = Self::alone();
        for helper in 1..threads.get() {
            let board = Arc::clone(&team.board);
            let thread = std::thread::Builder::new().name(format!("sconce-cpu-{helper}"));
            team.helpers.push(thread.spawn(move || board.help())?);
        }
        Ok(team)
    }

    /// A team of the caller alone, which starts no thread.
    #[must_use]
    pub fn alone() -> Self {
        let state = BoardState { jobs: Vec::new(), sleeping: 0, closing: false };
        let board = JobBoard {
            state: Mutex::new(state),
            job_came: Condvar::new(),
            helper_left: Condvar::new(),
            jobs: AtomicUsize::new(0),
        };
        Self { board: Arc::new(board), helpers: Vec::new() }
    }

    /// Threads of a computation, its caller included.
    #[must_use]
    pub fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::MIN.saturating_add(self.helpers.len())
    }

    /// Calls `work` with each of `0..parts` once, here and on the helpers that are free, and returns when all are done.
    ///
    /// # Panics
    /// If `work` does: the first panic goes on here, after all parts have ended.
    pub fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        self.run_job(parts, work, false);
    }

    /// [`Team::run`] for one of many short stages: helpers stay awake a moment for the next one.
    pub(crate) fn run_stage(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        self.run_job(parts, work, true);
    }

    fn run_job(&self, parts: usize, work: &(dyn Fn(usize) + Sync), more_follows: bool) {
        let (next, helpers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let job = TeamJob { work, parts, next, helpers, more_follows, panic: Mutex::new(None) };
        if parts > 1 && !self.helpers.is_empty() {
            self.board.offer(&job);
            job.take_parts();
            self.board.withdraw(&job);
        } else {
            job.take_parts();
        }
        if let Some(panic) = job.panic.into_inner().expect("nothing panics while it is locked") {
            resume_unwind(panic);
        }
    }
}

impl JobBoard {
    fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().expect("nothing panics while it is locked")
    }

    fn offer(&self, job: &TeamJob<'_>) {
        let mut state = self.lock();
        state.jobs.push(TeamJobPointer(std::ptr::from_ref(job).cast()));
        let wanted = state.sleeping.min(job.parts - 1);
        self.jobs.fetch_add(1, Ordering::Relaxed);
        drop(state);
        for _ in 0..wanted {
            self.job_came.notify_one();
        }
    }

    /// Takes the job off the board and waits until no helper uses it.
    fn withdraw(&self, job: &TeamJob<'_>) {
        let mut state = self.lock();
        state.jobs.retain(|other| !std::ptr::addr_eq(other.0, job));
        if job.more_follows {
            drop(state);
            wait_a_moment(|| job.helpers.load(Ordering::Acquire) == 0);
            state = self.lock();
        }
        while job.helpers.load(Ordering::Relaxed) > 0 {
            state = self.helper_left.wait(state).expect("nothing panics while it is locked");
        }
    }

    /// Loop of a helper thread: takes parts of offered jobs until the team closes.
    fn help(&self) {
        let mut state = self.lock();
        while !state.closing {
            // SAFETY: a job is on the list only while its caller is within `run` and waits for the lock to take it off.
            let open = state.jobs.iter().map(|job| unsafe { &*job.0 }).find(|job| job.has_parts());
            let Some(job) = open else {
                state.sleeping += 1;
                state = self.job_came.wait(state).expect("nothing panics while it is locked");
                state.sleeping -= 1;
                continue;
            };
            job.helpers.fetch_add(1, Ordering::Relaxed);
            drop(state);
            let (seen, more_follows) = (self.jobs.load(Ordering::Relaxed), job.more_follows);
            job.take_parts();
            state = self.lock();
            if job.helpers.fetch_sub(1, Ordering::Release) == 1 {
                self.helper_left.notify_all();
            }
            if more_follows {
                drop(state);
                wait_a_moment(|| self.jobs.load(Ordering::Relaxed) != seen);
                state = self.lock();
            }
        }
    }
}

/// Spins until `until` holds, but no longer than it would take to fall asleep and be woken.
fn wait_a_moment(until: impl Fn() -> bool) {
    const MOMENT: Duration = Duration::from_micros(50);
    let end = Instant::now() + MOMENT;
    while !until() && Instant::now() < end {
        std::hint::spin_loop();
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.board.lock().closing = true;
        self.board.job_came.notify_all();
        for helper in self.helpers.drain(..) {
            helper.join().expect("a helper catches the panics of its work");
        }
    }
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({} threads)", self.threads())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn team(threads: usize) -> Team {
        Team::new(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    #[test]
    fn too_many_threads_are_refused() {
        let refused = Team::new(NonZeroUsize::new(MAX_THREADS + 1).unwrap()).unwrap_err();
        assert_eq!(refused.to_string(), "257 threads for one computation; at most 256 are allowed");
        assert_eq!(Team::alone().threads(), NonZeroUsize::MIN);
    }

    #[test]
    fn each_part_is_run_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 5] {
            let team = team(threads);
            for parts in [0, 1, 2, 3, 100] {
                let runs: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                team.run(parts, &|part| {
                    runs[part].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{parts} parts on {threads}");
            }
        }
    }

    #[test]
    fn helpers_take_parts_while_the_caller_is_busy() {
        // The first part ends only when the second has run, so another thread must take it.
        let (team, ran) = (team(2), AtomicBool::new(false));
        let deadline = Instant::now() + Duration::from_mins(1);
        team.run(2, &|part| {
            if part == 1 {
                ran.store(true, Ordering::Release);
            }
            while !ran.load(Ordering::Acquire) {
                assert!(Instant::now() < deadline, "no helper came");
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_parts_and_the_team_goes_on() {
        let (team, runs) = (team(3), AtomicUsize::new(0));
        for _ in 0..20 {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                team.run(8, &|part| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    assert_ne!(part, 3, "part three fails");
                });
            }));
            let message = *panic.unwrap_err().downcast::<String>().unwrap();
            assert!(message.contains("part three fails"), "{message}");
        }
        assert_eq!(runs.load(Ordering::Relaxed), 160);
    }

    #[test]
    fn several_callers_share_one_team() {
        let team = team(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sum = AtomicUsize::new(0);
                        team.run(7, &|part| {
                            sum.fetch_add(part, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 21);
                    }
                });
            }
        });
    }

    #[test]
    fn work_within_work_is_done() {
        let (team, sum) = (team(2), AtomicUsize::new(0));
        team.run(4, &|_| {
            team.run(4, &|part| {
                sum.fetch_add(part, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 24);
    }
}
