//! A queue with real threads: answers, cancellation, deadlines, panics, failures, shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sconce_batch::{BatcherConfig, Error, Executor, ExecutorError, Queue, Retry, SpawnError, from_fn};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Item {
    Good(u64),
    Heavy(usize),
    Failing,
    Panicking,
}

/// Sends the size of each batch, then waits for permission to run it. Doubles good numbers; fails or panics if any item
/// of the batch asks for it.
struct Gated {
    started: mpsc::Sender<usize>,
    permission: mpsc::Receiver<()>,
}

impl Executor for Gated {
    type Item = Item;
    type Output = u64;

    fn run(&mut self, batch: &[Item]) -> Result<Vec<u64>, ExecutorError> {
        self.started.send(batch.len()).ok();
        // An error means that the test has dropped the gate: it is open from then on.
        self.permission.recv().ok();
        double(batch)
    }

    fn retry(&self) -> Retry {
        Retry::ItemByItem
    }

    fn weight(item: &Item) -> usize {
        match item {
            Item::Heavy(weight) => *weight,
            _ => 1,
        }
    }
}

fn double(batch: &[Item]) -> Result<Vec<u64>, ExecutorError> {
    batch
        .iter()
        .map(|item| match item {
            Item::Good(number) => Ok(number * 2),
            Item::Heavy(weight) => Ok(*weight as u64),
            Item::Failing => Err(ExecutorError::new("this item fails")),
            Item::Panicking => panic!("this item panics"),
        })
        .collect()
}

fn gated(config: BatcherConfig) -> (Queue<Gated>, mpsc::Receiver<usize>, mpsc::Sender<()>) {
    let (started, starts) = mpsc::channel();
    let (permit, permission) = mpsc::channel();
    (Queue::spawn("test", config, [Gated { started, permission }]).expect("a valid configuration"), starts, permit)
}

fn small() -> BatcherConfig {
    BatcherConfig {
        max_batch_size: 4,
        max_batch_weight: 100,
        max_queue_size: 4,
        max_queue_weight: 100,
        max_queue_delay: Duration::ZERO,
        ..BatcherConfig::default()
    }
}

#[tokio::test]
async fn items_that_wait_run_as_one_batch_and_each_caller_gets_its_own_answer() {
    let (queue, starts, permit) = gated(small());
    let first = queue.try_submit(Item::Good(0), None).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let tickets = [1, 2, 3].map(|number| queue.try_submit(Item::Good(number), None).unwrap());
    assert_eq!((queue.depth().items, queue.depth().weight), (3, 3));
    drop(permit);
    assert_eq!(first.await.unwrap().batch_size, 1);
    for (number, ticket) in (1..).zip(tickets) {
        let completion = ticket.await.unwrap();
        assert_eq!((completion.output, completion.batch_size), (2 * number, 3));
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_or_makes_the_caller_wait() {
    let (queue, starts, permit) = gated(small());
    let running = queue.try_submit(Item::Good(0), None).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let waiting = [1, 2, 3, 4].map(|number| queue.try_submit(Item::Good(number), None).unwrap());
    assert!(matches!(queue.try_call(Item::Good(5), None).await, Err(Error::QueueFull { max: 4, .. })));

    let queue = Arc::new(queue);
    let patient = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.call(Item::Good(6), None).await }
    });
    let hurried = queue.call(Item::Good(7), Some(Instant::now() + Duration::from_millis(20))).await;
    assert!(matches!(hurried, Err(Error::DeadlineExceeded { .. })), "a deadline also ends the wait for room");
    drop(permit);
    assert_eq!(patient.await.unwrap().unwrap().output, 12);
    assert_eq!(running.await.unwrap().output, 0);
    for ticket in waiting {
        ticket.await.unwrap();
    }
}

#[tokio::test]
async fn a_heavy_item_waits_for_room_and_is_not_overtaken_for_ever() {
    let (queue, starts, permit) = gated(BatcherConfig { max_queue_size: 1000, ..small() });
    let queue = Arc::new(queue);
    let running = queue.try_submit(Item::Good(0), None).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let light: Vec<_> = (1..=4).map(|number| queue.try_submit(Item::Good(number), None).unwrap()).collect();
    let mut callers = vec![tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.call(Item::Heavy(100), None).await.map(|done| done.output) }
    })];
    tokio::task::yield_now().await;
    for _ in 0..100 {
        let queue = Arc::clone(&queue);
        callers.push(tokio::spawn(async move { queue.call(Item::Good(1), None).await.map(|done| done.output) }));
    }
    drop(permit);
    let heavy = callers.remove(0).await.unwrap().unwrap();
    assert_eq!(heavy, 100);
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), 2);
    }
    running.await.unwrap();
    for ticket in light {
        ticket.await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_ticket_leaves_the_queue_and_never_runs() {
    let (queue, starts, permit) = gated(small());
    let running = queue.try_submit(Item::Good(0), None).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let cancelled = queue.try_submit(Item::Panicking, None).unwrap();
    let kept = queue.try_submit(Item::Good(1), None).unwrap();
    drop(cancelled);
    assert_eq!(queue.depth().items, 1);
    drop(permit);
    running.await.unwrap();
    let completion = kept.await.unwrap();
    assert_eq!((completion.output, completion.batch_size), (2, 1));
    assert_eq!(queue.stats().cancelled, 1);
}

#[tokio::test]
async fn a_deadline_is_answered_on_time_even_while_the_device_is_busy() {
    let (queue, starts, permit) = gated(small());
    let running = queue.try_submit(Item::Good(0), None).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let late = queue.call(Item::Good(1), Some(Instant::now() + Duration::from_millis(10))).await;
    assert!(matches!(late, Err(Error::DeadlineExceeded { .. })));
    assert_eq!(queue.depth().items, 0, "its place in the queue is free again");
    drop(permit);
    running.await.unwrap();
}

#[tokio::test]
async fn a_bad_item_fails_alone_and_its_neighbours_succeed() {
    for bad in [Item::Failing, Item::Panicking] {
        let (queue, starts, permit) = gated(small());
        let running = queue.try_submit(Item::Good(0), None).unwrap();
        assert_eq!(starts.recv(), Ok(1));
        let before = queue.try_submit(Item::Good(1), None).unwrap();
        let culprit = queue.try_submit(bad, None).unwrap();
        let after = queue.try_submit(Item::Good(2), None).unwrap();
        drop(permit);
        running.await.unwrap();
        assert_eq!(before.await.unwrap().output, 2);
        assert_eq!(after.await.unwrap().output, 4);
        let error = culprit.await.unwrap_err();
        match bad {
            Item::Panicking => assert_eq!(error.to_string(), "the executor panicked: this item panics"),
            _ => assert_eq!(error.to_string(), "the executor failed: this item fails"),
        }
        assert_eq!(queue.call(Item::Good(9), None).await.unwrap().output, 18, "the device thread lives on");
    }
}

#[tokio::test]
async fn an_executor_that_gives_too_few_outputs_is_an_error_for_its_callers() {
    let forgetful = from_fn(|batch: &[Item]| Ok(vec![0_u64; batch.len() - 1]));
    let queue = Queue::spawn("test", small(), [forgetful]).unwrap();
    let error = queue.call(Item::Good(1), None).await.unwrap_err();
    assert_eq!(error.to_string(), "the executor gave 0 outputs for 1 items");
}

#[test]
fn a_blocking_caller_needs_no_runtime() {
    let queue = Queue::spawn("test", small(), [from_fn(double)]).unwrap();
    assert_eq!(queue.call_blocking(Item::Good(4), None).unwrap().output, 8);

    let (queue, _starts, _permit) = gated(small());
    let late = queue.call_blocking(Item::Good(1), Some(Instant::now() + Duration::from_millis(10)));
    assert!(matches!(late, Err(Error::DeadlineExceeded { .. })));
}

#[tokio::test]
async fn shutdown_answers_what_waits_and_refuses_the_rest() {
    let (queue, starts, permit) = gated(small());
    let running = queue.try_submit(Item::Good(0), None).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let waiting = queue.try_submit(Item::Good(1), None).unwrap();
    queue.close();
    assert!(matches!(queue.call(Item::Good(2), None).await, Err(Error::ShuttingDown)));
    drop(permit);
    queue.shutdown();
    assert_eq!(running.await.unwrap().output, 0);
    assert_eq!(waiting.await.unwrap().output, 2);
}

#[tokio::test]
async fn callers_that_wait_for_room_are_told_of_a_shutdown() {
    let (queue, starts, permit) = gated(small());
    let queue = Arc::new(queue);
    let running = queue.try_submit(Item::Good(0), None).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let waiting = [1, 2, 3, 4].map(|number| queue.try_submit(Item::Good(number), None).unwrap());
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.call(Item::Good(5), None).await })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.close();
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Err(Error::ShuttingDown)));
    }
    drop(permit);
    running.await.unwrap();
    for ticket in waiting {
        ticket.await.unwrap();
    }
}

#[test]
fn a_queue_without_executor_or_with_a_bad_bound_is_refused() {
    let none: [Gated; 0] = [];
    assert!(matches!(Queue::spawn("test", small(), none), Err(SpawnError::NoExecutor)));
    let bad = BatcherConfig { max_batch_size: 0, ..small() };
    assert!(matches!(Queue::spawn("test", bad, [from_fn(double)]), Err(SpawnError::Config(_))));
}

#[test]
fn several_devices_drain_one_queue_under_load_with_bad_items_and_nothing_is_lost() {
    let ran = Arc::new(AtomicUsize::new(0));
    let executor = || {
        let ran = Arc::clone(&ran);
        from_fn(move |batch: &[Item]| {
            let outputs = double(batch)?;
            ran.fetch_add(batch.len(), Ordering::Relaxed);
            Ok(outputs)
        })
        .retry(Retry::ItemByItem)
    };
    let config = BatcherConfig { max_queue_size: 64, ..small() };
    let queue = Queue::spawn("test", config, [executor(), executor()]).unwrap();
    let (good, bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for caller in 0..8_u64 {
            let (queue, good, bad) = (&queue, &good, &bad);
            scope.spawn(move || {
                for number in 0..2000_u64 {
                    let item = if (caller + number) % 101 == 0 { Item::Failing } else { Item::Good(number) };
                    match queue.call_blocking(item, None) {
                        Ok(completion) => {
                            assert_eq!(completion.output, number * 2);
                            good.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert!(matches!((item, error), (Item::Failing, Error::Executor(_))));
                            bad.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    queue.shutdown();
    let stats = queue.stats();
    assert_eq!((stats.admitted, stats.batched, stats.cancelled, stats.dropped), (16_000, 16_000, 0, 0));
    assert!(stats.failed_batches > 0 && queue.cost().is_known());
    let (good, bad) = (good.into_inner(), bad.into_inner());
    assert_eq!(good + bad, 16_000);
    assert_eq!(ran.load(Ordering::Relaxed), good, "every good item ran to its end exactly once");
    assert_eq!(bad, (0..8).flat_map(|c| (0..2000).map(move |n| c + n)).filter(|sum| sum % 101 == 0).count());
}
