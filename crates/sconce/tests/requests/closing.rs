//! Requests during and after a shutdown.

use sconce::cache::{MemoryConfig, SqliteConfig, SqliteTier};
use sconce::{
    AnswerCache, AnswerSource, BatcherConfig, InferError, Input, PrecomputeConfig, PrecomputeError, QueueError,
};

use crate::gated::{Gated, until};

fn in_memory() -> AnswerCache {
    AnswerCache::builder().memory(MemoryConfig::default()).build().expect("the test is set up right")
}

fn is_shutting_down<T>(answer: &Result<T, InferError>) -> bool {
    matches!(answer, Err(InferError::Queue(QueueError::ShuttingDown)))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_shutdown_nothing_is_answered_whatever_the_cache_holds() {
    let Gated { runtime, model, gate, .. } = &Gated::new(BatcherConfig::default(), Some(in_memory()));
    gate.open();
    for source in [AnswerSource::Computed, AnswerSource::Cached("memory")] {
        assert_eq!(model.infer("1").await.unwrap().source, source);
    }
    runtime.shutdown().await;
    assert!(is_shutting_down(&model.infer("1").await));
    assert!(is_shutting_down(&model.try_infer("1").await));
    let blocking = model.clone();
    let answer = tokio::task::spawn_blocking(move || blocking.infer_blocking("1")).await.unwrap();
    assert!(is_shutting_down(&answer));
    for texts in [vec!["1"], vec!["1", "1"]] {
        let answer = model.try_infer_many(texts.clone()).await.map_err(|error| error.source);
        assert!(is_shutting_down(&answer));
        let answer = model.infer_many(texts).await.map_err(|error| error.source);
        assert!(is_shutting_down(&answer));
    }
    assert_eq!(model.stats().refused.shutting_down, 7);
    let directory = tempfile::tempdir().unwrap();
    let tier = SqliteTier::open(&SqliteConfig::new(directory.path().join("answers"))).unwrap();
    let next = async || -> Option<((), Input)> { panic!("no input is asked for") };
    let ended = model.precompute(&tier, &PrecomputeConfig::default(), next, |(), _| {}).await;
    assert!(matches!(ended, Err(PrecomputeError::ShuttingDown { .. })), "{ended:?}");
}

#[test]
fn a_blocking_caller_without_a_runtime_is_refused_too() {
    let Gated { runtime, model, gate, .. } = &Gated::new(BatcherConfig::default(), None);
    gate.open();
    assert!(model.infer_blocking("1").is_ok());
    runtime.shutdown_blocking();
    assert!(is_shutting_down(&model.infer_blocking("1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_is_answered_but_not_to_those_who_come_later() {
    let gated = Gated::new(BatcherConfig::default(), Some(in_memory()));
    let Gated { runtime, model, gate, .. } = &gated;
    let earlier = tokio::spawn({
        let model = model.clone();
        async move { model.infer("1").await }
    });
    gated.until_started(1).await;
    let shutdown = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.shutdown().await }
    });
    loop {
        // Until the shutdown begins, the request waits behind the running batch.
        let later = tokio::time::timeout(std::time::Duration::ZERO, model.infer("2")).await;
        if later.is_ok_and(|later| is_shutting_down(&later)) {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(is_shutting_down(&model.infer("1").await), "it does not share what is being computed");
    assert!(!earlier.is_finished());
    gate.open();
    assert!(earlier.await.unwrap().is_ok());
    shutdown.await.unwrap();
    until("nothing waits", || model.depth().items == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn precomputing_ends_when_the_runtime_leaves_and_calls_no_input_failed() {
    let gated = Gated::new(BatcherConfig { max_batch_size: 1, ..BatcherConfig::default() }, None);
    let Gated { runtime, model, gate, .. } = &gated;
    let directory = tempfile::tempdir().unwrap();
    let tier = SqliteTier::open(&SqliteConfig::new(directory.path().join("answers"))).unwrap();
    let mut numbers = 0_u32..;
    let next = async || numbers.next().map(|number| (number, Input::from((number % 60_000).to_string())));
    let mut failed = 0;
    let done = |_, outcome| failed += usize::from(matches!(outcome, sconce::Precomputed::Failed(_)));
    let leaving = async {
        gated.until_started(1).await;
        gate.open();
        runtime.shutdown().await;
    };
    let config = PrecomputeConfig::default();
    let (ended, ()) = tokio::join!(model.precompute(&tier, &config, next, done), leaving);
    assert!(matches!(ended, Err(PrecomputeError::ShuttingDown { .. })), "{ended:?}");
    assert_eq!(failed, 0);
}
