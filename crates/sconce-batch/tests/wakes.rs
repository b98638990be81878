//! Wake-ups: room in the queue, an entry that was given back and the end of a queue each wake the waiting callers and
//! devices.

use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sconce_batch::{
    BatchLayout, Batcher, BatcherConfig, DeviceFault, DeviceState, DeviceThread, Error, Executor, ExecutorError, Queue,
    Retry, Step, from_fn,
};

/// Timeout for a wake-up that never comes: longer than anything here takes.
const NEVER: Duration = Duration::from_secs(20);

fn small() -> BatcherConfig {
    BatcherConfig { max_batch_size: 4, max_queue_size: 4, ..BatcherConfig::default() }
}

/// Makes an executor that sends the size of each batch, then waits for a permit to run it. With the permit's sender
/// dropped it runs batches at once.
fn gated<I, O, F>(mut run: F) -> (impl Executor<Item = I, Output = O>, mpsc::Receiver<usize>, mpsc::Sender<()>)
where
    I: Send + 'static,
    O: Send + 'static,
    F: FnMut(&[I]) -> Result<Vec<O>, ExecutorError> + Send + 'static,
{
    let (started, starts) = mpsc::channel();
    let (permit, permission) = mpsc::channel();
    let executor = from_fn(move |batch: &[I]| {
        started.send(batch.len()).ok();
        permission.recv().ok();
        run(batch)
    })
    .retry(Retry::ItemByItem);
    (executor, starts, permit)
}

#[expect(clippy::unnecessary_wraps, reason = "it is what an executor runs")]
fn echo(batch: &[u32]) -> Result<Vec<u32>, ExecutorError> {
    Ok(batch.to_vec())
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(NEVER, future).await.unwrap_or_else(|_| panic!("{what} never came"))
}

#[tokio::test]
async fn a_caller_that_waits_for_room_gets_that_of_a_dropped_ticket() {
    let (executor, starts, permit) = gated(echo);
    let queue = Queue::spawn("test", small(), [executor]).unwrap();
    let running = queue.try_submit(0, None).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let [dropped, others @ ..] = [1, 2, 3, 4].map(|number| queue.try_submit(number, None).unwrap());

    let mut waits = pin!(queue.submit(5, None));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    drop(dropped);
    let Poll::Ready(admitted) = waits.as_mut().poll(&mut context) else { panic!("the device still runs its first") };

    drop(permit);
    assert_eq!(soon("an answer", admitted.unwrap()).await.unwrap().output, 5);
    for ticket in others.into_iter().chain([running]) {
        soon("an answer", ticket).await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_waits_for_room_gets_that_of_expired_entries() {
    let (executor, starts, permit) = gated(echo);
    let queue = Queue::spawn("test", small(), [executor]).unwrap();
    let running = queue.try_submit(0, None).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let deadline = Instant::now() + Duration::from_millis(300);
    let late = [1, 2, 3, 4].map(|number| queue.try_submit(number, deadline).unwrap());

    let mut waits = pin!(queue.call(5, None));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    assert!(waits.as_mut().poll(&mut context).is_pending());
    tokio::time::sleep_until(deadline.into()).await;
    drop(permit);
    assert_eq!(soon("room", waits).await.unwrap().output, 5);
    soon("an answer", running).await.unwrap();
    for ticket in late {
        assert!(matches!(soon("an answer", ticket).await, Err(Error::DeadlineExceeded { .. })));
    }
}

#[test]
fn a_device_that_ran_out_of_memory_gets_full_batches_again_after_a_minute() {
    let config = BatcherConfig { max_batch_size: 8, ..BatcherConfig::default() };
    let began = Instant::now();
    let batch_after = |seconds| {
        let mut batcher = Batcher::new(began, config.clone(), BatchLayout::Packed).unwrap();
        batcher.report_fault(began, 0, DeviceFault::OutOfMemory { managed: 2 });
        let now = began + Duration::from_secs(seconds);
        for number in 0..8 {
            batcher.offer(now, number, 1, None).unwrap();
        }
        let state = batcher.device_state(now, 0);
        let Step::Run(batch) = batcher.poll(now) else { panic!("there is work") };
        (state, batch.len())
    };
    let short = DeviceState::ShortOfMemory { max_weight: 2 };
    assert_eq!([0, 59, 60].map(batch_after), [(short, 2), (short, 2), (DeviceState::Ready, 8)]);
}

#[tokio::test]
async fn after_a_failed_batch_neither_a_cancelled_item_nor_a_late_one_runs_again() {
    const BAD: u32 = 1;
    const CANCELLED: u32 = 2;
    const LATE: u32 = 3;
    const GOOD: u32 = 4;
    let ran = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ran);
    let (executor, starts, permit) = gated(move |batch: &[u32]| {
        log.lock().unwrap().push(batch.to_vec());
        if batch.contains(&BAD) { Err(ExecutorError::new("a bad item")) } else { Ok(batch.to_vec()) }
    });
    let queue = Queue::spawn("test", small(), [executor]).unwrap();
    let first = queue.try_submit(0, None).unwrap();
    assert_eq!(starts.recv(), Ok(1));
    let deadline = Instant::now() + Duration::from_millis(300);
    let bad = queue.try_submit(BAD, None).unwrap();
    let cancelled = queue.try_submit(CANCELLED, None).unwrap();
    let late = queue.try_submit(LATE, deadline).unwrap();
    let good = queue.try_submit(GOOD, None).unwrap();
    permit.send(()).unwrap();
    assert_eq!(starts.recv(), Ok(4));

    drop(cancelled);
    tokio::time::sleep_until(deadline.into()).await;
    drop(permit);
    soon("an answer", first).await.unwrap();
    assert!(matches!(soon("an answer", bad).await, Err(Error::Executor(_))));
    assert!(matches!(soon("an answer", late).await, Err(Error::DeadlineExceeded { .. })));
    assert_eq!(soon("an answer", good).await.unwrap().output, GOOD);
    assert_eq!(*ran.lock().unwrap(), [vec![0], vec![BAD, CANCELLED, LATE, GOOD], vec![BAD], vec![GOOD]]);
}

#[tokio::test]
async fn what_a_lost_device_gives_back_wakes_another_though_the_lost_one_looks_at_other_queues_first() {
    // Several rounds, because in some the second device is still awake when the item is given back, and needs no wake-up.
    for _ in 0..20 {
        let devices = ["first", "second"].map(|name| DeviceThread::spawn(name).unwrap());
        // A device with several queues looks at each of them before it takes a batch.
        let others = devices.each_ref().map(|device| Queue::on(small(), [(device, from_fn(echo))]).unwrap());
        let (started, starts) = mpsc::channel();
        let (permit, permission) = mpsc::channel::<()>();
        let mut permission = Some(permission);
        let executors = [0, 1].map(|device| {
            let (started, permission) = (started.clone(), permission.take());
            from_fn(move |batch: &[u32]| {
                started.send(device).ok();
                let Some(permission) = &permission else { return echo(batch) };
                permission.recv().ok();
                Err(ExecutorError::device_lost("it fell off"))
            })
        });
        let queue = Queue::on(small(), devices.iter().zip(executors)).unwrap();

        // Either of two alike devices may take an item: submit one after the other until the first device has one.
        let given_back = loop {
            let ticket = queue.try_submit(7, None).unwrap();
            match starts.recv() {
                Ok(0) => break ticket,
                _ => _ = soon("an answer", ticket).await.unwrap(),
            }
        };
        soon("an answer", others[1].call(1, None)).await.unwrap();
        drop(permit);
        let completion = soon("an answer", given_back).await.unwrap();
        assert_eq!((completion.output, completion.device), (7, 1));
        assert_eq!(queue.stats().given_back, 1);
        assert_eq!(
            soon("an answer", others[0].call(8, None)).await.unwrap().output,
            8,
            "it was lost for one queue only"
        );
    }
}

#[test]
fn a_shutdown_ends_devices_that_stayed_only_for_what_might_have_come_back() {
    let gates = [(), ()].map(|()| gated(echo));
    let mut permits = Vec::new();
    let mut starts = Vec::new();
    let executors = gates.map(|(executor, start, permit)| {
        starts.push(start);
        permits.push(permit);
        executor
    });
    let queue = Arc::new(Queue::spawn("test", small(), executors).unwrap());
    let ticket = queue.try_submit(1, None).unwrap();
    while starts.iter().all(|start| start.try_recv().is_err()) {
        std::thread::yield_now();
    }
    let (ended, end) = mpsc::channel();
    let thread = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || {
            queue.shutdown();
            ended.send(()).unwrap();
        }
    });
    while !matches!(queue.try_submit(2, None), Err(Error::ShuttingDown)) {
        std::thread::yield_now();
    }
    drop(permits);
    assert_eq!(end.recv_timeout(NEVER), Ok(()), "a device sleeps on");
    thread.join().unwrap();
    drop(ticket);
}
