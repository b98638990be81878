//! The choice among devices that differ: the queued entries go to the device that would complete them first.
//!
//! Each device (a CPU and a GPU, say) has its own a + c · weight. A device completes the queued entries after the time
//! until it is free, its running batch included, plus its own time for them. The device for which that is shortest
//! takes a batch. A slower device takes a batch as well, but only if it ends no later than the faster one would end
//! with all queued entries; else the batch waits for the faster one (the "slow server" problem: Lin and Kumar, "Optimal
//! control of a queueing system with two heterogeneous servers", IEEE Trans. Automatic Control, 1984, where the slow
//! server too is used from a threshold on).
//!
//! A device that is overdue is expected to need as long again as it is overdue already. So a batch that was left to a device
//! which hangs goes to another one within about twice the time that the other one needs for it.

use std::time::{Duration, Instant};

use crate::saturate::later;

/// A device that could take the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Expected end of its running batch; `None` if it runs none.
    pub busy_until: Option<Instant>,
    /// Time for the next batch on this device.
    pub batch: Duration,
    /// Time for all queued entries on this device, batch after batch; at least `batch`.
    pub all: Duration,
}

impl Candidate {
    /// Time until the device is free.
    fn free_in(&self, now: Instant) -> Duration {
        self.busy_until.map_or(Duration::ZERO, |until| until.max(now) - until.min(now))
    }

    /// Time until the device would have completed all queued entries.
    #[must_use]
    pub fn completes_in(&self, now: Instant) -> Duration {
        self.free_in(now).saturating_add(self.all)
    }
}

/// An idle device's choice about the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Take the batch.
    Take,
    /// Leave the batch to another device, which would complete it sooner. If that one has not taken it by this instant,
    /// ask again.
    LeaveUntil(Instant),
}

/// Chooses for the idle device `own`. `None` stands for a device that cannot take the batch, or whose cost is unknown.
#[must_use]
pub fn choose(now: Instant, own: usize, candidates: &[Option<Candidate>]) -> Choice {
    let Some(mine) = candidates.get(own).copied().flatten() else {
        // Its cost is unknown, and only running a batch can teach it.
        return Choice::Take;
    };
    let others = candidates.iter().enumerate().filter(|(device, _)| *device != own).filter_map(|(_, other)| *other);
    let sooner = others.filter(|other| other.completes_in(now) < mine.batch);
    // At this instant the other device is so overdue that this one would be sooner.
    let until =
        |other: Candidate| later(other.busy_until.unwrap_or(now).max(now), mine.batch.saturating_sub(other.all));
    let until = sooner.map(until).max();
    until.map_or(Choice::Take, Choice::LeaveUntil)
}

/// The sleeping device to wake, because it would take a batch now; `None` if no sleeping device would. The device that
/// `looked` just now is awake.
#[must_use]
pub fn whom_to_wake(now: Instant, candidates: &[Option<Candidate>], looked: Option<usize>) -> Option<usize> {
    let asleep = |candidate: &Candidate| candidate.busy_until.is_none();
    let mut sleeping: Vec<(Duration, usize)> = candidates
        .iter()
        .enumerate()
        .filter(|(device, _)| Some(*device) != looked)
        .filter_map(|(device, candidate)| Some((candidate.as_ref().filter(|it| asleep(it))?.all, device)))
        .collect();
    sleeping.sort_unstable();
    sleeping.into_iter().map(|(_, device)| device).find(|device| choose(now, *device, candidates) == Choice::Take)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A device with a cost of a + c · weight, and the time for which it is busy, all in milliseconds.
    #[derive(Clone, Copy)]
    struct Device {
        fixed: u32,
        per_weight: u32,
        busy: Option<u32>,
    }

    const CPU: Device = Device { fixed: 1, per_weight: 2, busy: None };
    const GPU: Device = Device { fixed: 10, per_weight: 0, busy: None };

    impl Device {
        fn busy(self, ms: u32) -> Self {
            Self { busy: Some(ms), ..self }
        }

        /// The device as a candidate for `waiting` queued items, in batches of at most 16.
        fn candidate(self, now: Instant, waiting: u32) -> Candidate {
            let time = |weight| (self.fixed + self.per_weight * weight) * MS;
            let rest = Some(waiting % 16).filter(|rest| *rest > 0);
            let all = waiting / 16 * time(16) + rest.map_or(Duration::ZERO, time);
            Candidate { busy_until: self.busy.map(|busy| now + busy * MS), batch: time(waiting.min(16)), all }
        }
    }

    fn candidates(now: Instant, waiting: u32, devices: &[Device]) -> Vec<Option<Candidate>> {
        devices.iter().map(|device| Some(device.candidate(now, waiting))).collect()
    }

    #[test]
    fn a_batch_goes_where_it_would_be_complete_first() {
        let now = Instant::now();
        // Number of queued items, time for which the GPU is busy, and whether the idle CPU takes a batch.
        let table = [
            (1, None, true, "small batches run on the CPU"),
            (4, None, true, "9 ms against 10"),
            (5, None, false, "11 ms against 10: large ones run on the GPU"),
            (16, None, false, "33 ms against 10"),
            (5, Some(1), true, "waiting for the GPU would take as long"),
            (8, Some(5), false, "17 ms, but the GPU ends in 15"),
            (8, Some(8), true, "17 ms, and the GPU would end in 18"),
            (16, Some(22), false, "33 ms, but the GPU ends in 32"),
            (16, Some(23), true, "33 ms, and no sooner on the GPU"),
            (48, None, false, "three batches on the GPU end before one on the CPU"),
            (64, None, true, "the CPU takes one of four batches"),
        ];
        for (waiting, busy, takes, why) in table {
            let gpu = busy.map_or(GPU, |busy| GPU.busy(busy));
            let choice = choose(now, 0, &candidates(now, waiting, &[CPU, gpu]));
            assert_eq!(choice == Choice::Take, takes, "{waiting} wait, GPU busy for {busy:?} ms: {why}: {choice:?}");
        }
    }

    #[test]
    fn a_device_that_hangs_is_left_behind() {
        let now = Instant::now();
        let waiting = candidates(now, 8, &[CPU, GPU.busy(5)]);
        let Choice::LeaveUntil(until) = choose(now, 0, &waiting) else { panic!("the GPU would be sooner") };
        assert_eq!(until - now, 12 * MS, "5 ms until it should end, then the 7 ms by which it is faster");
        let just_before = until.checked_sub(MS).unwrap();
        assert!(matches!(choose(just_before, 0, &waiting), Choice::LeaveUntil(_)));
        assert_eq!(choose(until, 0, &waiting), Choice::Take);
    }

    #[test]
    fn devices_that_are_free_do_not_leave_a_batch_to_each_other_and_one_that_would_take_it_is_woken() {
        let now = Instant::now();
        for waiting in 1..200 {
            for busy in [None, Some(3), Some(30), Some(300)] {
                let gpu = busy.map_or(GPU, |busy| GPU.busy(busy));
                let devices = [CPU, gpu, Device { fixed: 4, per_weight: 1, busy: None }];
                let candidates = candidates(now, waiting, &devices);
                let free = (0..3).filter(|device| devices[*device].busy.is_none());
                let takers: Vec<usize> = free.filter(|own| choose(now, *own, &candidates) == Choice::Take).collect();
                if busy.is_none() {
                    assert!(!takers.is_empty(), "{waiting} wait, and all leave it to each other");
                }
                match whom_to_wake(now, &candidates, None) {
                    Some(woken) => assert!(takers.contains(&woken), "{waiting}, {busy:?}: {woken} would not take it"),
                    None => assert_eq!(takers, [], "{waiting}, {busy:?}"),
                }
            }
        }
    }

    #[test]
    fn devices_that_cannot_run_it_are_not_waited_for_and_the_unknown_are_tried() {
        let now = Instant::now();
        let cpu = Some(CPU.candidate(now, 16));
        assert_eq!(choose(now, 0, &[cpu, None]), Choice::Take);
        assert_eq!(choose(now, 1, &[cpu, None]), Choice::Take, "nothing is known of it");
        assert_eq!(whom_to_wake(now, &[None, None], None), None);
        assert_eq!(choose(now, 0, &[cpu]), Choice::Take);
    }
}
