//! Asynchronous copies from global to shared memory, kept per thread until it waits for them.

use std::collections::VecDeque;

/// A copy that is in flight.
#[derive(Clone, Debug)]
pub struct Copy {
    pub lane: usize,
    /// Address in shared memory.
    pub to: u64,
    pub data: Vec<u8>,
}

/// The copies of a warp's threads. Each thread has its own groups.
#[derive(Debug, Default)]
pub struct Copies {
    lanes: Vec<LaneCopies>,
}

#[derive(Debug, Default)]
struct LaneCopies {
    open: Vec<Copy>,
    groups: VecDeque<Vec<Copy>>,
}

impl Copies {
    /// Forgets all copies: a new block begins.
    pub fn clear(&mut self) {
        self.lanes.clear();
    }

    fn lane(&mut self, lane: usize) -> &mut LaneCopies {
        if self.lanes.is_empty() {
            self.lanes.resize_with(32, LaneCopies::default);
        }
        &mut self.lanes[lane]
    }

    /// Starts a copy.
    pub fn start(&mut self, copy: Copy) {
        self.lane(copy.lane).open.push(copy);
    }

    /// Makes a group of the copies of `lane` since the last commit.
    pub fn commit(&mut self, lane: usize) {
        let copies = self.lane(lane);
        let group = std::mem::take(&mut copies.open);
        copies.groups.push_back(group);
    }

    /// Takes the copies of `lane` that have landed once at most `pending` groups are in flight; all with `None`.
    pub fn wait(&mut self, lane: usize, pending: Option<usize>) -> Vec<Copy> {
        let copies = self.lane(lane);
        let mut landed = Vec::new();
        while copies.groups.len() > pending.unwrap_or(0) {
            landed.extend(copies.groups.pop_front().unwrap_or_default());
        }
        if pending.is_none() {
            landed.append(&mut copies.open);
        }
        landed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_lands_the_oldest_groups_first() {
        let mut copies = Copies::default();
        for to in [0, 16, 32] {
            copies.start(Copy { lane: 3, to, data: vec![0; 16] });
            copies.commit(3);
        }
        let landed: Vec<u64> = copies.wait(3, Some(1)).iter().map(|copy| copy.to).collect();
        assert_eq!(landed, [0, 16]);
        copies.start(Copy { lane: 3, to: 48, data: vec![0; 16] });
        assert_eq!(copies.wait(3, Some(0)).len(), 1);
        assert_eq!(copies.wait(3, None)[0].to, 48);
    }
}
