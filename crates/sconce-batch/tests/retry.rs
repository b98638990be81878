//! Retries: the executor chooses what runs again after a batch failed, and cancelled or late items never run again.

#![expect(clippy::unwrap_used, reason = "clippy knows the tests as tests, but not the functions they share")]

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use sconce_batch::{BatcherConfig, Error, Executor, ExecutorError, Queue, Retry, Ticket, from_fn};

type Batches = Arc<Mutex<Vec<Vec<u64>>>>;

/// Doubles even numbers, and fails a batch with an odd one; records each batch.
fn even(batches: &Batches, retry: Retry) -> impl Executor<Item = u64, Output = u64> + use<> {
    let batches = Arc::clone(batches);
    from_fn(move |batch: &[u64]| {
        batches.lock().unwrap().push(batch.to_vec());
        match batch.iter().find(|number| *number % 2 == 1) {
            Some(odd) => Err(ExecutorError::new(format!("{odd} is odd"))),
            None => Ok(batch.iter().map(|number| number * 2).collect()),
        }
    })
    .retry(retry)
}

/// A configuration that makes one batch of the three items that a test submits.
fn one_batch() -> BatcherConfig {
    BatcherConfig { max_batch_size: 3, max_queue_delay: Duration::from_mins(1), ..BatcherConfig::default() }
}

#[tokio::test]
async fn each_choice_runs_what_it_says_and_nothing_more() {
    type Batch = &'static [u64];
    let table: [(Retry, &[Batch], [bool; 3]); 3] = [
        (Retry::Never, &[&[2, 3, 4]], [false, false, false]),
        (Retry::Whole, &[&[2, 3, 4], &[2, 3, 4]], [false, false, false]),
        (Retry::ItemByItem, &[&[2, 3, 4], &[2], &[3], &[4]], [true, false, true]),
    ];
    for (retry, expected, answered) in table {
        let batches = Batches::default();
        let queue = Queue::spawn("even", one_batch(), [even(&batches, retry)]).unwrap();
        let tickets = [2, 3, 4].map(|number| queue.try_submit(number, None).unwrap());
        let mut outcomes = Vec::new();
        for ticket in tickets {
            outcomes.push(ticket.await.map(|done| done.output).map_err(|error| error.to_string()));
        }
        for (outcome, answered) in outcomes.iter().zip(answered) {
            match outcome {
                Ok(_) => assert!(answered, "{retry:?}: {outcomes:?}"),
                Err(error) => assert_eq!((error.as_str(), answered), ("the executor failed: 3 is odd", false)),
            }
        }
        assert_eq!(*batches.lock().unwrap(), expected, "{retry:?}");
        queue.shutdown();
        assert_eq!(queue.stats().failed_batches, 1);
    }
}

#[tokio::test]
async fn the_weight_of_a_batch_is_told_with_its_first_answer_and_not_after_a_retry() {
    for (numbers, expected) in [([2, 4, 6], [Some(3), None, None]), ([2, 3, 4], [None; 3])] {
        let queue = Queue::spawn("even", one_batch(), [even(&Batches::default(), Retry::ItemByItem)]).unwrap();
        let tickets = numbers.map(|number| queue.try_submit(number, None).unwrap());
        let mut weights = Vec::new();
        for ticket in tickets {
            weights.push(ticket.await.ok().and_then(|done| done.batch_weight));
        }
        assert_eq!(weights, expected, "{numbers:?}");
        queue.shutdown();
    }
}

#[test]
fn nothing_runs_again_unless_the_executor_says_so() {
    assert_eq!(Retry::default(), Retry::Never);
    assert_eq!(Executor::retry(&from_fn(|batch: &[u64]| Ok(batch.to_vec()))), Retry::Never);
}

#[tokio::test]
async fn a_failure_that_passes_is_mended_by_running_the_whole_batch_once_more() {
    let runs = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&runs);
    let flaky = from_fn(move |batch: &[u64]| {
        let mut runs = counted.lock().unwrap();
        *runs += 1;
        if *runs == 1 { Err(ExecutorError::new("not yet")) } else { Ok(batch.to_vec()) }
    });
    let queue = Queue::spawn("flaky", one_batch(), [flaky.retry(Retry::Whole)]).unwrap();
    let tickets = [1, 2, 3].map(|number| queue.try_submit(number, None).unwrap());
    for (number, ticket) in (1..).zip(tickets) {
        let done = ticket.await.unwrap();
        assert_eq!((done.output, done.batch_size), (number, 3));
    }
    queue.shutdown();
    assert_eq!(*runs.lock().unwrap(), 2);
    assert!(!queue.cost().is_known() && queue.stats().run == Duration::ZERO, "a failed batch teaches nothing");
}

/// A queue whose executor fails each batch of more than one item, after it has waited for permission.
fn failing(
    error: fn() -> ExecutorError,
) -> (Queue<impl Executor<Item = u64, Output = u64>>, Batches, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (started, starts) = mpsc::channel();
    let (permit, permission) = mpsc::channel::<()>();
    let batches = Batches::default();
    let noted = Arc::clone(&batches);
    let executor = from_fn(move |batch: &[u64]| {
        noted.lock().unwrap().push(batch.to_vec());
        if batch.len() == 1 {
            return Ok(batch.to_vec());
        }
        started.send(()).ok();
        permission.recv().ok();
        Err(error())
    });
    let queue = Queue::spawn("failing", one_batch(), [executor.retry(Retry::ItemByItem)]).unwrap();
    (queue, batches, starts, permit)
}

#[tokio::test]
async fn a_cancelled_or_late_item_does_not_run_again_whatever_failed() {
    let failures: [fn() -> ExecutorError; 2] =
        [|| ExecutorError::new("no"), || ExecutorError::out_of_memory("one at a time")];
    for error in failures {
        let (queue, batches, starts, permit) = failing(error);
        let kept = queue.try_submit(1, None).unwrap();
        let cancelled = queue.try_submit(2, None).unwrap();
        let deadline = Instant::now() + Duration::from_millis(200);
        let late: Ticket<_> = queue.try_submit(3, deadline).unwrap();
        starts.recv().unwrap();
        drop(cancelled);
        while Instant::now() < deadline {
            std::thread::yield_now();
        }
        drop(permit);
        assert_eq!(kept.await.unwrap().output, 1);
        let late = late.await.map(|done| done.output);
        assert!(matches!(late, Err(Error::DeadlineExceeded { .. })), "{late:?}");
        assert_eq!(*batches.lock().unwrap(), [vec![1, 2, 3], vec![1]], "{}", error());
    }
}
