use std::time::Duration;

use super::*;
use crate::{CostLine, Priority};

const MS: Duration = Duration::from_millis(1);

fn small() -> BatcherConfig {
    BatcherConfig {
        max_batch_size: 4,
        max_batch_weight: 10,
        max_queue_size: 6,
        max_queue_weight: 20,
        max_queue_delay: Duration::ZERO,
        ..BatcherConfig::default()
    }
}

fn batcher(config: BatcherConfig) -> Batcher<&'static str> {
    Batcher::new(Instant::now(), config, BatchLayout::Packed).unwrap()
}

fn ran<'a>(step: &'a Step<&'static str>) -> Vec<&'a str> {
    match step {
        Step::Run(batch) => batch.iter().map(|entry| entry.payload).collect(),
        other => panic!("expected a batch, got {other:?}"),
    }
}

#[test]
fn an_idle_device_takes_what_waits_at_once_in_order_of_arrival() {
    let (mut batcher, now) = (batcher(small()), Instant::now());
    assert!(matches!(batcher.poll(now), Step::Wait));
    batcher.offer(now, "a", 1, None).unwrap();
    batcher.offer(now, "b", 1, None).unwrap();
    assert_eq!(ran(&batcher.poll(now)), ["a", "b"]);
    assert!(batcher.is_empty());
    assert_eq!(batcher.weight(), 0);
}

#[test]
fn a_batch_is_bounded_by_count() {
    let (mut batcher, now) = (batcher(small()), Instant::now());
    for name in ["a", "b", "c", "d", "e"] {
        batcher.offer(now, name, 1, None).unwrap();
    }
    assert_eq!(ran(&batcher.poll(now)), ["a", "b", "c", "d"]);
    assert_eq!(ran(&batcher.poll(now)), ["e"]);
}

#[test]
fn a_batch_is_bounded_by_weight_and_no_entry_overtakes() {
    let (mut batcher, now) = (batcher(small()), Instant::now());
    for (name, weight) in [("a", 6), ("b", 5), ("c", 1)] {
        batcher.offer(now, name, weight, None).unwrap();
    }
    assert_eq!(ran(&batcher.poll(now)), ["a"]);
    assert_eq!(ran(&batcher.poll(now)), ["b", "c"]);
}

#[test]
fn each_bound_refuses_with_its_figures_and_hands_the_item_back() {
    let (mut batcher, now) = (batcher(small()), Instant::now());
    let refused = batcher.offer(now, "heavy", 11, None).unwrap_err();
    assert!(matches!(refused.error, Error::TooHeavy { weight: 11, max: 10 }));
    assert_eq!(refused.payload, "heavy");

    batcher.offer(now, "a", 10, None).unwrap();
    batcher.offer(now, "b", 9, None).unwrap();
    let refused = batcher.offer(now, "c", 2, None).unwrap_err();
    assert!(matches!(refused.error, Error::QueueTooHeavy { queued: 19, weight: 2, max: 20, retry_after: None }));

    for name in ["d", "e", "f", "g"] {
        batcher.offer(now, name, 0, None).unwrap();
    }
    assert!(matches!(
        batcher.offer(now, "h", 0, None).unwrap_err().error,
        Error::QueueFull { max: 6, retry_after: None }
    ));
    assert_eq!((batcher.len(), batcher.weight()), (6, 19));
}

#[test]
fn a_cancelled_entry_never_reaches_a_batch_and_frees_its_room() {
    let (mut batcher, now) = (batcher(small()), Instant::now());
    let a = batcher.offer(now, "a", 7, None).unwrap();
    let b = batcher.offer(now, "b", 3, None).unwrap();
    assert_eq!(batcher.cancel(a), Some("a"));
    assert_eq!(batcher.cancel(a), None);
    assert_eq!(batcher.weight(), 3);
    assert_eq!(ran(&batcher.poll(now)), ["b"]);
    assert_eq!(batcher.cancel(b), None);
}

#[test]
fn an_expired_entry_is_handed_out_to_be_answered_and_never_run() {
    let (mut batcher, now) = (batcher(small()), Instant::now());
    batcher.offer(now, "late", 5, Some(now + MS)).unwrap();
    batcher.offer(now, "patient", 5, None).unwrap();
    batcher.offer(now, "late too", 5, Some(now + 2 * MS)).unwrap();
    match batcher.poll(now + 2 * MS) {
        Step::Expire(entries) => {
            assert_eq!(entries.iter().map(|entry| entry.payload).collect::<Vec<_>>(), ["late", "late too"]);
        }
        other => panic!("expected expired entries, got {other:?}"),
    }
    assert_eq!(ran(&batcher.poll(now + 2 * MS)), ["patient"]);
    assert_eq!(batcher.weight(), 0);
}

#[test]
fn a_deadline_in_the_past_is_refused() {
    let (mut batcher, now) = (batcher(small()), Instant::now());
    let refused = batcher.offer(now, "late", 1, Some(now)).unwrap_err();
    assert!(matches!(refused.error, Error::DeadlineExceeded { .. }));
}

#[test]
fn with_a_delay_a_batch_waits_for_company_until_it_is_full_or_the_delay_is_over() {
    let (mut batcher, now) = (batcher(BatcherConfig { max_queue_delay: 10 * MS, ..small() }), Instant::now());
    batcher.offer(now, "a", 1, None).unwrap();
    match batcher.poll(now) {
        Step::WaitUntil(at) => assert_eq!(at, now + 10 * MS),
        other => panic!("expected a wait, got {other:?}"),
    }
    assert_eq!(ran(&batcher.poll(now + 10 * MS)), ["a"]);

    for name in ["b", "c", "d", "e"] {
        batcher.offer(now, name, 1, None).unwrap();
    }
    assert_eq!(ran(&batcher.poll(now)), ["b", "c", "d", "e"]);

    batcher.offer(now, "f", 10, None).unwrap();
    assert_eq!(ran(&batcher.poll(now)), ["f"], "a batch of full weight waits for nobody");
}

#[test]
fn lingering_uses_up_at_most_half_of_the_time_to_a_deadline() {
    let (mut batcher, now) = (batcher(BatcherConfig { max_queue_delay: 100 * MS, ..small() }), Instant::now());
    batcher.offer(now, "patient", 1, None).unwrap();
    batcher.offer(now, "hurried", 1, Some(now + 8 * MS)).unwrap();
    match batcher.poll(now) {
        Step::WaitUntil(at) => assert_eq!(at, now + 4 * MS),
        other => panic!("expected a wait, got {other:?}"),
    }
}

#[test]
fn a_closed_batcher_refuses_new_work_and_runs_what_waits_without_lingering() {
    let (mut batcher, now) = (batcher(BatcherConfig { max_queue_delay: 10 * MS, ..small() }), Instant::now());
    batcher.offer(now, "a", 1, None).unwrap();
    batcher.close();
    assert!(matches!(batcher.offer(now, "b", 1, None).unwrap_err().error, Error::ShuttingDown));
    assert_eq!(ran(&batcher.poll(now)), ["a"]);
    assert!(matches!(batcher.poll(now), Step::Finish));
}

/// A batcher that has learned that a batch costs 5 ms and 1 ms for each unit of weight.
fn experienced(now: Instant) -> Batcher<&'static str> {
    let config = BatcherConfig { max_batch_size: 100, max_batch_weight: 100, max_queue_size: 100, ..small() };
    let mut batcher = batcher(BatcherConfig { max_queue_weight: 100, ..config });
    for (weight, run_ms) in (1..=20).zip(6..) {
        batcher.completed(now, Ran { size: 1, weight, run: Some(run_ms * MS) });
    }
    batcher
}

fn offer_each(batcher: &mut Batcher<&'static str>, now: Instant, entries: &[(&'static str, usize, u32)]) {
    for &(name, weight, deadline_ms) in entries {
        batcher.offer(now, name, weight, Some(now + deadline_ms * MS)).unwrap();
    }
}

fn expired<'a>(step: &'a Step<&'static str>) -> Vec<&'a str> {
    match step {
        Step::Expire(entries) => entries.iter().map(|entry| entry.payload).collect(),
        other => panic!("expected dropped entries, got {other:?}"),
    }
}

#[test]
fn a_batch_takes_no_more_than_half_of_the_time_that_items_are_given() {
    let now = Instant::now();
    let mut batcher = experienced(now);
    offer_each(&mut batcher, now, &[("a", 5, 40), ("b", 9, 40), ("c", 5, 40), ("d", 5, 40)]);
    assert_eq!(ran(&batcher.poll(now)), ["a", "b"], "5 + 14 ms; with c it would be 24");
    assert_eq!(ran(&batcher.poll(now)), ["c", "d"]);
}

#[test]
fn the_head_is_dropped_rather_than_the_batch_shrunk_when_others_wait() {
    let now = Instant::now();
    let mut batcher = experienced(now);
    offer_each(&mut batcher, now, &[("late", 5, 40)]);
    let later = now + 25 * MS;
    offer_each(&mut batcher, later, &[("a", 5, 40), ("b", 4, 40)]);
    // 15 ms are left for "late": enough for it and "a", not for all three.
    assert_eq!(expired(&batcher.poll(later)), ["late"]);
    assert_eq!(ran(&batcher.poll(later)), ["a", "b"]);
    assert_eq!(batcher.weight(), 0);
}

#[test]
fn an_item_that_waits_alone_runs_however_late_it_will_be() {
    let now = Instant::now();
    let mut batcher = experienced(now);
    offer_each(&mut batcher, now, &[("late", 5, 3)]);
    assert_eq!(ran(&batcher.poll(now)), ["late"]);
}

#[test]
fn an_item_in_a_hurry_is_left_out_of_a_batch_that_would_make_it_late() {
    let now = Instant::now();
    let mut batcher = experienced(now);
    offer_each(&mut batcher, now, &[("a", 5, 60), ("b", 5, 60), ("hurried", 1, 13)]);
    assert_eq!(ran(&batcher.poll(now)), ["a", "b"]);
}

#[test]
fn items_without_a_deadline_are_bounded_by_count_and_weight_alone() {
    let now = Instant::now();
    let mut batcher = experienced(now);
    for name in ["a", "b", "c"] {
        batcher.offer(now, name, 30, None).unwrap();
    }
    assert_eq!(ran(&batcher.poll(now)), ["a", "b", "c"]);
}

#[test]
fn callers_that_return_at_once_are_waited_for_so_that_they_share_a_batch() {
    let mut now = Instant::now();
    let mut batcher = experienced(now);
    for _ in 0..40 {
        batcher.completed(now, Ran { size: 2, weight: 2, run: Some(7 * MS) });
        for name in ["a", "b"] {
            batcher.offer(now + MS / 10, name, 1, None).unwrap();
        }
        now += MS / 10;
        assert!(matches!(batcher.poll(now), Step::Run(_)));
        now += 7 * MS;
    }
    batcher.completed(now, Ran { size: 2, weight: 2, run: Some(7 * MS) });
    batcher.offer(now, "a", 1, None).unwrap();
    assert!(batcher.is_due(now), "no device lingers yet");
    assert!(matches!(batcher.poll(now), Step::WaitUntil(at) if at <= now + 2 * MS));
    batcher.offer(now, "b", 1, None).unwrap();
    assert!(batcher.is_due(now));
    assert_eq!(ran(&batcher.poll(now)), ["a", "b"], "both are back");

    batcher.completed(now, Ran { size: 2, weight: 2, run: Some(7 * MS) });
    batcher.offer(now, "a", 1, None).unwrap();
    assert_eq!(ran(&batcher.poll(now + 2 * MS)), ["a"], "the other took too long");
}

#[test]
fn deadlines_and_costs_beyond_all_measure_do_no_harm() {
    let now = Instant::now();
    let mut batcher = experienced(now);
    let far = now + Duration::from_secs(u64::MAX / 8);
    for _ in 0..100 {
        batcher.offer(now, "a", 1, Some(far)).unwrap();
        assert_eq!(ran(&batcher.poll(now)), ["a"]);
    }
    for _ in 0..100 {
        batcher.completed(now, Ran { size: 1, weight: 1, run: Some(Duration::MAX) });
    }
    offer_each(&mut batcher, now, &[("a", 1, 10), ("b", 1, 10)]);
    assert_eq!(expired(&batcher.poll(now)), ["a"]);
    assert_eq!(ran(&batcher.poll(now)), ["b"]);
}

#[test]
fn an_arrival_wakes_a_lingering_device_only_if_that_changes_something() {
    let now = Instant::now();
    let delayed = || batcher(BatcherConfig { max_queue_delay: 10 * MS, ..small() });
    let lingering = |mut batcher: Batcher<&'static str>| {
        batcher.offer(now, "first", 1, None).unwrap();
        assert!(matches!(batcher.poll(now), Step::WaitUntil(_)));
        assert!(!batcher.is_due(now));
        batcher
    };

    let mut batcher = lingering(delayed());
    batcher.offer(now, "light", 1, None).unwrap();
    assert!(!batcher.is_due(now), "there is room for more");
    batcher.offer(now, "heavy", 8, None).unwrap();
    assert!(batcher.is_due(now), "the batch has its full weight");

    let mut batcher = lingering(delayed());
    batcher.offer(now, "patient", 1, Some(now + 50 * MS)).unwrap();
    assert!(!batcher.is_due(now));
    batcher.offer(now, "hurried", 1, Some(now + 6 * MS)).unwrap();
    assert!(batcher.is_due(now), "it waits no longer than half of its time");

    let mut batcher = lingering(delayed());
    for _ in 0..3 {
        batcher.offer(now, "more", 1, None).unwrap();
    }
    assert!(batcher.is_due(now), "the batch is full");
    assert!(matches!(batcher.poll(now), Step::Run(_)));
    assert!(batcher.is_due(now), "nobody lingers any more");
}

#[test]
fn a_device_whose_company_left_is_woken_again_by_the_next_arrival() {
    let (mut batcher, now) = (batcher(BatcherConfig { max_queue_delay: 10 * MS, ..small() }), Instant::now());
    let only = batcher.offer(now, "only", 1, None).unwrap();
    assert!(matches!(batcher.poll(now), Step::WaitUntil(_)));
    batcher.cancel(only);
    assert!(matches!(batcher.poll(now + 10 * MS), Step::Wait));
    batcher.offer(now + 11 * MS, "next", 1, None).unwrap();
    assert!(batcher.is_due(now + 11 * MS));
}

#[test]
fn an_item_that_would_be_late_behind_all_that_waits_is_refused_at_once() {
    let now = Instant::now();
    let mut batcher = experienced(now);
    offer_each(&mut batcher, now, &[("running", 15, 100)]);
    assert_eq!(ran(&batcher.poll(now)), ["running"]);
    offer_each(&mut batcher, now, &[("first behind", 20, 21)]);
    assert_eq!(batcher.stats().refused.overloaded, 0, "while nothing waits nothing is refused");

    // 20 ms until the device is free, and 5 + 20 + 10 for a batch of both.
    let refused = batcher.offer(now, "late", 10, Some(now + 54 * MS)).unwrap_err();
    let Error::Overloaded { wait, .. } = refused.error else { panic!("{:?}", refused.error) };
    assert!(wait > 54 * MS && wait < 56 * MS, "{wait:?}");
    assert_eq!(batcher.stats().refused.overloaded, 1);
    batcher.offer(now, "in time", 10, Some(now + 56 * MS)).unwrap();
    batcher.offer(now, "patient", 10, None).unwrap();
}

#[test]
fn callers_that_give_hardly_any_time_do_not_shrink_the_batches_of_others() {
    let now = Instant::now();
    let mut batcher = experienced(now);
    for _ in 0..50 {
        offer_each(&mut batcher, now, &[("hopeless", 1, 2)]);
        batcher.poll(now);
    }
    offer_each(&mut batcher, now, &[("a", 5, 40), ("b", 9, 40)]);
    assert_eq!(ran(&batcher.poll(now)), ["a", "b"]);
}

#[test]
fn bounds_as_large_as_numbers_get_do_no_harm() {
    let now = Instant::now();
    let (max_batch_size, max_batch_weight) = (usize::MAX, BatcherConfig::MAX_WEIGHT);
    let config = BatcherConfig { max_batch_size, max_batch_weight, max_queue_weight: max_batch_weight, ..small() };
    let mut batcher = batcher(config);
    for (weight, run_ms) in (1..=20).zip(6..) {
        batcher.completed(now, Ran { size: 1, weight, run: Some(run_ms * MS) });
    }
    batcher.offer(now, "running", 1, None).unwrap();
    assert_eq!(ran(&batcher.poll(now)), ["running"]);
    batcher.offer(now, "heavy", max_batch_weight / 2, None).unwrap();
    let refused = batcher.offer(now, "behind it", max_batch_weight / 2, Some(now + 10 * MS)).unwrap_err();
    assert!(matches!(refused.error, Error::Overloaded { .. }), "{:?}", refused.error);
}

#[test]
fn refusals_say_when_there_will_be_room_once_that_is_learned() {
    let now = Instant::now();
    let mut batcher = batcher(BatcherConfig { max_queue_size: 1, ..small() });
    batcher.offer(now, "waits", 1, None).unwrap();
    let refused = batcher.offer(now, "too early to tell", 1, None).unwrap_err();
    assert_eq!(refused.error.retry_after(), None);

    let mut batcher = experienced(now);
    offer_each(&mut batcher, now, &[("running", 15, 100)]);
    assert_eq!(ran(&batcher.poll(now)), ["running"]);
    batcher.offer(now, "heavy", 95, None).unwrap();
    let refused = batcher.offer(now + 8 * MS, "too heavy by now", 6, None).unwrap_err();
    assert!(matches!(refused.error, Error::QueueTooHeavy { queued: 95, .. }));
    let retry_after = refused.error.retry_after().unwrap();
    assert!(retry_after.abs_diff(12 * MS) < MS / 10, "the device is free 20 ms after it began: {retry_after:?}");
    assert_eq!(Error::ShuttingDown.retry_after(), None);
}

#[test]
fn an_item_of_high_priority_is_let_in_where_those_of_lower_ones_would_be_late() {
    let now = Instant::now();
    let mut batcher = experienced(now);
    offer_each(&mut batcher, now, &[("running", 15, 1000)]);
    assert_eq!(ran(&batcher.poll(now)), ["running"]);
    batcher.offer(now, "waits", 80, None).unwrap();
    // 20 ms until the device is free, and 5 + 15 for a batch of its own, or 5 + 95 with the queued item.
    let mut offer = |priority| {
        let terms = Terms { deadline: Some(now + 50 * MS), priority };
        batcher.offer(now, "new", 15, terms).map(|_| ()).map_err(|refused| refused.error)
    };
    assert!(matches!(offer(Priority::Low), Err(Error::Overloaded { .. })));
    assert!(matches!(offer(Priority::Normal), Err(Error::Overloaded { .. })));
    offer(Priority::High).unwrap();
    assert_eq!(ran(&batcher.poll(now + 20 * MS))[0], "new");
}

/// A batcher for an executor that pads; if `fixed_ms` is given, it has learned that a batch costs that and 1 ms for
/// each unit.
fn padded(now: Instant, fixed_ms: Option<u32>) -> Batcher<&'static str> {
    let config = BatcherConfig { max_batch_size: 8, max_batch_weight: 1000, max_queue_weight: 1000, ..small() };
    let mut batcher = Batcher::new(now, config, BatchLayout::Padded).unwrap();
    for weight in 1..=fixed_ms.map_or(0, |_| 20) {
        let run = (fixed_ms.unwrap_or(0) + weight) * MS;
        batcher.completed(now, Ran { size: 1, weight: weight as usize, run: Some(run) });
    }
    batcher
}

#[test]
fn where_an_executor_pads_a_batch_is_made_of_items_of_like_length() {
    let now = Instant::now();
    let mut batcher = padded(now, None);
    for (name, weight) in [("100", 100), ("8", 8), ("97", 97), ("9", 9)] {
        batcher.offer(now, name, weight, None).unwrap();
    }
    assert_eq!(ran(&batcher.poll(now)), ["100", "97"], "those of the length of the first to come");
    assert_eq!(ran(&batcher.poll(now)), ["8", "9"]);
}

#[test]
fn shorter_items_join_a_padded_batch_where_that_is_cheaper_than_a_batch_of_their_own() {
    let now = Instant::now();
    let offer = |batcher: &mut Batcher<&'static str>| {
        for (name, weight) in [("20", 20), ("12", 12), ("2", 2), ("11", 11)] {
            batcher.offer(now, name, weight, None).unwrap();
        }
    };
    let mut cheap_batches = padded(now, Some(5));
    offer(&mut cheap_batches);
    assert_eq!(ran(&cheap_batches.poll(now)), ["20"], "padding 12 to 20 costs 8 ms, a batch of its own 5");
    assert_eq!(ran(&cheap_batches.poll(now)), ["12", "11"]);
    let mut dear_batches = padded(now, Some(18));
    offer(&mut dear_batches);
    assert_eq!(ran(&dear_batches.poll(now)), ["20", "12", "11"], "8 + 9 ms of padding, but not 18 more");
    assert_eq!(ran(&dear_batches.poll(now)), ["2"]);
}

#[test]
fn the_weight_of_a_padded_batch_counts_its_padding() {
    let now = Instant::now();
    let config = BatcherConfig { max_batch_size: 8, max_batch_weight: 33, max_queue_weight: 100, ..small() };
    let mut batcher = Batcher::new(now, config, BatchLayout::Padded).unwrap();
    for (name, weight) in [("9", 9), ("10", 10), ("11", 11), ("8", 8)] {
        batcher.offer(now, name, weight, None).unwrap();
    }
    assert_eq!(ran(&batcher.poll(now)), ["9", "10", "11"], "three times 11");
    assert_eq!(ran(&batcher.poll(now)), ["8"]);
}

#[test]
fn how_long_turns_are_waited_for_is_learned_and_counts_at_admission() {
    let start = Instant::now();
    let mut batcher = experienced(start);
    // Other queues have the device for 50 ms each time that work comes.
    let mut now = start;
    for _ in 0..100 {
        batcher.offer(now, "waits for its turn", 5, None).unwrap();
        now += 50 * MS;
        assert_eq!(ran(&batcher.poll(now)).len(), 1);
        now += 10 * MS;
        batcher.completed(now, Ran { size: 1, weight: 5, run: Some(10 * MS) });
    }
    batcher.offer(now, "first", 5, None).unwrap();
    let refused = batcher.offer(now, "second", 5, Some(now + 40 * MS)).unwrap_err();
    let Error::Overloaded { wait, .. } = refused.error else { panic!("{:?}", refused.error) };
    assert!(wait > 55 * MS && wait < 75 * MS, "50 until the turn, and 15 for both: {wait:?}");
    now += 40 * MS;
    batcher.offer(now, "later, nearer to the turn", 5, Some(now + 40 * MS)).unwrap();
}

#[test]
fn what_waits_is_seen_at_a_glance() {
    let now = Instant::now();
    let mut batcher = experienced(now);
    assert_eq!(batcher.want(), None);
    batcher.offer(now, "first", 5, None).unwrap();
    batcher.offer(now + MS, "second", 5, None).unwrap();
    let Want { cost, since } = batcher.want().unwrap();
    assert_eq!(since, now);
    assert!(cost.abs_diff(15 * MS) < MS / 10, "{cost:?}");
}

#[test]
fn the_largest_bounds_and_costs_are_borne() {
    let now = Instant::now();
    let max = BatcherConfig::MAX_WEIGHT;
    let config = BatcherConfig {
        max_batch_size: usize::MAX,
        max_batch_weight: max,
        max_queue_size: usize::MAX,
        max_queue_weight: max,
        max_queue_delay: BatcherConfig::MAX_QUEUE_DELAY,
        priority_ageing: BatcherConfig::MAX_PRIORITY_AGEING,
    };
    for layout in [BatchLayout::Packed, BatchLayout::Padded] {
        for run in [Duration::MAX, Duration::from_secs(1 << 40), Duration::ZERO] {
            let estimate = Some(CostLine { fixed: run.as_secs_f64(), per_weight: f64::MAX });
            let profile = Profile { estimate, role: Role::Serves };
            let mut batcher = Batcher::on(now, config.clone(), layout, &[profile, profile]).unwrap();
            for weight in 1..20 {
                batcher.completed_on(now, 0, Ran { size: 1, weight, run: Some(run) });
            }
            for weight in [max / 2, max / 2, 1] {
                for deadline in [None, now.checked_add(Duration::from_secs(1 << 40))] {
                    _ = batcher.offer(now, "heavy", weight, Terms { deadline, priority: Priority::Low });
                }
                batcher.observe_load([Some(now), None]);
                _ = batcher.whom_to_wake(now, None);
                _ = (batcher.want_on(now, 0), batcher.is_due(now), batcher.retry_after(now));
                if let Step::Run(batch) = batcher.poll_on(now + BatcherConfig::MAX_QUEUE_DELAY, 0) {
                    batcher.give_back(batch);
                }
            }
            batcher.report_fault(now, 0, DeviceFault::Lost { retry_after: Some(Duration::MAX) });
            assert_eq!(batcher.device_state(now, 0), DeviceState::Lost);
        }
    }
}

#[test]
fn the_oldest_entry_gives_the_age_of_the_queue_whatever_its_priority() {
    let (mut batcher, now) = (batcher(small()), Instant::now());
    assert_eq!(batcher.depth(now).oldest_age, None);
    batcher.offer(now, "low", 2, Terms { deadline: None, priority: Priority::Low }).unwrap();
    batcher.offer(now + 5 * MS, "high", 3, Terms { deadline: None, priority: Priority::High }).unwrap();
    batcher.join_admission_queue(Group { items: 7, weight: 70, heaviest: 10 });
    let Depth { items, weight, oldest_age, waiting_for_room } = batcher.depth(now + 8 * MS);
    assert_eq!((items, weight, oldest_age, waiting_for_room), (2, 5, Some(8 * MS), 7));
}

#[test]
fn a_device_is_busy_while_it_runs_a_batch_whether_or_not_the_batch_fails() {
    let (mut batcher, now) = (batcher(small()), Instant::now());
    for (begin, run, busy) in [(0, Some(4 * MS), 4), (10, None, 7)] {
        let (begin, end) = (now + begin * MS, now + begin * MS + if run.is_some() { 4 * MS } else { 3 * MS });
        batcher.offer(begin, "a", 1, None).unwrap();
        assert_eq!(ran(&batcher.poll(begin)), ["a"]);
        assert_eq!(batcher.busy_on(begin + MS, 0), batcher.busy_on(begin, 0) + MS, "the running batch counts");
        batcher.completed(end, Ran { size: 1, weight: 1, run });
        assert_eq!(batcher.busy_on(end + 9 * MS, 0), busy * MS);
    }
}
