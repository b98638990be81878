//! Groups of items that are answered together.

use std::time::Duration;

use sconce::cache::MemoryConfig;
use sconce::{Answer, AnswerCache, BatcherConfig, InferError, InferManyError, QueueError, RequestGroup};

use crate::gated::Gated;

fn in_memory() -> AnswerCache {
    AnswerCache::builder().memory(MemoryConfig::default()).build().expect("good defaults")
}

/// Batches of one item, and a queue of at most `max_queue_size`.
fn batching(max_queue_size: usize) -> BatcherConfig {
    BatcherConfig { max_batch_size: 1, max_queue_size, ..BatcherConfig::default() }
}

fn numbers(numbers: impl IntoIterator<Item = u16>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

fn values(answers: &[Answer]) -> Vec<f32> {
    answers.iter().map(|answer| answer.output.embedding().expect("the test is set up right")[0]).collect()
}

fn of_all(error: &InferManyError) -> &QueueError {
    assert_eq!(error.index, None, "{error}");
    match &error.source {
        InferError::Queue(error) => error,
        other => panic!("{other}"),
    }
}

/// A model that is busy with the number 1 until the gate opens.
async fn busy(batching: BatcherConfig, cache: Option<AnswerCache>) -> Gated {
    let gated = Gated::new(batching, cache);
    let model = gated.model.clone();
    tokio::spawn(async move { model.infer("1").await });
    gated.until_started(1).await;
    gated
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_the_order_of_their_inputs_however_many_and_with_or_without_a_cache() {
    for cache in [None, Some(in_memory())] {
        let gated = Gated::new(BatcherConfig { max_batch_size: 7, ..BatcherConfig::default() }, cache);
        gated.gate.open();
        assert_eq!(gated.model.try_infer_many(Vec::<String>::new()).await.unwrap(), []);
        for count in [1, 2, 500] {
            // Long enough that the items are prepared in parallel.
            let texts: Vec<String> = (0..count).map(|number| format!("{number:0>100}")).collect();
            let answers = gated.model.try_infer_many(texts).await.unwrap();
            assert_eq!(values(&answers), (0..count).map(|number| number as f32).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn all_are_admitted_or_none_and_of_those_that_are_refused_none_runs() {
    for cache in [None, Some(in_memory())] {
        let gated = busy(batching(4), cache).await;
        let refused = gated.model.try_infer_many(numbers(10..15)).await.unwrap_err();
        assert!(matches!(of_all(&refused), QueueError::GroupTooLarge { items: 5, max_items: 4, .. }), "{refused}");
        let admitted = tokio::spawn({
            let model = gated.model.clone();
            async move { model.try_infer_many(numbers(20..23)).await }
        });
        gated.until_waiting(3).await;
        let refused = gated.model.try_infer_many(numbers(30..32)).await.unwrap_err();
        assert!(matches!(of_all(&refused), QueueError::QueueFull { max: 4, .. }), "{refused}");
        assert_eq!(gated.model.depth().items, 3);
        gated.gate.open();
        assert_eq!(values(&admitted.await.unwrap().unwrap()), [20.0, 21.0, 22.0]);
        assert_eq!(gated.gate.started(), [1, 20, 21, 22]);
    }
}

#[tokio::test]
async fn a_group_that_waits_is_admitted_as_soon_as_there_is_room_for_all_of_it() {
    for cache in [None, Some(in_memory())] {
        let gated = busy(batching(3), cache).await;
        let groups = [10..13, 20..23, 30..32].map(|group| {
            let model = gated.model.clone();
            tokio::spawn(async move { model.infer_many(numbers(group)).await })
        });
        gated.until_waiting(3).await;
        gated.gate.open();
        for (group, first) in groups.into_iter().zip([10.0, 20.0, 30.0]) {
            assert_eq!(values(&group.await.unwrap().unwrap())[..1], [first]);
        }
    }
}

#[tokio::test]
async fn an_input_that_is_not_taken_is_named_and_nothing_runs() {
    for cache in [None, Some(in_memory())] {
        let gated = Gated::new(BatcherConfig::default(), cache);
        gated.gate.open();
        for _ in 0..2 {
            let error = gated.model.infer_many(vec!["1", "2", "three", "4"]).await.unwrap_err();
            assert_eq!(error.index, Some(2));
            assert!(matches!(error.source, InferError::Input(_)), "{error}");
            assert!(error.to_string().starts_with("item 2: "), "{error}");
        }
        assert!(gated.gate.started().is_empty());
    }
}

#[tokio::test]
async fn what_the_cache_has_is_not_computed_and_what_comes_twice_is_computed_once() {
    let gated = Gated::new(BatcherConfig::default(), Some(in_memory()));
    gated.gate.open();
    gated.model.infer("5").await.unwrap();
    let answers = gated.model.try_infer_many(numbers([3, 5, 3, 4, 3])).await.unwrap();
    assert_eq!(values(&answers), [3.0, 5.0, 3.0, 4.0, 3.0]);
    let sources: Vec<_> = answers.iter().map(|answer| answer.source.name()).collect();
    assert_eq!(sources, ["computed", "memory", "shared", "computed", "shared"]);
    assert_eq!(answers.iter().map(|answer| answer.timing.batch_size).collect::<Vec<_>>(), [2, 0, 0, 2, 0]);
    assert_eq!([3, 4, 5].map(|number| gated.times_started(number)), [1, 1, 1]);
    let group = RequestGroup::new(numbers([3, 3])).uncached();
    gated.model.infer_many(group).await.unwrap();
    assert_eq!(gated.times_started(3), 3, "whatever the cache holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_want_each_others_items_compute_each_once_and_never_wait_in_a_circle() {
    let gated = busy(batching(1000), Some(in_memory())).await;
    let groups: Vec<_> = (0..20)
        .map(|shift: u16| {
            let model = gated.model.clone();
            let order =
                (0..20).map(move |at| if shift.is_multiple_of(2) { (at + shift) % 20 } else { (39 - at - shift) % 20 });
            let wanted: Vec<u16> = order.map(|number| 100 + number).collect();
            tokio::spawn(async move { (wanted.clone(), model.try_infer_many(numbers(wanted)).await) })
        })
        .collect();
    gated.until_waiting(20).await;
    gated.gate.open();
    for group in groups {
        let (wanted, answers) = group.await.unwrap();
        assert_eq!(values(&answers.unwrap()), wanted.into_iter().map(f32::from).collect::<Vec<_>>());
    }
    let mut started = gated.gate.started();
    started.sort_unstable();
    assert_eq!(started[1..], (100..120).collect::<Vec<_>>(), "each ran once");
}

#[tokio::test]
async fn what_another_request_gives_up_is_computed_for_a_group_that_was_admitted() {
    let gated = busy(batching(2), Some(in_memory())).await;
    let mut other = Box::pin(gated.model.infer("7"));
    assert!(tokio::time::timeout(Duration::ZERO, &mut other).await.is_err());
    let group = tokio::spawn({
        let model = gated.model.clone();
        async move { model.try_infer_many(numbers([7, 8])).await }
    });
    gated.until_waiting(2).await;
    drop(other);
    // Another request takes the place that 7 gave up, so that the group has to wait for room for it.
    let taken = gated.model.try_infer("9");
    let mut taken = Box::pin(taken);
    assert!(tokio::time::timeout(Duration::ZERO, &mut taken).await.is_err());
    gated.gate.open();
    assert_eq!(values(&group.await.unwrap().unwrap()), [7.0, 8.0]);
    assert!(taken.await.is_ok());
    assert_eq!(gated.times_started(7), 1);
}

#[tokio::test]
async fn a_group_that_is_dropped_or_late_leaves_the_queue() {
    for cache in [None, Some(in_memory())] {
        let gated = busy(batching(4), cache).await;
        let mut dropped = Box::pin(gated.model.infer_many(numbers(10..13)));
        assert!(tokio::time::timeout(Duration::ZERO, &mut dropped).await.is_err());
        assert_eq!(gated.model.depth().items, 3);
        drop(dropped);
        assert_eq!(gated.model.depth().items, 0);
        let late = RequestGroup::new(numbers(10..13)).timeout(Duration::from_millis(1));
        let error = gated.model.infer_many(late).await.unwrap_err();
        assert!(matches!(of_all(&error), QueueError::DeadlineExceeded { .. }), "{error}");
        assert_eq!(gated.model.depth().items, 0);
        let endless = RequestGroup::new(numbers(10..13)).timeout(Duration::MAX);
        gated.gate.open();
        assert!(gated.model.infer_many(endless).await.is_ok());
        assert_eq!(gated.gate.started(), [1, 10, 11, 12]);
    }
}

#[tokio::test]
async fn one_input_is_a_group_too_and_its_error_is_about_it() {
    let gated = busy(batching(1), Some(in_memory())).await;
    let mut waiting = Box::pin(gated.model.infer("2"));
    assert!(tokio::time::timeout(Duration::ZERO, &mut waiting).await.is_err());
    let error = gated.model.try_infer_many(vec!["3"]).await.unwrap_err();
    assert_eq!(error.index, Some(0));
    assert!(matches!(error.source, InferError::Queue(QueueError::QueueFull { .. })), "{error}");
    gated.gate.open();
    assert_eq!(values(&[waiting.await.unwrap()]), [2.0]);
}
