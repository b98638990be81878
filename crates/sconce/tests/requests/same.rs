//! Requests for the same answer at the same time, with different deadlines, waiting for room or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sconce::cache::{Found, Key, Tier, TierConfig, TierError, TierFuture, Value};
use sconce::{Answer, AnswerCache, AnswerSource, BatcherConfig, InferError, Model, QueueError, Request};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::gated::{Gated, until};

/// An empty tier that answers a lookup only when a test lets it.
#[derive(Clone)]
struct Empty {
    answers: Arc<Semaphore>,
    lookups: Arc<AtomicUsize>,
}

impl Tier for Empty {
    fn name(&self) -> &'static str {
        "empty"
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> TierFuture<'a, Result<Vec<Found>, TierError>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {
            self.answers.acquire().await.expect("it is not closed").forget();
            Ok(vec![Found::Miss; keys.len()])
        })
    }

    fn put_many<'a>(&'a self, _: &'a [(Key, Value)]) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async { Ok(()) })
    }
}

fn within(milliseconds: u64) -> Request {
    Request::new("7").timeout(Duration::from_millis(milliseconds))
}

/// A model with a full queue: one item runs until the gate opens, and one is queued.
async fn full() -> (Gated, Empty) {
    let tier = Empty { answers: Arc::new(Semaphore::new(0)), lookups: Arc::default() };
    let patient = TierConfig { get_budget: Duration::from_hours(1), ..TierConfig::default() };
    let cache = AnswerCache::builder().tier(tier.clone(), patient).build().expect("the test is set up right");
    let batching = BatcherConfig { max_batch_size: 1, max_queue_size: 1, ..BatcherConfig::default() };
    let gated = Gated::new(batching, Some(cache));
    for (number, text) in ["1", "2"].into_iter().enumerate() {
        let model = gated.model.clone();
        tokio::spawn(async move { model.infer(Request::new(text).uncached()).await });
        match number {
            0 => gated.until_started(1).await,
            _ => gated.until_waiting(1).await,
        }
    }
    (gated, tier)
}

type Asked = JoinHandle<Result<Answer, InferError>>;

/// Sends `times` equal requests, and returns when each has begun.
async fn ask<F>(times: usize, model: &Model, ask: impl Fn(Model) -> F) -> Vec<Asked>
where
    F: Future<Output = Result<Answer, InferError>> + Send + 'static,
{
    let begun = Arc::new(AtomicUsize::new(0));
    let asked = (0..times).map(|_| {
        let (answer, begun) = (ask(model.clone()), Arc::clone(&begun));
        tokio::spawn(async move {
            // The test has one thread, so the request runs on from here until it waits.
            begun.fetch_add(1, Ordering::Relaxed);
            answer.await
        })
    });
    let asked = asked.collect();
    until("all have begun", || begun.load(Ordering::Relaxed) == times).await;
    asked
}

#[tokio::test]
async fn the_same_500_times_is_refused_at_once_when_the_queue_is_full() {
    let (gated, tier) = full().await;
    let asked = ask(500, &gated.model, |model| async move { model.try_infer("7").await }).await;
    tier.answers.add_permits(1000);
    for asked in asked {
        let refused = asked.await.unwrap();
        assert!(matches!(refused, Err(InferError::Queue(QueueError::QueueFull { max: 1, .. }))), "{refused:?}");
    }
    assert_eq!(tier.lookups.load(Ordering::Relaxed), 1, "none tried again what was refused already");
    assert_eq!(gated.model.stats().refused.queue_full, 1);
    gated.gate.open();
}

#[tokio::test]
async fn who_waits_for_room_is_not_refused_by_who_does_not_and_one_computes_for_all() {
    let (gated, tier) = full().await;
    let hasty = ask(100, &gated.model, |model| async move { model.try_infer("7").await }).await;
    let patient = ask(100, &gated.model, |model| async move { model.infer("7").await }).await;
    tier.answers.add_permits(1000);
    for asked in hasty {
        let refused = asked.await.unwrap();
        assert!(matches!(refused, Err(InferError::Queue(QueueError::QueueFull { .. }))), "{refused:?}");
    }
    assert!(patient.iter().all(|asked| !asked.is_finished()));
    gated.gate.open();
    let mut sources = Vec::new();
    for asked in patient {
        let answer = asked.await.unwrap().unwrap();
        assert_eq!(answer.output.embedding(), Some(&[7.0][..]));
        sources.push(answer.source);
    }
    let of = |source| sources.iter().filter(|it| **it == source).count();
    assert_eq!((of(AnswerSource::Computed), of(AnswerSource::Shared)), (1, 99));
    assert_eq!(gated.times_started(7), 1);
    assert_eq!(tier.lookups.load(Ordering::Relaxed), 2, "one for each who led");
}

#[tokio::test]
async fn whose_time_is_over_hands_over_to_who_has_most_of_it() {
    let (gated, tier) = full().await;
    let first = ask(1, &gated.model, |model| async move { model.infer(within(20)).await }).await;
    let hurried = ask(50, &gated.model, |model| async move { model.infer(within(100)).await }).await;
    let patient = ask(1, &gated.model, |model| async move { model.infer("7").await }).await;
    for asked in first.into_iter().chain(hurried) {
        let late = asked.await.unwrap();
        assert!(matches!(late, Err(InferError::Queue(QueueError::DeadlineExceeded { .. }))), "{late:?}");
    }
    assert_eq!(tier.lookups.load(Ordering::Relaxed), 2, "the hurried ones never led");
    tier.answers.add_permits(1000);
    gated.gate.open();
    for asked in patient {
        assert!(asked.await.unwrap().is_ok());
    }
}
