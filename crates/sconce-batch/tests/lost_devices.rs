//! Lost devices: queued entries are answered, offers are refused, a closing queue waits for none of them, and a device
//! that comes back counts again.

#![expect(clippy::unwrap_used, reason = "clippy knows the tests as tests, but not the functions they share")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sconce_batch::{
    BatchLayout, Batcher, BatcherConfig, CostLine, CostModel, DeviceFault, DeviceState, DeviceThread, Error, Executor,
    ExecutorError, Profile, Queue, Ran, Role, Step, from_fn,
};

/// Longer than any test may take.
const LONG: Duration = Duration::from_hours(1);

fn lost(retry_after: Option<Duration>) -> ExecutorError {
    ExecutorError::DeviceLost { cause: Arc::new(std::io::Error::other("unplugged")), retry_after }
}

fn profile(fixed: f64) -> Profile {
    Profile { estimate: Some(CostLine { fixed, per_weight: 0.0 }), role: Role::Serves }
}

/// A queue on devices that are lost in their first batch and in each later one.
fn queue_of_lost(
    retry_after: &[Option<Duration>],
) -> (Queue<impl Executor<Item = u64, Output = u64> + use<>>, Vec<DeviceThread>) {
    let devices: Vec<_> = retry_after.iter().map(|_| DeviceThread::spawn("lost").unwrap()).collect();
    let executors = retry_after.iter().map(|after| {
        let after = *after;
        from_fn(move |_: &[u64]| Err(lost(after)))
    });
    let placed = devices.iter().zip(executors).map(|(device, executor)| (device, executor, profile(0.001)));
    (Queue::placed(BatcherConfig::default(), placed).unwrap(), devices)
}

/// Runs a call, and fails the test if it blocks for more than 30 seconds.
fn within_time<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, outcome) = mpsc::channel();
    std::thread::spawn(move || done.send(call()));
    outcome.recv_timeout(Duration::from_secs(30)).expect("it must not block for ever")
}

#[test]
fn where_every_device_is_lost_calls_without_a_deadline_are_refused_and_a_shutdown_returns() {
    for devices in 1..=3 {
        let (queue, _devices) = queue_of_lost(&vec![None; devices]);
        let queue = Arc::new(queue);
        for call in 0..4 {
            let queue = Arc::clone(&queue);
            let refused = within_time(move || queue.call_blocking(1, None).map(|done| done.output)).unwrap_err();
            match refused {
                Error::Executor(ExecutorError::DeviceLost { .. }) => assert_eq!(call, 0, "one call finds out"),
                Error::DevicesLost { retry_after: None } => assert!(call > 0),
                error => panic!("{error}"),
            }
        }
        assert!(matches!(queue.try_submit(1, None), Err(Error::DevicesLost { retry_after: None })));
        assert_eq!((0..devices).map(|at| queue.device_state(at)).collect::<Vec<_>>(), vec![DeviceState::Lost; devices]);
        within_time(move || queue.shutdown());
    }
}

#[test]
fn what_waits_for_room_or_for_a_device_is_answered_when_the_last_device_is_lost() {
    let (started, starts) = mpsc::channel();
    let (permit, permission) = mpsc::channel::<()>();
    let executor = from_fn(move |_: &[u64]| -> Result<Vec<u64>, _> {
        started.send(()).ok();
        permission.recv().ok();
        Err(lost(None))
    });
    let config = BatcherConfig { max_queue_size: 1, ..BatcherConfig::default() };
    let queue = Arc::new(Queue::spawn("lost", config, [executor]).unwrap());
    let call = || {
        let queue = Arc::clone(&queue);
        std::thread::spawn(move || queue.call_blocking(1, None).map(|done| done.output))
    };
    let running = call();
    starts.recv().unwrap();
    let waiting: Vec<_> = (0..4).map(|_| call()).collect();
    while queue.stats().refused.queue_full < 3 {
        std::thread::yield_now();
    }
    drop(permit);
    assert!(matches!(running.join().unwrap(), Err(Error::Executor(ExecutorError::DeviceLost { .. }))));
    for caller in waiting {
        let refused = within_time(move || caller.join().unwrap());
        assert!(matches!(refused, Err(Error::DevicesLost { retry_after: None })), "{refused:?}");
    }
    assert_eq!(queue.stats().stranded, 1, "the one that waited in the queue");
}

#[test]
fn a_shutdown_does_not_wait_for_a_device_that_is_away() {
    let (queue, _devices) = queue_of_lost(&[Some(LONG), Some(LONG)]);
    let queue = Arc::new(queue);
    let asked = Arc::clone(&queue);
    let refused = within_time(move || asked.call_blocking(1, None).map(|done| done.output));
    assert!(matches!(refused, Err(Error::Executor(ExecutorError::DeviceLost { .. }))), "{refused:?}");
    // Once both devices are away, an item without a deadline waits for one of them.
    while (0..2).any(|device| queue.device_state(device) != DeviceState::Lost) {
        std::thread::yield_now();
    }
    let waiting = queue.try_submit(2, None).unwrap();
    let hurried = queue.try_submit(3, Instant::now() + Duration::from_mins(1));
    assert!(matches!(hurried, Err(Error::DevicesLost { retry_after: Some(_) })), "none comes back in time");
    within_time(move || queue.shutdown());
    let answer = within_time(move || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(waiting));
    assert!(matches!(answer, Err(Error::DevicesLost { retry_after: Some(_) })), "{:?}", answer.map(|done| done.output));
}

#[test]
fn a_device_that_two_queues_share_looks_again_when_it_is_worth_a_try() {
    let device = DeviceThread::spawn("shared").unwrap();
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let flaky = from_fn(move |batch: &[u64]| match counted.fetch_add(1, Ordering::Relaxed) {
        0 => Err(lost(Some(Duration::from_millis(20)))),
        _ => Ok(batch.to_vec()),
    });
    let other = from_fn(|batch: &[u64]| Ok(batch.to_vec()));
    let queue = Arc::new(Queue::on(BatcherConfig::default(), [(&device, flaky)]).unwrap());
    let _other = Queue::on(BatcherConfig::default(), [(&device, other)]).unwrap();
    let first = Arc::clone(&queue);
    assert!(within_time(move || first.call_blocking(1, None).map(|done| done.output)).is_err());
    assert_eq!(
        within_time(move || queue.call_blocking(2, None).map(|done| done.output)).unwrap(),
        2,
        "nothing wakes it"
    );
}

fn batcher(now: Instant, devices: usize) -> Batcher<u64> {
    Batcher::on(now, BatcherConfig::default(), BatchLayout::Packed, &vec![profile(0.01); devices]).unwrap()
}

#[test]
fn an_entry_that_fits_on_lost_devices_alone_is_stranded_and_the_others_stay() {
    let now = Instant::now();
    let mut batcher = batcher(now, 2);
    batcher.offer(now, 7, 1, None).unwrap();
    let Step::Run(mut batch) = batcher.poll_on(now, 0) else { panic!("it waits") };
    batch[0].excluded = batch[0].excluded.with(0);
    batcher.give_back(batch);
    batcher.completed_on(now, 0, Ran { size: 1, weight: 1, run: None });
    batcher.offer(now, 8, 1, None).unwrap();
    batcher.report_fault(now, 1, DeviceFault::Lost { retry_after: Some(LONG) });
    assert!(batcher.stranded(now).is_empty(), "it will be back");
    batcher.report_fault(now, 1, DeviceFault::Lost { retry_after: None });
    let stranded: Vec<_> = batcher.stranded(now).into_iter().map(|entry| entry.payload).collect();
    assert_eq!((stranded, batcher.len(), batcher.stats().stranded), (vec![7], 1, 1));
}

#[test]
fn a_closed_queue_counts_on_no_device_that_is_away_but_on_one_that_is_back() {
    let start = Instant::now();
    for (closes_after, stranded) in [(LONG / 2, 1), (LONG, 0)] {
        let mut batcher = batcher(start, 1);
        batcher.report_fault(start, 0, DeviceFault::Lost { retry_after: Some(LONG) });
        batcher.offer(start, 7, 1, None).unwrap();
        assert!(batcher.stranded(start).is_empty());
        batcher.close();
        assert_eq!(batcher.stranded(start + closes_after).len(), stranded);
    }
}

#[test]
fn a_device_that_is_back_counts_for_admission_again() {
    let start = Instant::now();
    let ms = Duration::from_millis;
    let learned = |run| {
        let mut cost = CostModel::default();
        (1..=20).for_each(|weight| cost.observe(weight, run));
        cost
    };
    let is_admitted = |retry_after| {
        let mut batcher = batcher(start, 2);
        batcher.learned(0, learned(ms(500)));
        batcher.learned(1, learned(ms(5)));
        batcher.report_fault(start, 1, DeviceFault::Lost { retry_after: Some(retry_after) });
        batcher.offer(start, 1, 1, None).unwrap();
        assert!(matches!(batcher.poll_on(start, 0), Step::Run(_)));
        batcher.offer(start, 2, 1, None).unwrap();
        let now = start + ms(200);
        batcher.offer(now, 3, 1, Some(now + ms(700))).is_ok()
    };
    assert!(!is_admitted(LONG), "300 ms until the slow device is free, and 500 there");
    assert!(is_admitted(ms(100)), "the fast device is back");
}
