//! The admission queue and groups: no waiting caller is overtaken, and a group is admitted as a whole or not at all.

#![expect(clippy::unwrap_used, reason = "clippy knows the tests as tests, but not the functions they share")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use sconce_batch::{
    BatchLayout, Batcher, BatcherConfig, CostModel, Error, Executor, ExecutorError, Group, Queue, Ran, Standing, Step,
    Terms,
};

fn config() -> BatcherConfig {
    BatcherConfig {
        max_batch_size: 4,
        max_batch_weight: 100,
        max_queue_size: 8,
        max_queue_weight: 100,
        ..BatcherConfig::default()
    }
}

fn batcher(now: Instant) -> Batcher<usize> {
    Batcher::new(now, config(), BatchLayout::Packed).unwrap()
}

/// Items of these weights, each with its index as payload.
fn items(weights: &[usize]) -> Vec<(usize, usize)> {
    weights.iter().copied().enumerate().collect()
}

/// Returns true if a newcomer of this weight is admitted.
fn takes(batcher: &mut Batcher<usize>, now: Instant, weight: usize) -> bool {
    batcher.offer(now, 0, weight, None).is_ok()
}

#[test]
fn a_newcomer_is_admitted_only_if_there_is_room_for_the_whole_admission_queue_too() {
    let now = Instant::now();
    let mut batcher = batcher(now);
    let heavy = Group::one(90);
    assert!(takes(&mut batcher, now, 20));
    batcher.join_admission_queue(heavy);
    assert!(!takes(&mut batcher, now, 1), "90 wait behind 20, and 100 are the bound");
    let Err(refused) = batcher.offer(now, 0, 1, None) else { panic!("it overtook") };
    assert!(matches!(refused.error, Error::QueueTooHeavy { queued: 110, weight: 1, max: 100, .. }), "{refused:?}");
    assert!(matches!(batcher.poll(now), Step::Run(_)));
    assert!(takes(&mut batcher, now, 10), "there is room for both");
    assert!(!takes(&mut batcher, now, 1));
    batcher.offer_as(now, 0, 90, Terms::default(), Standing::Head).unwrap();
    batcher.leave_admission_queue(heavy);
    assert_eq!(batcher.weight(), 100);
}

#[test]
fn a_group_in_the_admission_queue_counts_with_all_its_items() {
    let now = Instant::now();
    let mut batcher = batcher(now);
    batcher.join_admission_queue([1; 7].into_iter().collect());
    assert!(takes(&mut batcher, now, 1));
    assert!(!takes(&mut batcher, now, 1), "7 wait for room, 1 is queued, and 8 are the bound");
}

#[test]
fn a_group_is_admitted_as_a_whole_or_not_at_all() {
    let now = Instant::now();
    let mut batcher = batcher(now);
    let offer = |batcher: &mut Batcher<usize>, weights: &[usize]| {
        batcher.offer_many(now, items(weights), Terms::default(), Standing::Newcomer).map_err(|refused| {
            assert_eq!(refused.payload, items(weights), "they are handed back");
            refused.error
        })
    };
    assert_eq!(offer(&mut batcher, &[5; 5]).unwrap().len(), 5);
    let refused = offer(&mut batcher, &[1; 4]).unwrap_err();
    assert!(matches!(refused, Error::QueueFull { max: 8, .. }), "{refused}");
    let refused = offer(&mut batcher, &[40, 40]).unwrap_err();
    assert!(matches!(refused, Error::QueueTooHeavy { queued: 25, weight: 80, max: 100, .. }), "{refused}");
    let refused = offer(&mut batcher, &[1, 101]).unwrap_err();
    assert!(matches!(refused, Error::TooHeavy { weight: 101, max: 100 }), "{refused}");
    let too_large: [&[usize]; 2] = [&[1; 9], &[60, 60]];
    for weights in too_large {
        let refused = offer(&mut batcher, weights).unwrap_err();
        let Error::GroupTooLarge { items, weight, max_items: 8, max_weight: 100 } = refused else {
            panic!("{refused}")
        };
        assert_eq!((items, weight), (weights.len(), weights.iter().sum()));
    }
    assert_eq!((batcher.len(), batcher.weight()), (5, 25), "nothing of what was refused waits");
    let refused = batcher.stats().refused;
    assert_eq!(
        (refused.queue_full, refused.queue_too_heavy, refused.too_heavy),
        (4, 2, 2 + 9 + 2),
        "items are counted"
    );
    assert_eq!(offer(&mut batcher, &[1, 2, 3]).unwrap().len(), 3, "there is room for just these");
    assert_eq!(offer(&mut batcher, &[]).unwrap().len(), 0);
}

#[test]
fn a_group_of_several_batches_is_refused_where_its_last_item_would_be_late() {
    let now = Instant::now();
    let mut batcher = batcher(now);
    let mut cost = CostModel::default();
    (1..=20).for_each(|weight| cost.observe(weight, Duration::from_millis(10)));
    batcher.learned(0, cost);
    let mut offer = |count: usize, ms| {
        let terms = Terms::from(now + Duration::from_millis(ms));
        batcher.refusal(now, vec![1; count].into_iter().collect(), terms, Standing::Newcomer)
    };
    assert!(offer(4, 11).is_none(), "one batch");
    assert!(matches!(offer(8, 15), Some(Error::Overloaded { .. })), "two batches of 10 ms");
    assert!(offer(8, 25).is_none());
}

#[test]
fn a_look_ahead_refuses_as_an_offer_would_and_is_counted() {
    let now = Instant::now();
    let mut batcher = batcher(now);
    let look = |batcher: &mut Batcher<usize>| batcher.refusal(now, Group::one(1), Terms::default(), Standing::Newcomer);
    assert!(look(&mut batcher).is_none());
    (0..8).for_each(|_| assert!(takes(&mut batcher, now, 1)));
    assert!(matches!(look(&mut batcher), Some(Error::QueueFull { max: 8, .. })));
    batcher.close();
    assert!(matches!(look(&mut batcher), Some(Error::ShuttingDown)));
    assert_eq!((batcher.stats().refused.queue_full, batcher.stats().refused.shutting_down), (1, 1));
    assert_eq!(batcher.stats().admitted, 8);
}

#[test]
fn a_refusal_never_says_to_come_back_at_once() {
    let start = Instant::now();
    let mut batcher = batcher(start);
    for _ in 0..20 {
        batcher.offer(start, 0, 1, None).unwrap();
        assert!(matches!(batcher.poll(start), Step::Run(_)));
        batcher.completed(start, Ran { size: 1, weight: 1, run: Some(Duration::from_millis(10)) });
    }
    batcher.offer(start, 0, 1, None).unwrap();
    assert!(matches!(batcher.poll(start), Step::Run(_)));
    (0..8).for_each(|_| assert!(takes(&mut batcher, start, 1)));
    for ms in [0, 5, 10, 15, 100] {
        let now = start + Duration::from_millis(ms);
        let Some(Error::QueueFull { retry_after: Some(after), .. }) =
            batcher.refusal(now, Group::one(1), Terms::default(), Standing::Newcomer)
        else {
            panic!("it is full")
        };
        assert!(after >= Duration::from_millis(1), "{after:?}, {ms} ms after the batch began");
    }
}

/// Sends the items of each batch, then waits for permission to run it.
struct Gated {
    started: mpsc::Sender<Vec<usize>>,
    permission: mpsc::Receiver<()>,
}

impl Executor for Gated {
    type Item = usize;
    type Output = usize;

    fn run(&mut self, batch: &[usize]) -> Result<Vec<usize>, ExecutorError> {
        self.started.send(batch.to_vec()).ok();
        // An error means that the test has dropped the gate: it is open from then on.
        self.permission.recv().ok();
        Ok(batch.to_vec())
    }

    fn weight(item: &usize) -> usize {
        *item
    }
}

fn gated() -> (Arc<Queue<Gated>>, mpsc::Receiver<Vec<usize>>, mpsc::Sender<()>) {
    let (started, starts) = mpsc::channel();
    let (permit, permission) = mpsc::channel();
    (Arc::new(Queue::spawn("test", config(), [Gated { started, permission }]).unwrap()), starts, permit)
}

#[test]
fn callers_that_refuse_to_wait_do_not_overtake_one_that_waits() {
    let (queue, starts, permit) = gated();
    let _running = queue.try_submit(1, None).unwrap();
    assert_eq!(starts.recv().unwrap(), [1]);
    let _waiting = queue.try_submit(20, None).unwrap();
    let heavy = Arc::clone(&queue);
    let heavy = std::thread::spawn(move || heavy.call_blocking(100, None).map(|done| done.output));
    while queue.stats().refused.queue_too_heavy == 0 {
        std::thread::yield_now();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let light: Vec<_> = (0..4)
        .map(|_| {
            let (queue, stop) = (Arc::clone(&queue), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(ticket) = queue.try_submit(5, None) {
                        drop(ticket);
                    }
                }
            })
        })
        .collect();
    permit.send(()).unwrap();
    permit.send(()).unwrap();
    assert_eq!(starts.recv().unwrap(), [20], "what waited before");
    assert_eq!(starts.recv().unwrap(), [100], "none of the light ones came before it");
    stop.store(true, Ordering::Relaxed);
    drop(permit);
    assert_eq!(heavy.join().unwrap().unwrap(), 100);
    for caller in light {
        caller.join().unwrap();
    }
}

#[tokio::test]
async fn a_group_waits_for_room_for_all_of_it_and_its_answers_come_in_its_order() {
    let (queue, starts, permit) = gated();
    let _running = queue.try_submit(1, None).unwrap();
    assert_eq!(starts.recv().unwrap(), [1]);
    let before: Vec<_> = (0..3).map(|_| queue.try_submit(1, None).unwrap()).collect();
    assert!(matches!(queue.try_submit_many(vec![1; 6], None), Err(Error::QueueFull { .. })));
    let many = Arc::clone(&queue);
    let many = tokio::spawn(async move { many.submit_many(vec![11, 12, 13, 14, 15, 16], None).await });
    while queue.stats().refused.queue_full < 12 {
        tokio::task::yield_now().await;
    }
    assert_eq!(queue.depth().items, 3, "none of the group is in the queue");
    drop(permit);
    let tickets = many.await.unwrap().unwrap();
    let mut outputs = Vec::new();
    for ticket in tickets {
        outputs.push(ticket.await.unwrap().output);
    }
    assert_eq!(outputs, [11, 12, 13, 14, 15, 16]);
    drop(before);
}

#[tokio::test]
async fn a_caller_that_leaves_the_admission_queue_makes_room_for_those_behind_it() {
    let (queue, starts, permit) = gated();
    let _running = queue.try_submit(1, None).unwrap();
    assert_eq!(starts.recv().unwrap(), [1]);
    let _waiting = queue.try_submit(20, None).unwrap();
    let submit = |weight| {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { queue.submit(weight, None).await.map(drop) })
    };
    let heavy = submit(90);
    while queue.stats().refused.queue_too_heavy == 0 {
        tokio::task::yield_now().await;
    }
    assert!(queue.try_submit(50, None).is_err(), "it would overtake");
    let light = submit(50);
    heavy.abort();
    assert!(heavy.await.unwrap_err().is_cancelled());
    light.await.unwrap().unwrap();
    assert!(queue.try_submit(50, None).is_ok(), "the admission queue is empty again");
    drop(permit);
}

#[test]
fn groups_of_many_callers_are_answered_whole_under_load() {
    let (calls, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (queue, starts, permit) = gated();
    drop((starts, permit));
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let (queue, calls, refused) = (&queue, &calls, &refused);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for round in 0..200 {
                    let group: Vec<usize> = (1..=5).map(|item| item + (caller + round) % 3).collect();
                    let tickets = if round % 2 == 0 {
                        runtime.block_on(queue.submit_many(group.clone(), None)).unwrap()
                    } else if let Ok(tickets) = queue.try_submit_many(group.clone(), None) {
                        tickets
                    } else {
                        refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    for (item, ticket) in group.into_iter().zip(tickets) {
                        assert_eq!(runtime.block_on(ticket).unwrap().output, item);
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (calls, refused) = (calls.into_inner(), refused.into_inner());
    assert_eq!(calls + refused, 800);
    let done = queue.stats();
    assert_eq!((done.admitted, done.batched), (5 * calls as u64, 5 * calls as u64), "of those refused nothing ran");
}
