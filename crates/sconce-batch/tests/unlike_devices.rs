//! A queue on devices that differ: the choice among them, and devices that run out of memory or are lost. With real
//! threads, and executors whose behaviour does not depend on time.

#![expect(clippy::unwrap_used, reason = "clippy knows the tests as tests, but not the functions they share")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sconce_batch::{
    BatcherConfig, CostLine, DeviceState, DeviceThread, Error, Executor, ExecutorError, Profile, Queue, Role, from_fn,
};

type Function = Box<dyn FnMut(&[u64]) -> Result<Vec<u64>, ExecutorError> + Send>;

const SLOW: CostLine = CostLine { fixed: 0.001, per_weight: 0.002 };
const FAST: CostLine = CostLine { fixed: 0.010, per_weight: 0.0 };

fn serves(estimate: CostLine) -> Profile {
    Profile { estimate: Some(estimate), role: Role::Serves }
}

const STANDBY: Profile = Profile { estimate: None, role: Role::Standby };

/// Doubles numbers, unless `fails` returns an error for the batch.
fn doubles(fails: impl Fn(&[u64]) -> Result<(), ExecutorError> + Send + 'static) -> Function {
    Box::new(move |batch| {
        fails(batch)?;
        Ok(batch.iter().map(|number| number * 2).collect())
    })
}

/// Makes a queue that two devices drain.
fn queue_of(
    config: BatcherConfig,
    executors: [(Function, Profile); 2],
) -> (Queue<impl Executor<Item = u64, Output = u64>>, [DeviceThread; 2]) {
    let devices = ["first", "second"].map(|name| DeviceThread::spawn(name).unwrap());
    let executors = executors.map(|(function, profile)| (from_fn(function), profile));
    let placed = devices.iter().zip(executors).map(|(device, (executor, profile))| (device, executor, profile));
    (Queue::placed(config, placed).unwrap(), devices)
}

async fn ask(queue: &Queue<impl Executor<Item = u64, Output = u64>>, numbers: std::ops::Range<u64>) -> Vec<usize> {
    let tickets: Vec<_> = numbers.clone().map(|number| queue.try_submit(number, None).unwrap()).collect();
    let mut devices = Vec::new();
    for (number, ticket) in numbers.zip(tickets) {
        let completion = ticket.await.unwrap();
        assert_eq!(completion.output, 2 * number);
        devices.push(completion.device);
    }
    devices
}

#[tokio::test]
async fn single_items_run_on_the_device_that_is_sooner_done_with_them() {
    let sound = || doubles(|_| Ok(()));
    let (queue, _devices) = queue_of(BatcherConfig::default(), [(sound(), serves(FAST)), (sound(), serves(SLOW))]);
    for number in 0..8 {
        assert_eq!(ask(&queue, number..number + 1).await, [1], "3 ms there, 10 ms on the first");
    }
    let (queue, _devices) = queue_of(BatcherConfig::default(), [(sound(), serves(SLOW)), (sound(), serves(FAST))]);
    assert_eq!(ask(&queue, 0..1).await, [0], "the order of the devices does not matter");
}

#[tokio::test]
async fn what_waits_goes_to_the_faster_device_while_the_slower_one_stays_idle() {
    let slow_ran = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&slow_ran);
    let slow = doubles(move |batch| {
        counted.fetch_add(batch.len(), Ordering::Relaxed);
        Ok(())
    });
    let dear = CostLine { fixed: 10.0, per_weight: 10.0 };
    let (queue, _devices) =
        queue_of(BatcherConfig::default(), [(doubles(|_| Ok(())), serves(FAST)), (slow, serves(dear))]);
    assert!(ask(&queue, 0..200).await.iter().all(|device| *device == 0));
    assert_eq!(slow_ran.load(Ordering::Relaxed), 0, "20 s are worth no wait that short");
}

#[tokio::test]
async fn a_batch_that_does_not_fit_is_halved_and_smaller_ones_are_taken_from_then_on() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let small = doubles(move |batch| {
        seen.lock().unwrap().push(batch.len());
        if batch.len() > 4 { Err(ExecutorError::out_of_memory("4 fit")) } else { Ok(()) }
    });
    let config =
        BatcherConfig { max_queue_delay: Duration::from_millis(100), max_batch_size: 16, ..Default::default() };
    let (queue, _devices) = queue_of(config, [(small, serves(FAST)), (doubles(|_| Ok(())), STANDBY)]);
    assert_eq!(ask(&queue, 0..16).await, [0; 16], "nothing needed the other device");
    assert_eq!(*sizes.lock().unwrap(), [16, 8, 4, 4, 8, 4, 4]);
    // The count grows when the batch is over, a moment after its last answer.
    while queue.stats().out_of_memory == 0 {
        std::thread::yield_now();
    }
    assert_eq!(queue.device_state(0), DeviceState::ShortOfMemory { max_weight: 4 });
    sizes.lock().unwrap().clear();
    ask(&queue, 16..32).await;
    assert!(sizes.lock().unwrap().iter().all(|size| *size <= 4), "{sizes:?}");
    assert_eq!(queue.stats().out_of_memory, 1);
}

#[tokio::test]
async fn an_item_that_does_not_fit_even_alone_runs_on_another_device() {
    let first =
        doubles(|batch| if batch.contains(&7) { Err(ExecutorError::out_of_memory("7 is too much")) } else { Ok(()) });
    let (queue, _devices) = queue_of(BatcherConfig::default(), [(first, serves(FAST)), (doubles(|_| Ok(())), STANDBY)]);
    for _ in 0..3 {
        let devices = ask(&queue, 0..16).await;
        let expected: Vec<usize> = (0..16).map(|number| usize::from(number == 7)).collect();
        assert_eq!(devices, expected);
    }
    let stats = queue.stats();
    assert_eq!(stats.given_back, 3);
    assert_eq!(stats.admitted + stats.given_back, stats.batched, "all that came back ran once more");
}

#[tokio::test]
async fn without_another_device_the_error_is_the_answer() {
    let queue = Queue::spawn(
        "alone",
        BatcherConfig::default(),
        [from_fn(|batch: &[u64]| match batch {
            [7] => Err(ExecutorError::out_of_memory("7 is too much")),
            [8] => Err(ExecutorError::device_lost("unplugged")),
            [_] => Ok(batch.to_vec()),
            _ => Err(ExecutorError::out_of_memory("one at a time")),
        })],
    )
    .unwrap();
    let refused = queue.call(7, None).await;
    assert!(matches!(refused, Err(Error::Executor(ExecutorError::OutOfMemory(_)))), "{refused:?}");
    assert_eq!(ask_all_but(&queue, &[7], 8).await, 7);
    let lost = queue.call(8, None).await;
    assert!(matches!(lost, Err(Error::Executor(ExecutorError::DeviceLost { .. }))), "{lost:?}");
    let refused = queue.call(9, None).await;
    assert!(matches!(refused, Err(Error::DevicesLost { retry_after: None })), "{refused:?}");
}

/// Submits the first `count` numbers and returns how many are answered; exactly those in `bad` must fail.
async fn ask_all_but(queue: &Queue<impl Executor<Item = u64, Output = u64>>, bad: &[u64], count: u64) -> usize {
    let tickets: Vec<_> = (0..count).map(|number| (number, queue.try_submit(number, None).unwrap())).collect();
    let mut answered = 0;
    for (number, ticket) in tickets {
        let outcome = ticket.await;
        assert_eq!(outcome.is_err(), bad.contains(&number), "{number}: {outcome:?}");
        answered += usize::from(outcome.is_ok());
    }
    answered
}

#[tokio::test]
async fn when_a_device_is_lost_in_the_middle_of_a_batch_nothing_is() {
    let batches = AtomicUsize::new(0);
    let first = doubles(move |_| match batches.fetch_add(1, Ordering::Relaxed) {
        0..3 => Ok(()),
        3 => Err(ExecutorError::device_lost("unplugged")),
        _ => panic!("a lost device is not used"),
    });
    let config = BatcherConfig { max_batch_size: 4, ..Default::default() };
    let (queue, _devices) = queue_of(config, [(first, serves(FAST)), (doubles(|_| Ok(())), STANDBY)]);
    let devices = ask(&queue, 0..400).await;
    assert!(devices.contains(&0) && devices.ends_with(&[1; 300]), "{devices:?}");
    assert_eq!([0, 1].map(|device| queue.device_state(device)), [DeviceState::Lost, DeviceState::Ready]);
    let stats = queue.stats();
    assert_eq!((stats.lost_devices, stats.admitted + stats.given_back), (1, stats.batched));
}

#[tokio::test]
async fn a_lost_device_is_tried_again_when_that_is_worth_it() {
    let batches = AtomicUsize::new(0);
    let first = doubles(move |_| match batches.fetch_add(1, Ordering::Relaxed) {
        0 => Err(ExecutorError::DeviceLost {
            cause: Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("busy")),
            retry_after: Some(Duration::ZERO),
        }),
        _ => Ok(()),
    });
    let (queue, _devices) = queue_of(BatcherConfig::default(), [(first, serves(FAST)), (doubles(|_| Ok(())), STANDBY)]);
    ask(&queue, 0..1).await;
    assert_eq!(ask(&queue, 1..2).await, [0], "its time is over, so it serves again");
}

#[test]
fn a_queue_that_is_closed_while_its_device_is_lost_still_answers_everything() {
    for round in 0..50 {
        let batches = AtomicUsize::new(0);
        let first = doubles(move |_| {
            std::thread::sleep(Duration::from_micros(round * 20));
            if batches.fetch_add(1, Ordering::Relaxed) == 1 { Err(ExecutorError::device_lost("gone")) } else { Ok(()) }
        });
        let config = BatcherConfig { max_batch_size: 4, ..Default::default() };
        let (queue, _devices) = queue_of(config, [(first, serves(FAST)), (doubles(|_| Ok(())), STANDBY)]);
        let tickets: Vec<_> = (0..8).map(|number| queue.try_submit(number, None).unwrap()).collect();
        queue.shutdown();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (number, ticket) in tickets.into_iter().enumerate() {
            assert_eq!(runtime.block_on(ticket).unwrap().output, 2 * number as u64);
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_on_the_faster_device_does_not_wait_for_it() {
    for profile in [serves(CostLine { fixed: 0.002, per_weight: 0.5 }), STANDBY] {
        let first =
            doubles(
                |batch| {
                    if batch.contains(&7) { Err(ExecutorError::out_of_memory("7 is too much")) } else { Ok(()) }
                },
            );
        let (queue, _devices) =
            queue_of(BatcherConfig::default(), [(first, serves(FAST)), (doubles(|_| Ok(())), profile)]);
        let answered = tokio::time::timeout(Duration::from_secs(20), ask(&queue, 6..8)).await;
        assert_eq!(answered.expect("the slower device is idle"), [0, 1], "{profile:?}");
    }
}

#[tokio::test]
async fn an_item_that_loses_every_device_that_runs_it_is_tried_on_each_once() {
    let runs = Arc::new(AtomicUsize::new(0));
    let lost = |runs: &Arc<AtomicUsize>| {
        let runs = Arc::clone(runs);
        doubles(move |_| {
            runs.fetch_add(1, Ordering::Relaxed);
            let cause = Arc::new(std::io::Error::other("it is lost for a moment"));
            Err(ExecutorError::DeviceLost { cause, retry_after: Some(Duration::ZERO) })
        })
    };
    let (queue, _devices) =
        queue_of(BatcherConfig::default(), [(lost(&runs), serves(FAST)), (lost(&runs), serves(SLOW))]);
    let answer = tokio::time::timeout(Duration::from_secs(20), queue.call(1, None)).await.expect("it ends");
    assert!(matches!(answer, Err(Error::Executor(ExecutorError::DeviceLost { .. }))), "{answer:?}");
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn one_item_that_does_not_fit_alone_makes_no_batches_of_one() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let executor = from_fn(move |batch: &[u64]| {
        seen.lock().unwrap().push(batch.len());
        if batch == [7] { Err(ExecutorError::out_of_memory("7 is too much")) } else { Ok(batch.to_vec()) }
    });
    let config = BatcherConfig { max_queue_delay: Duration::from_millis(100), ..Default::default() };
    let queue = Queue::spawn("alone", config, [executor]).unwrap();
    assert!(queue.call(7, None).await.is_err());
    let tickets: Vec<_> = (10..42).map(|number| queue.try_submit(number, None).unwrap()).collect();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(*sizes.lock().unwrap(), [1, 32]);
    assert_eq!(queue.device_state(0), DeviceState::Ready);
}

#[tokio::test]
async fn a_device_that_waits_for_company_and_is_called_away_leaves_what_waits_to_another() {
    let devices = ["first", "second"].map(|name| DeviceThread::spawn(name).unwrap());
    let config = BatcherConfig { max_queue_delay: Duration::from_secs(2), ..Default::default() };
    let waits =
        Queue::on(config, devices.iter().map(|device| (device, from_fn(|batch: &[u64]| Ok(batch.to_vec()))))).unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let long = from_fn(move |batch: &[u64]| {
        released.recv().ok();
        Ok(batch.to_vec())
    });
    let long = Queue::on(BatcherConfig::default(), [(&devices[0], long)]).unwrap();
    let waiting = waits.try_submit(1, None).unwrap();
    let running = long.try_submit(2, None).unwrap();
    let done =
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the second device takes it").unwrap();
    assert_eq!((done.output, done.device), (1, 1));
    drop(release);
    running.await.unwrap();
}

/// A panic whose message panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("again");
    }
}

#[tokio::test]
async fn whatever_an_executors_own_code_does_the_device_lives_on() {
    struct Rude(bool);
    impl Executor for Rude {
        type Item = u64;
        type Output = u64;

        fn run(&mut self, batch: &[u64]) -> Result<Vec<u64>, ExecutorError> {
            match batch {
                [1] => std::panic::panic_any(Bomb),
                [2] => Err(ExecutorError::new("no")),
                _ => Ok(batch.to_vec()),
            }
        }

        fn retry(&self) -> sconce_batch::Retry {
            assert!(!self.0, "it does not say");
            sconce_batch::Retry::Never
        }
    }
    for asking_panics in [false, true] {
        let queue = Queue::spawn("rude", BatcherConfig::default(), [Rude(asking_panics)]).unwrap();
        for number in [1, 2] {
            let answer =
                tokio::time::timeout(Duration::from_secs(20), queue.call(number, None)).await.expect("it ends");
            assert!(matches!(answer, Err(Error::Executor(_))), "{number}: {answer:?}");
        }
        assert_eq!(queue.call(3, None).await.unwrap().output, 3);
    }
}
