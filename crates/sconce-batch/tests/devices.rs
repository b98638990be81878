//! Queues that share devices, with real threads: turns, priorities, panics, shutdown under load.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use sconce_batch::{
    BatchLayout, BatcherConfig, DeviceThread, Error, Executor, ExecutorError, Priority, Queue, Retry, Terms, from_fn,
};

fn numbers() -> impl Executor<Item = u64, Output = u64> {
    from_fn(|batch: &[u64]| Ok(batch.iter().map(|number| number * 2).collect()))
}

/// Panics when it runs, and when it is dropped.
struct Broken;

impl Executor for Broken {
    type Item = ();
    type Output = ();

    fn run(&mut self, _: &[()]) -> Result<Vec<()>, ExecutorError> {
        panic!("it always does");
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        panic!("even now");
    }
}

#[tokio::test]
async fn a_queue_whose_executor_panics_does_not_harm_those_it_shares_the_device_with() {
    let device = DeviceThread::spawn("test").unwrap();
    let sound = Queue::on(BatcherConfig::default(), [(&device, numbers())]).unwrap();
    let broken = Queue::on(BatcherConfig::default(), [(&device, Broken)]).unwrap();
    for number in 0..10 {
        let (doubled, panicked) = tokio::join!(sound.call(number, None), broken.call((), None));
        assert_eq!(doubled.unwrap().output, 2 * number);
        assert!(matches!(panicked, Err(Error::Executor(ExecutorError::Panicked { .. }))));
    }
    broken.shutdown();
    assert_eq!(sound.call(21, None).await.unwrap().output, 42, "the device outlives the queue and its executor");
    assert!(matches!(broken.call((), None).await, Err(Error::ShuttingDown)));
}

#[tokio::test]
async fn a_device_takes_in_queues_while_it_runs_and_lives_until_the_last_is_over() {
    let device = DeviceThread::spawn("test").unwrap();
    let first = Queue::on(BatcherConfig::default(), [(&device, numbers())]).unwrap();
    assert_eq!(first.call(1, None).await.unwrap().output, 2);
    let second = Queue::on(BatcherConfig::default(), [(&device, numbers())]).unwrap();
    drop(device);
    drop(first);
    assert_eq!(second.call(2, None).await.unwrap().output, 4);
    second.shutdown();
}

#[test]
fn queues_that_always_have_work_get_like_shares_of_the_device_however_long_their_batches_are() {
    let device = DeviceThread::spawn("test").unwrap();
    let config = BatcherConfig { max_batch_size: 1, ..BatcherConfig::default() };
    let queues = [1, 6].map(|milliseconds| {
        let sleeps = from_fn(move |batch: &[()]| {
            std::thread::sleep(Duration::from_millis(milliseconds));
            Ok(batch.to_vec())
        });
        Queue::on(config.clone(), [(&device, sleeps)]).unwrap()
    });
    let end = Instant::now() + Duration::from_millis(600);
    std::thread::scope(|scope| {
        for queue in &queues {
            for _ in 0..4 {
                scope.spawn(move || {
                    while Instant::now() < end {
                        queue.call_blocking((), None).unwrap();
                    }
                });
            }
        }
    });
    let [short, long] = queues.map(|queue| queue.stats().run.as_secs_f64());
    assert!((0.5..2.0).contains(&(short / long)), "{short} s in short batches, {long} s in long ones");
}

#[tokio::test]
async fn items_of_higher_priority_run_first() {
    let (permit, permission) = mpsc::channel::<()>();
    let ran = Arc::new(Mutex::new(Vec::<&str>::new()));
    let order = Arc::clone(&ran);
    let one_by_one = from_fn(move |batch: &[&'static str]| {
        permission.recv().ok();
        order.lock().unwrap().extend(batch);
        Ok(vec![(); batch.len()])
    });
    let config = BatcherConfig { max_batch_size: 1, ..BatcherConfig::default() };
    let queue = Queue::spawn("test", config, [one_by_one]).unwrap();
    let submit = |item, priority| queue.try_submit(item, Terms { priority, deadline: None }).unwrap();
    let first = submit("first", Priority::Low);
    while queue.depth().items > 0 {
        std::thread::yield_now();
    }
    let waiting = [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)]
        .map(|(item, priority)| submit(item, priority));
    drop(permit);
    first.await.unwrap();
    for ticket in waiting {
        ticket.await.unwrap();
    }
    assert_eq!(*ran.lock().unwrap(), ["first", "high", "normal", "low"]);
}

/// Pads items, whose values are their lengths, to the longest; counts the weight with and without padding.
struct Padding {
    real: Arc<AtomicUsize>,
    padded: Arc<AtomicUsize>,
}

impl Executor for Padding {
    type Item = usize;
    type Output = usize;
    const LAYOUT: BatchLayout = BatchLayout::Padded;

    fn run(&mut self, batch: &[usize]) -> Result<Vec<usize>, ExecutorError> {
        let longest = batch.iter().max().expect("a batch is never empty");
        self.real.fetch_add(batch.iter().sum(), Ordering::Relaxed);
        self.padded.fetch_add(longest * batch.len(), Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros((longest * batch.len()) as u64));
        Ok(batch.to_vec())
    }

    fn weight(item: &usize) -> usize {
        *item
    }
}

#[tokio::test]
async fn an_executor_that_pads_gets_items_of_like_length_together() {
    let (real, padded) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let executor = Padding { real: Arc::clone(&real), padded: Arc::clone(&padded) };
    let queue = Queue::spawn("test", BatcherConfig::default(), [executor]).unwrap();
    let lengths = (0..512_usize).map(|index| [8, 11, 97, 128][index % 4]);
    let tickets: Vec<_> = lengths.clone().map(|length| queue.try_submit(length, None).unwrap()).collect();
    for (length, ticket) in lengths.zip(tickets) {
        assert_eq!(ticket.await.unwrap().output, length);
    }
    let (real, padded) = (real.load(Ordering::Relaxed), padded.load(Ordering::Relaxed));
    assert!(padded * 2 < real * 3, "{padded} for {real}: in order of arrival it would be 2.1 times as much");
}

/// Doubles numbers; every ninth number fails its batch, and every eleventh panics.
fn faulty(batch: &[u64]) -> Result<Vec<u64>, ExecutorError> {
    batch
        .iter()
        .map(|number| match number {
            number if number % 11 == 10 => panic!("an eleventh"),
            number if number % 9 == 8 => Err(ExecutorError::new("a ninth")),
            number => Ok(number * 2),
        })
        .collect()
}

#[test]
fn under_load_with_failures_deadlines_cancellations_and_a_shutdown_every_call_has_one_answer() {
    const CALLS: u64 = 3000;
    let devices = [DeviceThread::spawn("one").unwrap(), DeviceThread::spawn("two").unwrap()];
    let config = BatcherConfig { max_batch_size: 8, max_queue_size: 64, ..BatcherConfig::default() };
    let queue = || {
        Queue::on(config.clone(), devices.iter().map(|device| (device, from_fn(faulty).retry(Retry::ItemByItem))))
            .unwrap()
    };
    let queues = [queue(), queue(), queue()];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let [answered, failed, late, cancelled, refused] = [const { AtomicU64::new(0) }; 5];
    let call = async |caller: u64, number: u64| {
        let queue = &queues[usize::try_from((caller + number) % 3).unwrap()];
        let count = |counter: &AtomicU64| _ = counter.fetch_add(1, Ordering::Relaxed);
        let deadline = number.is_multiple_of(3).then(|| Instant::now() + Duration::from_micros(number % 700));
        let Ok(mut ticket) = queue.try_submit(number, deadline) else { return count(&refused) };
        let outcome = if number.is_multiple_of(5) {
            match tokio::time::timeout(Duration::from_micros(number % 300), &mut ticket).await {
                Ok(outcome) => outcome,
                Err(_) => return count(&cancelled),
            }
        } else {
            ticket.await
        };
        match outcome {
            Ok(completion) => {
                assert_eq!(completion.output, number * 2);
                count(&answered);
            }
            Err(Error::Executor(_)) => {
                assert!(number % 11 == 10 || number % 9 == 8, "{number} is good");
                count(&failed);
            }
            Err(Error::DeadlineExceeded { .. }) => {
                assert!(deadline.is_some());
                count(&late);
            }
            Err(error) => panic!("{error}"),
        }
    };
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (call, runtime) = (&call, &runtime);
            scope.spawn(move || {
                runtime.block_on(async {
                    for number in 0..CALLS {
                        call(caller, number).await;
                    }
                });
            });
        }
        std::thread::sleep(Duration::from_millis(50));
        queues[0].shutdown();
    });
    for queue in &queues {
        queue.shutdown();
        let stats = queue.stats();
        assert_eq!(stats.admitted, stats.batched + stats.dropped + stats.cancelled, "nothing is left");
    }
    let counts = [&answered, &failed, &late, &cancelled, &refused].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts.iter().sum::<u64>(), 8 * CALLS, "{counts:?}");
    assert!(counts[0] > 0 && counts[1] > 0 && counts[4] > 0, "{counts:?}");
}
