//! Counts, predictions and clean-up of a queue.

use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use sconce_batch::{
    BatchLayout, Batcher, BatcherConfig, CostLine, CostModel, DeviceFault, DeviceState, DeviceThread, Error, Profile,
    Queue, Ran, Role, SpawnError, Step, from_fn,
};

const MS: Duration = Duration::from_millis(1);

fn small() -> BatcherConfig {
    BatcherConfig { max_batch_size: 4, max_queue_size: 4, ..BatcherConfig::default() }
}

fn ran(size: usize, run: Duration) -> Ran {
    Ran { size, weight: size, run: Some(run) }
}

/// A cost learned from batches that each took `run`.
fn costs(run: Duration) -> CostModel {
    let mut cost = CostModel::default();
    (0..20).for_each(|_| cost.observe(1, run));
    cost
}

#[tokio::test]
async fn when_the_admission_queue_is_empty_newcomers_are_admitted_again() {
    let (started, starts) = mpsc::channel();
    let (permit, permission) = mpsc::channel::<()>();
    let gated = from_fn(move |batch: &[u32]| {
        started.send(batch.len()).ok();
        permission.recv().ok();
        Ok(batch.to_vec())
    });
    let queue = Queue::spawn("test", small(), [gated]).unwrap();
    let mut tickets = vec![queue.try_submit(0, None).unwrap()];
    assert_eq!(starts.recv(), Ok(1));
    tickets.extend([1, 2, 3, 4].map(|item| queue.try_submit(item, None).unwrap()));
    for _ in 0..6 {
        let mut waits = pin!(queue.submit(9, None));
        assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    drop(permit);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    let all_room: Vec<_> = [5, 6, 7, 8].map(|item| queue.try_submit(item, None)).into_iter().collect();
    for admitted in all_room {
        admitted.expect("six gave up, and there is room for four").await.unwrap();
    }
}

#[test]
fn a_refusal_can_be_had_without_an_item_and_counts() {
    let (_permit, permission) = mpsc::channel::<()>();
    let (started, starts) = mpsc::channel();
    let gated = from_fn(move |batch: &[u32]| {
        started.send(()).ok();
        permission.recv().ok();
        Ok(batch.to_vec())
    });
    let queue = Queue::spawn("test", BatcherConfig { max_queue_size: 1, ..small() }, [gated]).unwrap();
    assert!(queue.refusal(1, None).is_none());
    let _runs = queue.try_submit(0, None).unwrap();
    starts.recv().unwrap();
    let _waits = queue.try_submit(0, None).unwrap();
    assert!(matches!(queue.try_submit(0, None), Err(Error::QueueFull { .. })));
    let before = queue.stats().refused.queue_full;
    assert!(matches!(queue.refusal(1, None), Some(Error::QueueFull { max: 1, .. })));
    assert!(matches!(queue.refusal(1_000_000, None), Some(Error::TooHeavy { .. })));
    let refused = queue.stats().refused;
    assert_eq!((refused.queue_full, refused.too_heavy), (before + 1, 1));
}

#[test]
fn what_was_learned_of_a_device_before_is_its_cost() {
    let queue = Queue::spawn("test", small(), [from_fn(|batch: &[u32]| Ok(batch.to_vec()))]).unwrap();
    queue.learned(0, costs(7 * MS));
    assert_eq!(queue.cost(), costs(7 * MS));
    assert_eq!(queue.cost().predict(1), Some(7 * MS));
}

#[test]
fn thirty_two_devices_can_drain_a_queue_and_thirty_three_are_refused() {
    let devices: Vec<_> = (0..33).map(|_| DeviceThread::spawn("many").unwrap()).collect();
    let queue = |count: usize| {
        let executors = devices[..count].iter().map(|device| (device, from_fn(|batch: &[u32]| Ok(batch.to_vec()))));
        Queue::on(small(), executors)
    };
    assert_eq!(queue(32).unwrap().call_blocking(5, None).unwrap().output, 5);
    assert!(matches!(queue(33), Err(SpawnError::TooManyDevices { devices: 33, max: 32 })));
}

/// Number of threads of this process with this name, of which Linux keeps 15 bytes.
#[cfg(target_os = "linux")]
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists them").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|comm| comm.trim_end() == name).count()
}

#[cfg(target_os = "linux")]
#[test]
fn after_a_shutdown_its_device_threads_are_gone_and_after_a_drop_they_go() {
    let echo = || from_fn(|batch: &[u32]| Ok(batch.to_vec()));
    for _ in 0..20 {
        let queue = Queue::spawn("shut", small(), [echo(), echo()]).unwrap();
        queue.call_blocking(1, None).unwrap();
        assert!(threads("sconce-shut") > 0);
        queue.shutdown();
        // The system may list a joined thread for a moment longer.
        let started = Instant::now();
        while threads("sconce-shut") > 0 {
            assert!(started.elapsed() < Duration::from_secs(20), "a device thread is left");
        }
    }
    let device = DeviceThread::spawn("drop").unwrap();
    let queue = Queue::on(small(), [(&device, echo())]).unwrap();
    queue.call_blocking(1, None).unwrap();
    drop(device);
    drop(queue);
    let started = Instant::now();
    while threads("sconce-drop") > 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "a device thread is left");
        std::thread::yield_now();
    }
}

#[test]
fn batches_are_counted_by_size_and_by_whether_they_lingered() {
    let mut now = Instant::now();
    let config = BatcherConfig { max_queue_delay: 10 * MS, ..small() };
    let mut batcher = Batcher::new(now, config, BatchLayout::Packed).unwrap();
    for size in [1, 2, 2, 4] {
        for item in 0..size {
            batcher.offer(now, item, 1, None).unwrap();
        }
        if size < 4 {
            assert!(matches!(batcher.poll(now), Step::WaitUntil(_)));
            now += 10 * MS;
        }
        assert!(matches!(batcher.poll(now), Step::Run(batch) if batch.len() == size));
        batcher.completed(now, ran(size, MS));
    }
    // A batch whose items were all cancelled before it ran did not fail.
    batcher.offer(now, 0, 1, None).unwrap();
    now += 10 * MS;
    assert!(matches!(batcher.poll(now), Step::Run(_)));
    batcher.completed(now, Ran { size: 0, weight: 0, run: None });
    let stats = batcher.stats();
    assert_eq!((stats.batches, stats.lingered_batches, stats.failed_batches, stats.batched), (5, 3, 0, 10));
    assert_eq!(stats.batch_sizes[..4], [2, 2, 1, 0]);
    assert_eq!(stats.run, 4 * MS);
}

#[test]
fn a_batcher_tells_what_it_was_made_with_and_whether_it_is_closed() {
    let mut batcher = Batcher::<()>::new(Instant::now(), small(), BatchLayout::Padded).unwrap();
    assert_eq!((batcher.config(), batcher.layout()), (&small(), BatchLayout::Padded));
    batcher.learned(0, costs(3 * MS));
    assert_eq!(batcher.cost().predict(1), Some(3 * MS));
    assert!(!batcher.is_closed());
    batcher.close();
    assert!(batcher.is_closed() && batcher.is_over());
}

#[test]
fn the_end_of_a_batch_is_expected_by_its_cost_on_its_device_alone() {
    let now = Instant::now();
    let mut batcher = Batcher::on(now, small(), BatchLayout::Packed, &[Profile::default(); 2]).unwrap();
    batcher.learned(0, costs(8 * MS));
    batcher.offer(now, (), 1, None).unwrap();
    assert_eq!(batcher.expected_end(1), None);
    assert!(matches!(batcher.poll_on(now, 1), Step::Run(_)));
    assert_eq!((batcher.expected_end(0), batcher.expected_end(1)), (None, Some(now + 8 * MS)));
}

#[test]
fn a_device_that_is_lost_is_back_to_the_moment_and_offers_are_refused_that_cannot_wait_for_it() {
    let now = Instant::now();
    let mut batcher = Batcher::new(now, small(), BatchLayout::Packed).unwrap();
    let back = now + Duration::from_secs(10);
    batcher.report_fault(now, 0, DeviceFault::Lost { retry_after: Some(Duration::from_secs(10)) });
    let just_before = back.checked_sub(MS).unwrap();
    assert_eq!((batcher.back_at(now, 0), batcher.back_at(just_before, 0)), (Some(back), Some(back)));
    assert_eq!((batcher.back_at(back, 0), batcher.device_state(back, 0)), (None, DeviceState::Ready));
    assert_eq!(batcher.device_state(just_before, 0), DeviceState::Lost);
    for deadline in [back.checked_sub(5 * MS).unwrap(), back] {
        let refused = batcher.offer(now, (), 1, deadline).unwrap_err().error;
        let Error::DevicesLost { retry_after: Some(after) } = &refused else { panic!("{refused}") };
        assert_eq!(*after, Duration::from_secs(10));
        assert!(refused.to_string().ends_with("; one may be back in 10s"), "{refused}");
    }
    batcher.offer(now, (), 1, back + MS).unwrap();
}

#[test]
fn a_device_that_watches_a_busy_one_is_enough_until_it_looks_again() {
    let now = Instant::now();
    let profile = |fixed| Profile { estimate: Some(CostLine { fixed, per_weight: 0.0 }), role: Role::Serves };
    let mut batcher = Batcher::on(now, small(), BatchLayout::Packed, &[profile(0.1), profile(0.001)]).unwrap();
    batcher.offer(now, (), 1, None).unwrap();
    assert!(matches!(batcher.poll_on(now, 1), Step::Run(_)));
    batcher.offer(now, (), 1, None).unwrap();
    // The fast device is busy for a millisecond: the slow one leaves the item to it, and checks later that it was taken.
    assert_eq!(batcher.whom_to_wake(now, None), Some(0));
    let Step::WaitUntil(until) = batcher.poll_on(now, 0) else { panic!("the fast one would be done sooner") };
    assert_eq!(batcher.whom_to_wake(now, None), None);
    assert_eq!(batcher.whom_to_wake(until.checked_sub(MS / 10).unwrap(), None), None);
    assert_eq!(batcher.whom_to_wake(until, None), Some(0));
}

#[test]
fn a_device_that_is_busy_or_has_just_looked_is_not_woken() {
    let now = Instant::now();
    let mut batcher = Batcher::on(now, small(), BatchLayout::Packed, &[Profile::default(); 2]).unwrap();
    batcher.offer(now, (), 1, None).unwrap();
    assert_eq!([None, Some(0), Some(1)].map(|looked| batcher.whom_to_wake(now, looked)), [Some(0), Some(1), Some(0)]);
    batcher.observe_load([Some(now + MS), None]);
    assert_eq!([None, Some(0), Some(1)].map(|looked| batcher.whom_to_wake(now, looked)), [Some(1), Some(1), None]);
}

#[test]
fn an_item_that_would_be_late_on_a_slow_device_is_left_to_a_fast_one_that_can_still_save_it() {
    let now = Instant::now();
    let profile = |role| Profile { estimate: Some(CostLine { fixed: 0.01, per_weight: 0.0 }), role };
    // 50 ms a batch on the slow device and 5 ms on the fast one, which is busy; an urgent item, and many behind it.
    let slow_takes = |busy: u32, deadline: u32, role: Role, change: fn(&mut Batcher<&'static str>, Instant)| {
        let config = BatcherConfig { max_batch_size: 1, ..BatcherConfig::default() };
        let mut batcher =
            Batcher::on(now, config, BatchLayout::Packed, &[profile(Role::Serves), profile(role)]).unwrap();
        batcher.learned(0, costs(50 * MS));
        batcher.learned(1, costs(5 * MS));
        batcher.offer(now, "urgent", 1, now + deadline * MS).unwrap();
        for _ in 0..40 {
            batcher.offer(now, "patient", 1, None).unwrap();
        }
        change(&mut batcher, now);
        batcher.observe_load([None, Some(now + busy * MS)]);
        match batcher.poll_on(now, 0) {
            Step::Run(batch) => format!("runs {}", batch[0].payload),
            Step::Expire(entries) => format!("drops {}", entries[0].payload),
            step => panic!("{step:?}"),
        }
    };
    let same: fn(&mut Batcher<&'static str>, Instant) = |_, _| {};
    assert_eq!(slow_takes(10, 30, Role::Serves, same), "runs patient", "the fast one ends the urgent one in 15 ms");
    assert_eq!(slow_takes(24, 30, Role::Serves, same), "runs patient", "and here in 29 ms");
    assert_eq!(slow_takes(27, 30, Role::Serves, same), "drops urgent", "nobody can save it, and others wait");
    assert_eq!(slow_takes(10, 60, Role::Serves, same), "runs urgent", "it is in time on the slow one");
    assert_eq!(slow_takes(10, 30, Role::Standby, same), "drops urgent", "a standby is for what no other can run");
    let unknown = |batcher: &mut Batcher<_>, _| batcher.learned(1, CostModel::default());
    assert_eq!(slow_takes(10, 30, Role::Serves, unknown), "drops urgent", "nobody knows what the fast one can do");
    let lost = |batcher: &mut Batcher<_>, now| batcher.report_fault(now, 1, DeviceFault::Lost { retry_after: None });
    assert_eq!(slow_takes(10, 30, Role::Serves, lost), "drops urgent");
}

#[test]
fn what_is_left_to_a_device_that_hangs_is_taken_by_one_that_is_idle() {
    let start = Instant::now();
    let profile = |fixed| Profile { estimate: Some(CostLine { fixed, per_weight: 0.0 }), role: Role::Serves };
    let mut batcher = Batcher::on(start, small(), BatchLayout::Packed, &[profile(0.005), profile(0.1)]).unwrap();
    batcher.learned(0, costs(5 * MS));
    batcher.learned(1, costs(100 * MS));
    batcher.offer(start, "hangs", 1, None).unwrap();
    assert!(matches!(batcher.poll_on(start, 0), Step::Run(_)));
    let mut now = start;
    batcher.offer(now, "urgent", 1, now + 60 * MS).unwrap();
    batcher.offer(now, "patient", 1, None).unwrap();
    assert_eq!(batcher.whom_to_wake(now, None), Some(1), "it watches");
    let (mut looks, mut taken) = (0, Vec::new());
    while now < start + 300 * MS && !taken.contains(&"patient") {
        looks += 1;
        match batcher.poll_on(now, 1) {
            Step::WaitUntil(at) => now = at,
            Step::Run(entries) | Step::Expire(entries) => taken.extend(entries.iter().map(|entry| entry.payload)),
            step => panic!("{step:?}: nobody would wake it any more"),
        }
    }
    assert!(taken.contains(&"patient"), "after {:?}", now - start);
    assert!(looks < 30, "{looks} looks");
}

#[test]
fn a_forecast_tells_of_the_wait_behind_others_and_of_the_devices_that_take_batches() {
    let now = Instant::now();
    let mut batcher = Batcher::new(now, small(), BatchLayout::Packed).unwrap();
    batcher.learned(0, costs(10 * MS));
    assert_eq!(batcher.forecast(now, 1).wait, Duration::ZERO, "nothing is queued");
    batcher.offer(now, "runs", 1, now + 100 * MS).unwrap();
    assert!(matches!(batcher.poll(now), Step::Run(batch) if batch.len() == 1));
    batcher.offer(now, "waits", 1, now + 100 * MS).unwrap();
    let forecast = batcher.forecast(now, 1);
    assert!((15 * MS..=60 * MS).contains(&forecast.wait), "the rest of one batch, and another: {forecast:?}");
    assert_eq!((forecast.typical_time, forecast.costs.len()), (Some(100 * MS), 1));
    assert!(batcher.forecast(now + 70 * MS, 1).wait >= 70 * MS, "it has been queued for that long");
    batcher.report_fault(now, 0, DeviceFault::Lost { retry_after: None });
    assert_eq!(batcher.forecast(now, 1).costs, []);
}
