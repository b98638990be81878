//! What waits, in the order in which it is to run.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::devices::Barred;
use crate::{Layout, Priority};

/// One admitted item with what the rules need to know of it.
#[derive(Debug)]
pub struct Entry<T> {
    /// Its name, for [`Batcher::cancel`](crate::Batcher::cancel).
    pub id: EntryId,
    /// What the driver keeps with it: the item and the way to answer.
    pub payload: T,
    /// Its share of a batch's weight.
    pub weight: usize,
    /// When it was admitted.
    pub arrived: Instant,
    /// When its answer is no longer wanted.
    pub deadline: Option<Instant>,
    /// How soon it runs among others.
    pub priority: Priority,
    /// The devices that have no memory for it, even alone.
    pub barred: Barred,
}

/// Names an entry of one batcher; never used twice.
///
/// It is the entry's place too: first by bucket, then by rank, then by number. A rank never changes, for priorities age at the
/// same pace (Kleinrock, "A delay dependent queue discipline", 1964): what is ahead of whom is known on arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    bucket: u8,
    /// Nanoseconds from the beginning of the queue to the arrival, later for lower priorities.
    rank: u64,
    number: u64,
}

impl EntryId {
    /// Whether the two entries are of like length, where an executor pads.
    pub(super) fn shares_bucket(self, other: Self) -> bool {
        self.bucket == other.bucket
    }
}

impl<T> Entry<T> {
    /// The time it was given.
    pub(super) fn time(&self) -> Option<Duration> {
        Some(self.deadline? - self.arrived)
    }
}

/// Waiting entries. Each is found, added and removed in time that grows with the logarithm of their number.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    entries: BTreeMap<EntryId, Entry<T>>,
    /// Weight by level of priority.
    weights: [usize; Priority::ALL.len()],
    began: Instant,
    next_number: u64,
    layout: Layout,
    ageing: Duration,
    /// Entries that do not fit on some device.
    barred: usize,
}

impl<T> Waiting<T> {
    pub(super) fn new(began: Instant, layout: Layout, ageing: Duration) -> Self {
        Self { entries: BTreeMap::new(), weights: [0; 3], began, next_number: 0, layout, ageing, barred: 0 }
    }

    /// Names an entry that comes now.
    pub(super) fn name(&mut self, now: Instant, weight: usize, priority: Priority) -> EntryId {
        let bucket = match self.layout {
            Layout::Packed => 0,
            Layout::Padded => bucket(weight),
        };
        let steps = u32::try_from(priority.level()).expect("few levels");
        let rank = now.saturating_duration_since(self.began).saturating_add(self.ageing.saturating_mul(steps));
        self.next_number += 1;
        EntryId { bucket, rank: u64::try_from(rank.as_nanos()).unwrap_or(u64::MAX), number: self.next_number }
    }

    pub(super) fn push(&mut self, entry: Entry<T>) {
        self.weights[entry.priority.level()] += entry.weight;
        self.barred += usize::from(entry.barred.any());
        self.entries.insert(entry.id, entry);
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<Entry<T>> {
        let entry = self.entries.remove(&id)?;
        self.weights[entry.priority.level()] -= entry.weight;
        self.barred -= usize::from(entry.barred.any());
        Some(entry)
    }

    /// The entries that do not fit on some device.
    pub(super) fn barred(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.values().filter(|entry| entry.barred.any()).take(self.barred)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.values()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn weight(&self) -> usize {
        self.weights.iter().sum()
    }

    /// Weight that runs before a newcomer of this priority; that it may overtake some that are old is left out.
    pub(super) fn weight_ahead(&self, priority: Priority) -> usize {
        self.weights[..=priority.level()].iter().sum()
    }

    /// The entry whose turn it is: the one of lowest rank.
    pub(super) fn head(&self) -> Option<&Entry<T>> {
        let first_in = |bucket| self.entries.range(EntryId { bucket, rank: 0, number: 0 }..).next();
        let mut heads =
            std::iter::successors(self.entries.iter().next(), |(id, _)| first_in(id.bucket.checked_add(1)?));
        let mut head = heads.next()?;
        // With a packed layout there is one bucket, and it is over.
        if self.layout == Layout::Padded {
            head =
                heads.fold(
                    head,
                    |best, next| if (next.0.rank, next.0.number) < (best.0.rank, best.0.number) { next } else { best },
                );
        }
        Some(head.1)
    }

    /// The one behind it that fits into the same batch best: of its bucket, then of the next shorter one.
    pub(super) fn after(&self, id: EntryId) -> Option<&Entry<T>> {
        let mut same = self.entries.range((Bound::Excluded(id), Bound::Unbounded));
        if let Some((_, entry)) = same.next().filter(|(next, _)| next.bucket == id.bucket) {
            return Some(entry);
        }
        let first_here = EntryId { rank: 0, number: 0, ..id };
        let (last_of_shorter, _) = self.entries.range(..first_here).next_back()?;
        let first_of_shorter = EntryId { rank: 0, number: 0, ..*last_of_shorter };
        self.entries.range(first_of_shorter..).next().map(|(_, entry)| entry)
    }
}

/// Two buckets for each doubling of the weight, so padding adds less than half to any item: 1, 2, 3, 4–5, 6–7, 8–11, 12–15, …
fn bucket(weight: usize) -> u8 {
    let Some(doublings) = weight.checked_ilog2() else { return 0 };
    let upper_half = if doublings == 0 { 0 } else { (weight >> (doublings - 1)) & 1 };
    u8::try_from(2 * doublings as usize + upper_half).expect("a usize has no more than 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn waiting(layout: Layout, entries: &[(&'static str, u32, usize, Priority)]) -> Waiting<&'static str> {
        let began = Instant::now();
        let mut waiting = Waiting::new(began, layout, 100 * MS);
        for &(payload, at_ms, weight, priority) in entries {
            let arrived = began + at_ms * MS;
            let id = waiting.name(arrived, weight, priority);
            waiting.push(Entry { id, payload, weight, arrived, deadline: None, priority, barred: Barred::default() });
        }
        waiting
    }

    fn order(mut waiting: Waiting<&'static str>) -> Vec<&'static str> {
        let mut order = Vec::new();
        while let Some(id) = waiting.head().map(|entry| entry.id) {
            order.extend(waiting.remove(id).map(|entry| entry.payload));
        }
        order
    }

    #[test]
    fn entries_of_one_priority_run_in_order_of_arrival() {
        let normal = Priority::Normal;
        assert_eq!(
            order(waiting(Layout::Packed, &[("a", 0, 9, normal), ("b", 0, 1, normal), ("c", 5, 1, normal)])),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn a_higher_priority_overtakes_those_that_came_no_longer_before_it_than_they_age() {
        let entries = [
            ("low", 0, 1, Priority::Low),
            ("normal", 50, 1, Priority::Normal),
            ("high", 149, 1, Priority::High),
            ("late high", 201, 1, Priority::High),
        ];
        assert_eq!(order(waiting(Layout::Packed, &entries)), ["high", "normal", "low", "late high"]);
    }

    #[test]
    fn weight_ahead_is_that_of_the_same_and_higher_priorities() {
        let waiting = waiting(
            Layout::Packed,
            &[("h", 0, 1, Priority::High), ("n", 0, 20, Priority::Normal), ("l", 0, 300, Priority::Low)],
        );
        assert_eq!(Priority::ALL.map(|priority| waiting.weight_ahead(priority)), [1, 21, 321]);
        assert_eq!(waiting.weight(), 321);
    }

    #[test]
    fn behind_an_entry_come_those_of_its_length_then_shorter_ones() {
        let normal = Priority::Normal;
        let entries = [
            ("8", 0, 8, normal),
            ("100", 1, 100, normal),
            ("9", 2, 9, normal),
            ("98", 3, 98, normal),
            ("500", 4, 500, normal),
        ];
        let waiting = waiting(Layout::Padded, &entries);
        let mut at = waiting.head().unwrap();
        assert_eq!(at.payload, "8", "the first to come is the first to run");
        at = waiting.entries.values().find(|entry| entry.payload == "100").unwrap();
        let behind: Vec<_> = std::iter::successors(waiting.after(at.id), |entry| waiting.after(entry.id))
            .map(|entry| entry.payload)
            .collect();
        assert_eq!(behind, ["98", "8", "9"]);
    }

    #[test]
    fn a_bucket_holds_weights_of_which_the_largest_is_less_than_half_above_the_smallest() {
        let mut smallest = 1;
        for weight in 2..100_000_usize {
            if bucket(weight) != bucket(weight - 1) {
                assert!(bucket(weight) > bucket(weight - 1));
                smallest = weight;
            }
            assert!(2 * weight < 3 * smallest, "{weight} lies with {smallest}");
        }
        assert_eq!((bucket(0), bucket(1)), (0, 0));
        assert_eq!(bucket(usize::MAX), 127);
    }
}
