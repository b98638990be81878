//! The check of a model: samples answers, and compares them on a thread of its own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use sconce_batch::{Priority, Terms};
use sconce_models::{Features, Finishing, Input, Output, Precision, VectorOptions};

use super::cusum::ShareTest;
use super::similarity::similarity;
use super::{ShadowAllowance, ShadowConfig};
use crate::devices::RunningBatches;
use crate::ladder::Rung;
use crate::model::{Inner, Model};
use crate::prepare::caught;

/// The most answers that wait to be compared. Fewer: bursts of answers are dropped, although there is idle time after them.
/// More: memory, and comparisons of long ago.
const MAX_PENDING: usize = 64;

/// The shadow check of one model. The reference is the first rung, in f32.
pub(crate) struct ShadowCheck {
    share: f64,
    /// Answers in lower precisions so far.
    answers: AtomicU64,
    running: RunningBatches,
    pending: Mutex<Option<CheckThread>>,
    /// Answers that were sampled and not compared.
    dropped: AtomicU64,
    /// The comparisons of each rung.
    counts: Mutex<Vec<ShadowCounts>>,
}

/// The way to the thread that compares.
struct CheckThread {
    sender: SyncSender<Box<Sample>>,
    thread: JoinHandle<()>,
}

/// The comparisons of a rung so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShadowCounts {
    pub(crate) precision: Precision,
    pub(crate) alike: u64,
    pub(crate) different: u64,
    pub(crate) alarm: bool,
    allowance: ShadowAllowance,
    test: ShareTest,
}

/// An answer that is to be compared: first with its features, then with its row. On the heap, so that requests which are not
/// sampled carry no room for it.
pub(crate) struct Sample {
    rung: usize,
    /// The input, if outputs cannot be made without it.
    input: Option<Input>,
    features: Option<Features>,
    row: Vec<f32>,
}

impl ShadowCheck {
    pub(crate) fn new(config: &ShadowConfig, rungs: &[Rung], running: RunningBatches) -> Self {
        let ShadowConfig { share, allowance } = *config;
        let counts = |rung: &Rung| {
            let decided = rung.permission.decided().map(|it| ShadowAllowance::decided(&it.candidate.measured.likeness));
            let allowance = allowance.or(decided).unwrap_or_default();
            let test = ShareTest::new(allowance.max_share_below);
            ShadowCounts { precision: rung.precision, alike: 0, different: 0, alarm: false, allowance, test }
        };
        Self {
            share,
            answers: AtomicU64::new(0),
            running,
            pending: Mutex::default(),
            dropped: AtomicU64::new(0),
            counts: Mutex::new(rungs.iter().map(counts).collect()),
        }
    }

    /// Starts the thread that compares. It ends with the model, or when the check is [ended](Self::end).
    pub(crate) fn start(&self, model: &Arc<Inner>) -> std::io::Result<()> {
        let (sender, receiver) = sync_channel(MAX_PENDING);
        let model = Arc::downgrade(model);
        let thread = std::thread::Builder::new().name("shadow".to_owned());
        let thread = thread.spawn(move || compare_all(&receiver, &model))?;
        *lock(&self.pending) = Some(CheckThread { sender, thread });
        Ok(())
    }

    /// Ends the thread that compares; waits for the comparison that it is at. Blocks.
    pub(crate) fn end(&self) {
        if let Some(CheckThread { sender, thread }) = lock(&self.pending).take() {
            drop(sender);
            // A panic in a model's code is caught before it ends the thread.
            thread.join().ok();
        }
    }

    /// The counts of the lower rungs, and the number of samples that were not compared.
    pub(crate) fn counts(&self) -> (Vec<ShadowCounts>, u64) {
        (lock(&self.counts)[1..].to_vec(), self.dropped.load(Ordering::Relaxed))
    }

    /// Chooses if the answer to this input is compared.
    fn sample(&self, rung: usize, input: &Input, keeps_input: bool) -> Option<Box<Sample>> {
        if rung == 0 || !is_chosen(self.answers.fetch_add(1, Ordering::Relaxed), self.share) {
            return None;
        }
        let input = keeps_input.then(|| input.clone());
        Some(Box::new(Sample { rung, input, features: None, row: Vec::new() }))
    }

    /// Hands an answer to the thread that compares, or drops it if too many wait.
    fn offer(&self, sample: Box<Sample>) {
        let taken = lock(&self.pending).as_ref().is_some_and(|pending| pending.sender.try_send(sample).is_ok());
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a comparison; returns the counts if it raises the alarm.
    fn observe(&self, rung: usize, similarity: f64) -> Option<ShadowCounts> {
        let mut counts = lock(&self.counts);
        let counts = &mut counts[rung];
        // A similarity that is no number is a difference, too.
        let differs = similarity.is_nan() || similarity < counts.allowance.min_similarity;
        *(if differs { &mut counts.different } else { &mut counts.alike }) += 1;
        let raises = counts.test.observe(differs) && !counts.alarm;
        counts.alarm |= raises;
        raises.then_some(*counts)
    }
}

impl Sample {
    /// Adds the features of which the answer is computed.
    pub(crate) fn of(mut self: Box<Self>, features: &Features) -> Box<Self> {
        self.features = Some(features.clone());
        self
    }
}

impl Model {
    /// Chooses if the answer to this input by this rung is compared with that in f32.
    pub(crate) fn sample(&self, rung: usize, input: &Input) -> Option<Box<Sample>> {
        self.inner.shadow.as_ref()?.sample(rung, input, self.inner.processor.keeps_input())
    }

    /// Has an answer compared later, if there is idle time. Never waits.
    pub(crate) fn compare_later(&self, sample: Option<Box<Sample>>, row: &[f32]) {
        if let (Some(shadow), Some(mut sample)) = (&self.inner.shadow, sample) {
            sample.row = row.to_vec();
            shadow.offer(sample);
        }
    }

    /// Computes an answer again in f32 and compares it, unless the machine has something else to do.
    fn compare(&self, shadow: &ShadowCheck, sample: Sample) {
        let rung = sample.rung;
        let Some(similarity) = self.similarity(shadow, sample) else {
            shadow.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some(counts) = shadow.observe(rung, similarity) else { return };
        let ShadowCounts { precision, alike, different, allowance, .. } = counts;
        let (model, ShadowAllowance { min_similarity, max_share_below }) = (self.name(), allowance);
        tracing::error!(
            model,
            %precision,
            alike,
            different,
            min_similarity,
            max_share_below,
            "answers differ from those in f32 by more than is allowed"
        );
        self.inner.rungs.forbid(model, rung);
    }

    /// The similarity of an answer to that in f32; `None` if it was not computed.
    fn similarity(&self, shadow: &ShadowCheck, Sample { input, features, row, .. }: Sample) -> Option<f64> {
        let Inner { rungs, processor, .. } = &*self.inner;
        let reference = rungs.all().first()?;
        let is_busy = shadow.running.any() || rungs.all().iter().any(|rung| !rung.queue.is_empty());
        // Loading it again could put another network out of memory.
        if is_busy || !reference.is_loaded() || self.inner.closed.load(Ordering::Acquire) {
            return None;
        }
        let terms = Terms { priority: Priority::Low, ..Terms::default() };
        let computed = reference.queue.call_blocking(features?, terms).ok()?;
        let finish = |row: Vec<f32>| -> Option<Output> {
            let of = Finishing { input: input.as_ref(), vectors: VectorOptions::default() };
            caught(|| processor.finish(row, of)).ok()
        };
        Some(similarity(&finish(computed.output)?, &finish(row)?))
    }
}

fn compare_all(samples: &Receiver<Box<Sample>>, model: &Weak<Inner>) {
    while let Ok(sample) = samples.recv() {
        let Some(inner) = model.upgrade() else { return };
        let model = Model { inner };
        if let Some(shadow) = &model.inner.shadow {
            model.compare(shadow, *sample);
        }
    }
}

/// Chooses a share of numbers at random, the same ones every time.
fn is_chosen(number: u64, share: f64) -> bool {
    let mut hasher = DefaultHasher::new();
    number.hash(&mut hasher);
    hasher.finish() as f64 <= share * u64::MAX as f64
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_is_asked_for_is_chosen() {
        for share in [0.001, 0.01, 0.3, 1.0] {
            let chosen = (0..100_000).filter(|number| is_chosen(*number, share)).count() as f64 / 1e5;
            assert!((chosen - share).abs() < 0.1 * share + 1e-4, "{chosen} of {share}");
        }
    }
}
