//! Collective operations of the lanes of a warp.

use super::Machine;
use super::access::combine;
use super::execute::Flow;
use super::fault::FaultKind;
use super::lanes::{Lanes, lanes_of, true_lanes};
use super::matrix;
use super::warp::Warp;
use crate::ptx::operation::{Operation, ShuffleMode, VoteMode};

impl Machine<'_> {
    /// Executes a collective operation once all lanes of its mask have reached it.
    pub fn collective(&mut self, warp: &mut Warp, operation: &Operation, mask: u32) -> Result<Flow, FaultKind> {
        if let Operation::Mma { shape, d, a, b, c } = operation {
            if mask != u32::MAX {
                // Each of the 32 lanes holds a part of the matrices.
                return Ok(Flow::WaitForLanes);
            }
            let read = |sources: &[_]| sources.iter().map(|source| *self.get(warp, *source)).collect::<Vec<Lanes>>();
            let result = matrix::multiply(shape, &read(a), &read(b), &read(c));
            for (register, value) in d.iter().zip(&result) {
                warp.set(*register, mask, value);
            }
            return Ok(Flow::Next);
        }
        let members = match operation {
            Operation::Shuffle { mask, .. }
            | Operation::Vote { mask, .. }
            | Operation::Match { mask, .. }
            | Operation::Reduce { mask, .. }
            | Operation::Elect { mask, .. }
            | Operation::WarpBarrier { mask } => *mask,
            other => unreachable!("{other:?} is not collective"),
        };
        let members = self.uniform(warp, members, mask);
        if let Some(lane) = lanes_of(mask & !members).next() {
            return Err(FaultKind::NotInMask { lane: lane as u32, mask: members });
        }
        if members & warp.live & !mask != 0 {
            return Ok(Flow::WaitForLanes);
        }
        if let Operation::WarpBarrier { .. } = operation {
            return Ok(Flow::WarpSync);
        }
        self.combine_lanes(warp, operation, mask)?;
        Ok(Flow::Next)
    }

    fn combine_lanes(&mut self, warp: &mut Warp, operation: &Operation, mask: u32) -> Result<(), FaultKind> {
        match operation {
            Operation::Shuffle { mode, d, in_range, a, b, clamp, .. } => {
                let [a, b, clamp] = [a, b, clamp].map(|source| *self.get(warp, *source));
                let (mut out, mut valid) = ([0; 32], [0; 32]);
                for lane in lanes_of(mask) {
                    let (from, ok) = shuffle_source(*mode, lane, b[lane] as u32 & 31, clamp[lane] as u32);
                    let from = if ok { from } else { lane };
                    if mask >> from & 1 == 0 {
                        return Err(FaultKind::InactiveLane { lane: lane as u32, from: from as u32 });
                    }
                    out[lane] = a[from] & 0xffff_ffff;
                    valid[lane] = u64::from(ok);
                }
                warp.set(*d, mask, &out);
                warp.set(*in_range, mask, &valid);
            }
            Operation::Vote { mode, d, predicate, negated, .. } => {
                let holds = true_lanes(self.get(warp, *predicate), mask);
                let holds = if *negated { mask & !holds } else { holds };
                let value = match mode {
                    VoteMode::All => u64::from(holds == mask),
                    VoteMode::Any => u64::from(holds != 0),
                    VoteMode::Uniform => u64::from(holds == mask || holds == 0),
                    VoteMode::Ballot => u64::from(holds),
                };
                warp.set(*d, mask, &[value; 32]);
            }
            Operation::Match { all, ty, d, agrees, a, .. } => {
                let low = u64::MAX >> (64 - ty.bits());
                let values = self.get(warp, *a).map(|value| value & low);
                let mut out = [0; 32];
                for lane in lanes_of(mask) {
                    out[lane] =
                        lanes_of(mask).filter(|other| values[*other] == values[lane]).map(|other| 1u64 << other).sum();
                }
                let agree = lanes_of(mask).all(|lane| out[lane] == u64::from(mask));
                if *all && !agree {
                    out = [0; 32];
                }
                warp.set(*d, mask, &out);
                warp.set(*agrees, mask, &[u64::from(agree); 32]);
            }
            Operation::Reduce { op, ty, d, a, .. } => {
                let values = *self.get(warp, *a);
                let mut lanes = lanes_of(mask);
                let first = lanes.next().map_or(0, |lane| values[lane]);
                let value = lanes.fold(first, |sum, lane| combine(*op, *ty, sum, values[lane], 0));
                warp.set(*d, mask, &[value; 32]);
            }
            Operation::Elect { d, predicate, .. } => {
                let leader = mask.trailing_zeros();
                let mut chosen = [0; 32];
                chosen[leader as usize] = 1;
                warp.set(*d, mask, &[u64::from(leader); 32]);
                warp.set(*predicate, mask, &chosen);
            }
            other => unreachable!("{other:?} is not collective"),
        }
        Ok(())
    }
}

/// The lane that `lane` reads from, and true if it is within the segment (the pseudocode of `shfl` in the manual).
fn shuffle_source(mode: ShuffleMode, lane: usize, amount: u32, clamp: u32) -> (usize, bool) {
    let lane = lane as i32;
    let amount = amount as i32;
    let segment = (clamp >> 8 & 31) as i32;
    let clamp = (clamp & 31) as i32;
    let limit = lane & segment | clamp & !segment;
    let first = lane & segment;
    let (from, ok) = match mode {
        ShuffleMode::Up => (lane - amount, lane - amount >= limit),
        ShuffleMode::Down => (lane + amount, lane + amount <= limit),
        ShuffleMode::Butterfly => (lane ^ amount, lane ^ amount <= limit),
        ShuffleMode::Index => {
            let from = first | amount & !segment;
            (from, from <= limit)
        }
    };
    ((from & 31) as usize, ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_stay_within_their_segment() {
        assert_eq!(shuffle_source(ShuffleMode::Down, 3, 4, 0x1f), (7, true));
        assert!(!shuffle_source(ShuffleMode::Down, 30, 4, 0x1f).1);
        assert_eq!(shuffle_source(ShuffleMode::Up, 5, 2, 0), (3, true));
        assert!(!shuffle_source(ShuffleMode::Up, 1, 2, 0).1);
        // Segments of 16 lanes: lane 17 cannot read below 16.
        assert!(!shuffle_source(ShuffleMode::Up, 17, 2, 0x1000).1);
        assert_eq!(shuffle_source(ShuffleMode::Index, 20, 3, 0x101f), (19, true));
        assert_eq!(shuffle_source(ShuffleMode::Butterfly, 5, 16, 0x1f), (21, true));
    }
}
