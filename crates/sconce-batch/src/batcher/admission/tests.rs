//! Tests of the figures that admission learns: the pace of arrivals, and the wait for a turn.

use super::*;
use crate::{BatchLayout, CostModel, Profile, Ran};

const MS: Duration = Duration::from_millis(1);

#[test]
fn the_pace_of_arrivals_is_learned_after_some_and_follows_a_change() {
    let mut pace = Pace::default();
    let mut now = Instant::now();
    let mut come = |pace: &mut Pace, count: u32, gap: Duration, weight: usize| {
        for _ in 0..count {
            now += gap;
            pace.arrived(now, weight);
        }
    };
    let second = Duration::from_secs(1);
    come(&mut pace, Pace::MIN_ARRIVALS - 1, 10 * MS, 4);
    assert_eq!(pace.weight_to_expect(second), 0, "a few say nothing");
    come(&mut pace, 1, 10 * MS, 4);
    // Nine tenths of a hundred arrivals.
    let expected = pace.weight_to_expect(second);
    assert!((350..380).contains(&expected), "{expected}");
    let half = pace.weight_to_expect(second / 2);
    assert!((175..190).contains(&half), "{half}");
    come(&mut pace, 4 * Pace::MEMORY, MS, 8);
    let expected = pace.weight_to_expect(second);
    assert!((6_300..7_300).contains(&expected), "{expected}");
}

#[test]
fn a_turn_is_expected_after_as_long_as_turns_took_less_what_was_waited_already() {
    let mut turns = Turns::default();
    let mut now = Instant::now();
    for _ in 0..100 {
        turns.wanted(now);
        now += 80 * MS;
        turns.taken(now, false);
    }
    let about = |expected: Duration, wanted: u32| assert!(expected.abs_diff(wanted * MS) < 2 * MS, "{expected:?}");
    about(turns.expected(now), 80);
    turns.wanted(now);
    about(turns.expected(now + 30 * MS), 50);
    // Turns after lingering or giving up are not learned from.
    turns.taken(now + 500 * MS, true);
    turns.wanted(now);
    turns.given_up();
    turns.taken(now + 500 * MS, false);
    about(turns.expected(now), 80);
    // Turns that vary are expected early.
    turns.wanted(now);
    turns.taken(now + 320 * MS, false);
    about(turns.mean, 110);
    about(turns.deviation, 60);
    assert_eq!(turns.expected(now), turns.mean.saturating_sub(2 * turns.deviation));
}

/// A batcher that has learned that batches of 4 take 10 ms each.
fn batcher(devices: usize) -> (Batcher<()>, Instant) {
    let now = Instant::now();
    let config = BatcherConfig { max_batch_size: 4, ..BatcherConfig::default() };
    let mut batcher = Batcher::on(now, config, BatchLayout::Packed, &vec![Profile::default(); devices]).unwrap();
    let mut cost = CostModel::default();
    (0..20).for_each(|_| cost.observe(4, 10 * MS));
    batcher.learned(0, cost);
    (batcher, now)
}

#[test]
fn several_devices_share_what_waits() {
    let wait = |devices: usize| {
        let (mut batcher, now) = batcher(devices);
        for _ in 0..80 {
            batcher.offer(now, (), 1, None).unwrap();
        }
        (0..devices).for_each(|device| assert!(matches!(batcher.poll_on(now, device), super::super::Step::Run(_))));
        batcher.expected_wait(now, Group::one(1), Priority::Normal).unwrap()
    };
    let (one, two, four) = (wait(1), wait(2), wait(4));
    assert!(one > 180 * MS && one < 250 * MS, "{one:?}");
    assert!(two > one.mul_f64(0.45) && two < one.mul_f64(0.65), "{two:?} of {one:?}");
    assert!(four > one.mul_f64(0.2) && four < one.mul_f64(0.4), "{four:?} of {one:?}");
}

#[test]
fn a_turn_is_wanted_while_something_waits_and_no_longer() {
    let (mut batcher, now) = batcher(1);
    let first = batcher.offer(now, (), 1, None).unwrap();
    assert!(batcher.turns.wanted_since.is_some());
    batcher.cancel(first).unwrap();
    assert_eq!(batcher.turns.wanted_since, None, "nothing waits");
    for _ in 0..5 {
        batcher.offer(now, (), 1, None).unwrap();
    }
    for left in [1, 0] {
        batcher.poll(now);
        assert_eq!(batcher.turns.wanted_since, None, "a batch runs");
        batcher.completed(now, Ran { size: 4 - 3 * (1 - left), weight: 4, run: Some(10 * MS) });
        assert_eq!(batcher.turns.wanted_since.is_some(), left > 0, "{left} waits");
    }
}

#[test]
fn the_pace_is_not_set_by_entries_that_have_no_time_for_two_batches() {
    let (mut batcher, now) = batcher(1);
    batcher.offer(now, (), 1, now + 15 * MS).unwrap();
    assert_eq!(batcher.typical_time, None);
    batcher.offer(now, (), 1, now + 40 * MS).unwrap();
    assert_eq!(batcher.typical_time, Some(40 * MS));
}
