//! The share of the processors that others took while candidates were timed: figures of a busy machine say little.

use std::fs;

/// Share of the processors from which it is told.
const MAX_UNTOLD: f64 = 0.1;

/// Times of the processors and of this process, in ticks of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessorTimes {
    busy: u64,
    total: u64,
    own: u64,
}

impl ProcessorTimes {
    /// The times up to now; `None` where the system does not tell them as Linux does.
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?, &fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Reads `/proc/stat` and `/proc/self/stat` (`proc(5)`).
    fn parse(all: &str, own: &str) -> Option<Self> {
        let line = all.lines().next()?.strip_prefix("cpu ")?;
        // User, nice, system, idle, waiting for disks, interrupts (two), stolen by other guests; times of guests are in these.
        let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|ticks| ticks.parse().ok()).collect();
        let [_, _, _, idle, waiting, ..] = ticks[..] else { return None };
        let total: u64 = ticks.iter().sum();
        // The name of the command, in parentheses, can hold spaces.
        let mut fields = own.rsplit_once(')')?.1.split_whitespace().skip(11);
        let own = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        Some(Self { busy: total - idle - waiting, total, own })
    }

    /// The share of all processors that other processes and guests took since `self`.
    fn others_until(self, later: Self) -> f64 {
        let since = |of: fn(Self) -> u64| of(later).saturating_sub(of(self));
        let others = since(|it| it.busy).saturating_sub(since(|it| it.own));
        others as f64 / since(|it| it.total).max(1) as f64
    }
}

/// A warning if others took much of the processors since `before`.
pub(crate) fn told(before: Option<ProcessorTimes>) -> Option<String> {
    let share = before?.others_until(ProcessorTimes::now()?);
    (share > MAX_UNTOLD).then(|| {
        format!(
            "other processes took {:.0} % of the processors meanwhile: times are those of a busy machine, and another run will differ",
            100.0 * share
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_others_is_what_is_busy_and_not_ours() {
        let own = |user, system| format!("7 (a b) c) R 1 2 3 4 5 6 7 8 9 10 {user} {system} 0 0 20 0 1 0");
        let before = ProcessorTimes::parse("cpu  100 10 20 1000 5 1 2 3 0 0\ncpu0 1 2 3\n", &own(50, 5)).unwrap();
        assert_eq!(before, ProcessorTimes { busy: 136, total: 1141, own: 55 });
        let after = ProcessorTimes::parse("cpu  180 10 30 1090 15 1 2 13 0 0\n", &own(100, 5)).unwrap();
        // 100 of 200 ticks were busy, 50 of them ours.
        assert!((before.others_until(after) - 0.25).abs() < 1e-12);
        assert_eq!(ProcessorTimes::parse("cpu0 1 2 3", &own(1, 1)), None);
    }
}
