//! The driver: one thread that sends each request at its time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use sconce::{Answer, ErrorKind, InferError, Model, RequestGroup, Timing};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};

use super::figures::Stages;
use super::inputs::ReplayPlan;

/// A request that was sent, and its outcome.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReplayedRequest {
    /// The time at which it should have been sent, from the beginning of the trace.
    pub(crate) at: Duration,
    /// Time from then to the answer or the error.
    pub(crate) latency: Duration,
    pub(crate) outcome: ReplayOutcome,
}

/// The outcome of a replayed request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ReplayOutcome {
    Answered {
        /// The stages of the slowest item.
        stages: Stages,
        /// Tokens of all items, or their number.
        weight: usize,
        /// Weight, size and time of each batch that was told to this request.
        batches: Vec<BatchRun>,
        /// Set if the model read less of an input than there was.
        truncated: bool,
    },
    /// Refused or failed.
    Failed(ErrorKind),
}

/// A batch that ran.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BatchRun {
    pub(crate) weight: usize,
    pub(crate) run: Duration,
}

/// Sends the requests of a plan to a model.
pub(crate) struct Replayer<'a> {
    pub(crate) model: &'a Model,
    /// Advances with each request that is sent.
    pub(crate) progress: &'a ProgressBar,
    /// Ends the replay early once it is set: what was sent is still answered.
    pub(crate) stop: &'a AtomicBool,
}

impl Replayer<'_> {
    /// Replays the plan; returns the requests that were sent, in order of arrival, once all are answered.
    pub(crate) async fn run(&self, plan: &ReplayPlan) -> Vec<ReplayedRequest> {
        let handle = Handle::current();
        // This thread sleeps between requests, because timers of tokio are up to a millisecond late.
        let sent = tokio::task::block_in_place(|| self.send(plan, &handle));
        let mut replayed = Vec::with_capacity(sent.len());
        for request in sent {
            replayed.push(request.await.unwrap_or_else(|cause| std::panic::resume_unwind(cause.into_panic())));
        }
        replayed
    }

    fn send(&self, plan: &ReplayPlan, handle: &Handle) -> Vec<JoinHandle<ReplayedRequest>> {
        let mut sent = Vec::with_capacity(plan.requests.len());
        let start = Instant::now();
        for (index, request) in plan.requests.iter().enumerate() {
            let intended = start + request.at;
            self.wait_until(intended);
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let group = plan.group(index);
            sent.push(handle.spawn(answer(self.model.clone(), group, request.at, intended)));
            self.progress.inc(1);
        }
        sent
    }

    /// Sleeps until `moment`, or until the replay is to stop.
    fn wait_until(&self, moment: Instant) {
        /// The longest sleep between two looks at the flag.
        const NAP: Duration = Duration::from_millis(100);
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(left.min(NAP));
        }
    }

    /// Sends the requests in turn, whatever their times, for `time`: `callers` at a time, and the next when one is answered.
    /// Latencies count from sending.
    pub(crate) async fn run_closed(&self, plan: &ReplayPlan, callers: usize, time: Duration) -> Vec<ReplayedRequest> {
        let start = Instant::now();
        let (mut tasks, mut replayed) = (JoinSet::new(), Vec::new());
        loop {
            while tasks.len() < callers && start.elapsed() < time && !self.stop.load(Ordering::Relaxed) {
                let group = plan.group((replayed.len() + tasks.len()) % plan.requests.len());
                let sent = Instant::now();
                tasks.spawn(answer(self.model.clone(), group, sent - start, sent));
            }
            match tasks.join_next().await {
                None => return replayed,
                Some(Ok(request)) => replayed.push(request),
                Some(Err(cause)) => std::panic::resume_unwind(cause.into_panic()),
            }
        }
    }
}

async fn answer(model: Model, group: RequestGroup, at: Duration, intended: Instant) -> ReplayedRequest {
    let started = Instant::now();
    let outcome = model.try_infer_many(group).await;
    let ended = Instant::now();
    let latency = ended.saturating_duration_since(intended);
    let outcome = match outcome {
        Ok(answers) => answered(&answers, started.saturating_duration_since(intended), latency),
        Err(error) => ReplayOutcome::Failed(InferError::kind(&error.source)),
    };
    ReplayedRequest { at, latency, outcome }
}

fn answered(answers: &[Answer], late: Duration, latency: Duration) -> ReplayOutcome {
    let slowest = answers.iter().map(|answer| answer.timing).max_by_key(|timing| computed(*timing)).unwrap_or_default();
    let batches = answers.iter().filter_map(|answer| {
        let weight = answer.timing.batch_weight()?;
        Some(BatchRun { weight, run: answer.timing.run })
    });
    ReplayOutcome::Answered {
        stages: Stages::new(slowest, late, latency),
        weight: answers.iter().map(|answer| answer.tokens.unwrap_or(1)).sum(),
        batches: batches.collect(),
        truncated: answers.iter().any(|answer| answer.truncated),
    }
}

fn computed(Timing { cache, prepare, queue_wait, run, finish, .. }: Timing) -> Duration {
    cache + prepare + queue_wait + run + finish
}
