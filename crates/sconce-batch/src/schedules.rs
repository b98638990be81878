//! Queues and devices under many schedules of their threads (`tests/run schedules`).
//!
//! A schedule fails if an assertion of the test fails, or if all its threads wait: a lost wake-up and a device thread
//! that never ends show as such a deadlock.

use std::sync::Arc;
use std::time::Duration;

use sconce_test_schedules::{explore, perhaps};
use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Condvar;

use crate::sync::{self, Mutex, lock, thread};
use crate::{
    BatcherConfig, CostLine, DeviceThread, Error, Executor, ExecutorError, Profile, Queue, Retry, Role, Terms, from_fn,
};

/// A configuration with room for so many items in a batch and in the queue.
fn bounds(batch: usize, queue: usize) -> BatcherConfig {
    BatcherConfig { max_batch_size: batch, max_queue_size: queue, ..BatcherConfig::default() }
}

/// The items that ran to their end.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u32>>>);

impl Log {
    fn executor(&self) -> impl Executor<Item = u32, Output = u32> + use<> {
        let log = self.clone();
        from_fn(move |batch: &[u32]| {
            thread::yield_now();
            lock(&log.0).extend(batch);
            Ok(batch.to_vec())
        })
    }

    fn sorted(&self) -> Vec<u32> {
        let mut ran = lock(&self.0).clone();
        ran.sort_unstable();
        ran
    }
}

/// An executor that always fails with the given error, or echoes if there is none.
fn failing(log: &Log, fails: Option<fn() -> ExecutorError>) -> impl Executor<Item = u32, Output = u32> + use<> {
    let mut echo = log.executor();
    from_fn(move |batch: &[u32]| match fails {
        None => echo.run(batch),
        Some(error) => {
            thread::yield_now();
            Err(error())
        }
    })
}

/// Starts a thread for each list of items, which calls with one item after the other. Returns all answers, sorted.
fn call_from_threads<E>(queue: &Arc<Queue<E>>, callers: &[&'static [u32]], terms: Terms) -> Vec<Result<u32, Error>>
where
    E: Executor<Item = u32, Output = u32>,
{
    let call = |items: &'static [u32]| {
        let queue = Arc::clone(queue);
        thread::spawn(move || {
            let answer = |item: &u32| {
                let answer = queue.call_blocking(*item, terms).map(|completion| completion.output);
                assert!(answer.as_ref().is_ok_and(|output| output == item) || answer.is_err());
                answer
            };
            items.iter().map(answer).collect::<Vec<_>>()
        })
    };
    let threads: Vec<_> = callers.iter().map(|items| call(items)).collect();
    let mut answers: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    answers.sort_by_key(|answer| answer.as_ref().ok().copied());
    answers
}

#[test]
fn each_item_runs_once_and_its_caller_gets_the_answer() {
    explore(|| {
        let log = Log::default();
        let queue = Arc::new(Queue::spawn("test", bounds(2, 2), [log.executor(), log.executor()]).unwrap());
        let answers = call_from_threads(&queue, &[&[0, 1], &[10, 11], &[20, 21]], Terms::default());
        assert!(answers.into_iter().map(Result::unwrap).eq([0, 1, 10, 11, 20, 21]));
        queue.shutdown();
        assert_eq!(log.sorted(), [0, 1, 10, 11, 20, 21]);
        let stats = queue.stats();
        assert_eq!((stats.admitted, stats.batched), (6, 6));
    });
}

#[test]
fn a_shutdown_answers_what_was_admitted_refuses_the_rest_and_outlives_the_executors() {
    explore(|| {
        let log = Log::default();
        let queue = Arc::new(Queue::spawn("test", bounds(1, 1), [log.executor(), log.executor()]).unwrap());
        let callers = thread::spawn({
            let queue = Arc::clone(&queue);
            move || call_from_threads(&queue, &[&[0, 1], &[10]], Terms::default())
        });
        for _ in 0..thread_rng().gen_range(0..20) {
            thread::yield_now();
        }
        queue.shutdown();
        assert_eq!(Arc::strong_count(&log.0), 1, "no executor is left");
        let answers = callers.join().unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(Error::ShuttingDown))), "{answers:?}");
        assert!(answers.into_iter().filter_map(Result::ok).eq(log.sorted()));
        assert_eq!(queue.stats().admitted, queue.stats().batched);
    });
}

#[test]
fn a_queue_that_is_dropped_answers_what_waits_and_its_devices_end() {
    explore(|| {
        let log = Log::default();
        let queue = Queue::spawn("test", bounds(2, 8), [log.executor(), log.executor()]).unwrap();
        let tickets = [0, 1, 2].map(|item| queue.try_submit(item, None).unwrap());
        drop(queue);
        for (item, ticket) in (0..).zip(tickets) {
            assert_eq!(block_on(ticket).unwrap().output, item);
        }
    });
}

#[test]
fn a_queue_that_comes_while_its_device_falls_asleep_is_served() {
    explore(|| {
        let device = DeviceThread::spawn("test").unwrap();
        let queue = |log: &Log| Queue::on(bounds(2, 2), [(&device, log.executor())]).unwrap();
        let (first, second) = (Log::default(), Log::default());
        let other = thread::spawn({
            let queue = queue(&first);
            move || {
                assert_eq!(queue.call_blocking(1, None).unwrap().output, 1);
                queue.shutdown();
            }
        });
        let queue = queue(&second);
        drop(device);
        assert_eq!(queue.call_blocking(2, None).unwrap().output, 2);
        drop(queue);
        other.join().unwrap();
    });
}

#[test]
fn a_caller_that_waits_for_room_gets_that_of_one_who_cancels_while_his_item_is_taken() {
    explore(|| {
        let log = Log::default();
        let queue = Arc::new(Queue::spawn("test", bounds(1, 1), [log.executor()]).unwrap());
        let cancelled = queue.try_submit(0, None).unwrap();
        let cancels = thread::spawn(move || drop(cancelled));
        let answers = call_from_threads(&queue, &[&[1], &[2]], Terms::default());
        assert!(answers.into_iter().map(Result::unwrap).eq([1, 2]));
        cancels.join().unwrap();
        queue.shutdown();
        let stats = queue.stats();
        assert_eq!((stats.admitted, stats.batched + stats.cancelled), (3, 3));
        let ran = log.sorted();
        assert!(ran == [1, 2] || ran == [0, 1, 2], "{ran:?}");
    });
}

#[test]
fn callers_that_wait_for_room_all_get_in_whoever_of_them_gives_up() {
    explore(|| {
        let log = Log::default();
        let queue = Arc::new(Queue::spawn("test", bounds(1, 1), [log.executor()]).unwrap());
        let gives_up = |item| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                // It may give up in the admission queue, at its head, with room promised, with a ticket, or while its
                // item runs.
                let Some(ticket) = perhaps(queue.submit(item, None)) else { return };
                perhaps(ticket.unwrap());
            })
        };
        let give_up = [gives_up(100), gives_up(101)];
        let answers = call_from_threads(&queue, &[&[0, 1], &[10]], Terms::default());
        assert!(answers.into_iter().map(Result::unwrap).eq([0, 1, 10]));
        for thread in give_up {
            thread.join().unwrap();
        }
        // The admission queue is empty again.
        assert_eq!(block_on(queue.try_submit(200, None).unwrap()).unwrap().output, 200);
        queue.shutdown();
        let stats = queue.stats();
        assert_eq!(stats.admitted, stats.batched + stats.cancelled);
        let ran = log.sorted();
        assert!(ran.is_sorted_by(|a, b| a < b), "each once: {ran:?}");
    });
}

#[test]
fn callers_that_wait_for_room_get_that_of_entries_whose_time_is_over() {
    explore(|| {
        let log = Log::default();
        let queue = Arc::new(Queue::spawn("test", bounds(2, 1), [log.executor()]).unwrap());
        let short_of_time = thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                for item in [100, 101] {
                    let deadline = sync::now() + Duration::from_micros(thread_rng().gen_range(1..12));
                    let answer = queue.call_blocking(item, deadline);
                    assert!(matches!(answer, Ok(_) | Err(Error::DeadlineExceeded { .. } | Error::Overloaded { .. })));
                }
                let deadline = sync::now() + Duration::from_micros(4);
                let answer = block_on(async { queue.submit(102, deadline).await?.await });
                assert!(matches!(answer, Ok(_) | Err(Error::DeadlineExceeded { .. } | Error::Overloaded { .. })));
            }
        });
        let answers = call_from_threads(&queue, &[&[0, 1], &[10]], Terms::default());
        assert!(answers.into_iter().map(Result::unwrap).eq([0, 1, 10]));
        short_of_time.join().unwrap();
        queue.shutdown();
        let stats = queue.stats();
        assert_eq!(stats.admitted, stats.batched + stats.cancelled + stats.dropped);
    });
}

#[test]
fn what_one_device_gives_back_wakes_another_and_nobody_is_left_behind() {
    const TICKS: Duration = Duration::from_micros(5);
    const FAULTS: [fn() -> ExecutorError; 3] = [
        || ExecutorError::device_lost("it fell off"),
        || ExecutorError::DeviceLost { cause: Arc::from(Box::from("it resets")), retry_after: Some(TICKS) },
        || ExecutorError::out_of_memory("it is full"),
    ];
    explore(|| {
        let (log, other_log) = (Log::default(), Log::default());
        let devices = ["first", "second"].map(|name| DeviceThread::spawn(name).unwrap());
        // A device with two queues looks at both before it takes a batch.
        let other = Queue::on(bounds(2, 8), [(&devices[0], other_log.executor())]).unwrap();
        let fault = FAULTS[thread_rng().gen_range(0..FAULTS.len())];
        let executors = [failing(&log, Some(fault)), failing(&log, None)];
        let queue = Arc::new(Queue::on(bounds(2, 8), devices.iter().zip(executors)).unwrap());
        let answers = call_from_threads(&queue, &[&[0, 1], &[10]], Terms::default());
        assert!(answers.into_iter().map(Result::unwrap).eq([0, 1, 10]));
        assert_eq!(other.call_blocking(7, None).unwrap().output, 7);
        let last = [11, 12].map(|item| queue.try_submit(item, None).unwrap());
        queue.shutdown();
        for ticket in last {
            block_on(ticket).unwrap();
        }
        assert_eq!(log.sorted(), [0, 1, 10, 11, 12]);
    });
}

#[test]
fn when_every_device_is_lost_what_waits_is_answered_and_the_rest_refused() {
    explore(|| {
        let log = Log::default();
        let lost: fn() -> ExecutorError = || ExecutorError::device_lost("it fell off");
        let executors = [failing(&log, Some(lost)), failing(&log, Some(lost))];
        let queue = Arc::new(Queue::spawn("test", bounds(1, 1), executors).unwrap());
        let answers = call_from_threads(&queue, &[&[0, 1], &[10], &[20]], Terms::default());
        for answer in answers {
            assert!(matches!(answer, Err(Error::DevicesLost { .. } | Error::Executor(_))), "{answer:?}");
        }
        queue.shutdown();
    });
}

#[test]
fn items_that_are_admitted_together_get_in_past_single_ones_and_all_are_answered() {
    explore(|| {
        let log = Log::default();
        let queue = Arc::new(Queue::spawn("test", bounds(2, 3), [log.executor(), log.executor()]).unwrap());
        let many = |items: [u32; 3]| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                for (item, ticket) in items.into_iter().zip(block_on(queue.submit_many(items.to_vec(), None)).unwrap())
                {
                    assert_eq!(block_on(ticket).unwrap().output, item);
                }
            })
        };
        let gives_up = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || drop(perhaps(queue.submit_many(vec![200, 201], None))))
        };
        let together = [many([100, 101, 102]), many([110, 111, 112])];
        let answers = call_from_threads(&queue, &[&[0, 1]], Terms::default());
        assert!(answers.into_iter().map(Result::unwrap).eq([0, 1]));
        for thread in together.into_iter().chain([gives_up]) {
            thread.join().unwrap();
        }
        queue.shutdown();
        let stats = queue.stats();
        assert_eq!(stats.admitted, stats.batched + stats.cancelled);
    });
}

#[test]
fn among_unlike_devices_none_leaves_what_waits_to_one_that_does_not_take_it() {
    explore(|| {
        let log = Log::default();
        let devices = ["slow", "fast", "standby"].map(|name| DeviceThread::spawn(name).unwrap());
        let estimate = |fixed| Some(CostLine { fixed, per_weight: 1e-6 });
        let profiles = [
            Profile { estimate: estimate(20e-6), role: Role::Serves },
            Profile { estimate: estimate(4e-6), role: Role::Serves },
            Profile { estimate: None, role: Role::Standby },
        ];
        let lost = thread_rng().gen_bool(0.3).then_some((|| ExecutorError::device_lost("it fell off")) as fn() -> _);
        let executors = [failing(&log, lost), failing(&log, lost), failing(&log, None)];
        let placed = devices.iter().zip(executors).zip(profiles).map(|((device, executor), it)| (device, executor, it));
        let queue = Arc::new(Queue::placed(bounds(2, 4), placed).unwrap());
        let answers = call_from_threads(&queue, &[&[0, 1], &[10, 11], &[20]], Terms::default());
        assert!(answers.into_iter().map(Result::unwrap).eq([0, 1, 10, 11, 20]));
        queue.shutdown();
        assert_eq!(log.sorted(), [0, 1, 10, 11, 20]);
    });
}

#[test]
fn as_many_devices_run_as_have_something_to_run() {
    explore(|| {
        let (running, both) = (Arc::new(Mutex::new(0)), Arc::new(Condvar::new()));
        let executor = || {
            let (running, both) = (Arc::clone(&running), Arc::clone(&both));
            from_fn(move |batch: &[u32]| {
                let mut running = lock(&running);
                *running += 1;
                both.notify_all();
                // Waits for ever if the other device is not woken for the item that this one leaves.
                while *running < 2 {
                    running = both.wait(running).unwrap();
                }
                Ok(batch.to_vec())
            })
        };
        let queue = Queue::spawn("test", bounds(1, 2), [executor(), executor()]).unwrap();
        for ticket in [0, 1].map(|item| queue.try_submit(item, None).unwrap()) {
            block_on(ticket).unwrap();
        }
    });
}

#[test]
fn a_device_that_waits_for_company_runs_its_batch_when_it_came_or_did_not() {
    explore(|| {
        let log = Log::default();
        let config = BatcherConfig { max_queue_delay: Duration::from_micros(30), ..bounds(2, 4) };
        let queue = Arc::new(Queue::spawn("test", config, [log.executor(), log.executor()]).unwrap());
        let answers = call_from_threads(&queue, &[&[0], &[10], &[20]], Terms::default());
        assert!(answers.into_iter().map(Result::unwrap).eq([0, 10, 20]));
        queue.shutdown();
        assert_eq!(log.sorted(), [0, 10, 20]);
    });
}

#[test]
fn a_batch_that_panics_fails_its_callers_and_nobody_else() {
    explore(|| {
        let log = Log::default();
        let mut echo = log.executor();
        let picky = from_fn(move |batch: &[u32]| {
            // Does not call the panic hook, which would print every panic.
            if batch.contains(&1) { std::panic::resume_unwind(Box::new("no ones")) } else { echo.run(batch) }
        })
        .retry(Retry::ItemByItem);
        let queue = Arc::new(Queue::spawn("test", bounds(2, 2), [picky]).unwrap());
        let answers = call_from_threads(&queue, &[&[0, 1, 2], &[10]], Terms::default());
        assert!(answers.iter().filter_map(|answer| answer.as_ref().ok()).eq(&[0, 2, 10]));
        queue.shutdown();
        assert_eq!(log.sorted(), [0, 2, 10]);
    });
}
