//! The queued entries, in the order in which they are to run.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::excluded_devices::ExcludedDevices;
use crate::{BatchLayout, Priority};

/// An admitted item, with the figures that the rules need.
#[derive(Debug)]
pub struct Entry<T> {
    /// Identifier, for [`Batcher::cancel`](crate::Batcher::cancel).
    pub id: EntryId,
    /// The driver's data: the item and the way to answer.
    pub payload: T,
    /// Weight of the item.
    pub weight: usize,
    /// Time of admission.
    pub arrived: Instant,
    /// Time after which the answer is no longer wanted.
    pub deadline: Option<Instant>,
    /// Priority among the entries of the queue.
    pub priority: Priority,
    /// Devices that must not run it, because it does not fit their memory even alone or they were lost while they ran it.
    pub excluded: ExcludedDevices,
}

/// Identifier of an entry, unique within its batcher.
///
/// Identifiers sort in the order of the entries: by bucket, then by rank, then by number. A rank never changes, because
/// all priorities age at the same pace (Kleinrock, "A delay dependent queue discipline", 1964): the order of two
/// entries is known on arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    bucket: u8,
    /// Nanoseconds from the beginning of the queue to the arrival, plus `priority_ageing` for each step of lower priority.
    rank: u64,
    number: u64,
}

impl EntryId {
    /// Returns true if the two entries are of like length, or if the executor does not pad.
    pub(super) fn shares_bucket(self, other: Self) -> bool {
        self.bucket == other.bucket
    }
}

impl<T> Entry<T> {
    /// Time from arrival to deadline.
    pub(super) fn time(&self) -> Option<Duration> {
        Some(self.deadline? - self.arrived)
    }
}

/// The queued entries. An entry is found, added and removed in time logarithmic in their number.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    entries: BTreeMap<EntryId, Entry<T>>,
    /// Weight of the entries of each priority, by its level.
    weights: [usize; Priority::ALL.len()],
    began: Instant,
    next_number: u64,
    layout: BatchLayout,
    ageing: Duration,
    /// Number of restricted entries: those that exclude some device.
    restricted: usize,
}

impl<T> Waiting<T> {
    pub(super) fn new(began: Instant, layout: BatchLayout, ageing: Duration) -> Self {
        Self { entries: BTreeMap::new(), weights: [0; 3], began, next_number: 0, layout, ageing, restricted: 0 }
    }

    /// Makes the identifier of an entry that arrives now.
    pub(super) fn name(&mut self, now: Instant, weight: usize, priority: Priority) -> EntryId {
        let bucket = match self.layout {
            BatchLayout::Packed => 0,
            BatchLayout::Padded => bucket(weight),
        };
        let steps = u32::try_from(priority.level()).expect("few levels");
        let rank = now.saturating_duration_since(self.began).saturating_add(self.ageing.saturating_mul(steps));
        self.next_number += 1;
        EntryId { bucket, rank: u64::try_from(rank.as_nanos()).unwrap_or(u64::MAX), number: self.next_number }
    }

    pub(super) fn push(&mut self, entry: Entry<T>) {
        self.weights[entry.priority.level()] += entry.weight;
        self.restricted += usize::from(entry.excluded.any());
        self.entries.insert(entry.id, entry);
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<Entry<T>> {
        let entry = self.entries.remove(&id)?;
        self.weights[entry.priority.level()] -= entry.weight;
        self.restricted -= usize::from(entry.excluded.any());
        Some(entry)
    }

    /// The restricted entries: those that exclude some device.
    pub(super) fn restricted(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.values().filter(|entry| entry.excluded.any()).take(self.restricted)
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

    /// Weight that runs before a new entry of this priority: that of the entries of the same and higher priorities.
    /// Entries of lower priority that are old enough run before it too, but do not count.
    pub(super) fn weight_ahead(&self, priority: Priority) -> usize {
        self.weights[..=priority.level()].iter().sum()
    }

    /// The entry that is next to run: the one of lowest rank.
    pub(super) fn head(&self) -> Option<&Entry<T>> {
        let first_in = |bucket| self.entries.range(EntryId { bucket, rank: 0, number: 0 }..).next();
        let mut heads =
            std::iter::successors(self.entries.iter().next(), |(id, _)| first_in(id.bucket.checked_add(1)?));
        let mut head = heads.next()?;
        // A packed layout has one bucket only, and its head is found already.
        if self.layout == BatchLayout::Padded {
            head =
                heads.fold(
                    head,
                    |best, next| if (next.0.rank, next.0.number) < (best.0.rank, best.0.number) { next } else { best },
                );
        }
        Some(head.1)
    }

    /// The entry after `id` that fits best into the same batch: the next of its bucket, else the first of the next
    /// shorter one.
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

/// The bucket of a weight. There are two for each doubling, so padding adds less than half to any item: 1, 2, 3, 4–5,
/// 6–7, 8–11, 12–15, …
fn bucket(weight: usize) -> u8 {
    let Some(doublings) = weight.checked_ilog2() else { return 0 };
    let upper_half = if doublings == 0 { 0 } else { (weight >> (doublings - 1)) & 1 };
    u8::try_from(2 * doublings as usize + upper_half).expect("a usize has no more than 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn waiting(layout: BatchLayout, entries: &[(&'static str, u32, usize, Priority)]) -> Waiting<&'static str> {
        let began = Instant::now();
        let mut waiting = Waiting::new(began, layout, 100 * MS);
        for &(payload, at_ms, weight, priority) in entries {
            let arrived = began + at_ms * MS;
            let id = waiting.name(arrived, weight, priority);
            let excluded = ExcludedDevices::default();
            waiting.push(Entry { id, payload, weight, arrived, deadline: None, priority, excluded });
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
            order(waiting(BatchLayout::Packed, &[("a", 0, 9, normal), ("b", 0, 1, normal), ("c", 5, 1, normal)])),
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
        assert_eq!(order(waiting(BatchLayout::Packed, &entries)), ["high", "normal", "low", "late high"]);
    }

    #[test]
    fn weight_ahead_is_that_of_the_same_and_higher_priorities() {
        let waiting = waiting(
            BatchLayout::Packed,
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
        let waiting = waiting(BatchLayout::Padded, &entries);
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
