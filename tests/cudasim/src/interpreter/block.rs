//! The warps of a block, and the barriers between them.

use super::fault::{Fault, FaultKind};
use super::shared::SharedMemory;
use super::warp::{Stop, Waiting, Warp};
use super::{Launch, Machine};
use crate::ptx::Program;
use crate::ptx::operation::BarrierReduction;

/// Instructions that a warp runs before the next has its turn, so that a warp can wait for a write of another.
const TURN: u64 = 200_000;
/// Barriers of a block.
const BARRIERS: u32 = 16;

/// A running block.
pub struct Block {
    pub index: [u32; 3],
    pub shared: SharedMemory,
    warps: Vec<Warp>,
}

impl Block {
    /// Allocates registers and memory for the blocks of a launch, which run one after another.
    pub fn new(program: &Program, launch: &Launch) -> Self {
        let shared_bytes = if launch.dynamic_shared_bytes > 0 {
            program.dynamic_shared_start + launch.dynamic_shared_bytes
        } else {
            program.static_shared_bytes
        };
        Self {
            index: [0; 3],
            shared: SharedMemory::new(shared_bytes, launch.checks),
            warps: (0..launch.threads().div_ceil(32)).map(|id| Warp::new(id, program)).collect(),
        }
    }

    /// Starts the block at `index`.
    pub fn start(&mut self, index: [u32; 3], machine: &Machine) {
        self.index = index;
        self.shared.start_block();
        for warp in &mut self.warps {
            warp.start(index, machine);
        }
    }

    /// Runs the block to its end.
    pub fn run(&mut self, machine: &mut Machine) -> Result<(), Box<Fault>> {
        loop {
            let mut all_done = true;
            let mut progress = false;
            for at in 0..self.warps.len() {
                let warp = &mut self.warps[at];
                if warp.is_done() {
                    continue;
                }
                all_done = false;
                if warp.waiting.is_some() {
                    continue;
                }
                progress = true;
                let before = machine.executed;
                let stop = warp.run(machine, &mut self.shared, TURN);
                match stop {
                    Ok(Stop::Barrier(waiting)) => warp.waiting = Some(waiting),
                    Ok(Stop::Done | Stop::Turn) => {}
                    Err((kind, pc)) => return Err(self.fault(machine, kind, Some(pc), Some(at as u32))),
                }
                debug_assert!(machine.executed > before, "a warp that runs executes something");
            }
            if all_done {
                return Ok(());
            }
            let released = self.release_barriers().map_err(|(kind, warp)| self.fault(machine, kind, None, warp))?;
            if !progress && !released {
                let what = self.describe_waiting();
                return Err(self.fault(machine, FaultKind::Deadlock { what }, None, None));
            }
        }
    }

    /// Releases the warps of each complete barrier; returns true if there was one.
    fn release_barriers(&mut self) -> Result<bool, (FaultKind, Option<u32>)> {
        let mut released = false;
        for id in 0..BARRIERS {
            let arrived: Vec<usize> = (0..self.warps.len())
                .filter(|at| self.warps[*at].waiting.is_some_and(|waiting| waiting.barrier == id))
                .collect();
            let pending: u32 = self.warps.iter().map(|warp| warp.arrivals(id)).sum();
            if arrived.is_empty() {
                continue;
            }
            let first = self.warps[arrived[0]].waiting.expect("only waiting warps have arrived");
            let present: u32 = arrived.iter().map(|at| self.warps[*at].live_lanes()).sum::<u32>() + pending;
            let expected = match first.threads {
                Some(threads) => threads,
                None => self.warps.iter().map(Warp::live_lanes).sum(),
            };
            if present < expected {
                continue;
            }
            if first.threads.is_none() {
                self.check_same_barrier(&arrived)?;
            }
            self.reduce(first.reduction.map(|(mode, _)| mode), &arrived);
            for at in arrived {
                self.warps[at].waiting = None;
            }
            for warp in &mut self.warps {
                warp.clear_arrivals(id);
            }
            self.shared.block_barrier();
            released = true;
        }
        Ok(released)
    }

    /// All warps of a whole-block barrier must be at the same instruction, and none may have ended without it.
    fn check_same_barrier(&self, arrived: &[usize]) -> Result<(), (FaultKind, Option<u32>)> {
        let first = self.warps[arrived[0]].waiting.expect("only waiting warps have arrived");
        for at in arrived {
            let waiting = self.warps[*at].waiting.expect("only waiting warps have arrived");
            if waiting.at != first.at {
                let what = format!(
                    "warp {} waits at barrier instruction {}, warp {} at {}",
                    arrived[0], first.at, at, waiting.at
                );
                return Err((FaultKind::BarrierDivergence { what }, Some(*at as u32)));
            }
        }
        let ended = self.warps.iter().map(Warp::ended_lanes).sum::<u32>();
        if ended > 0 {
            let what = format!("{ended} threads of the block ended without reaching the barrier of the others");
            return Err((FaultKind::BarrierDivergence { what }, Some(arrived[0] as u32)));
        }
        Ok(())
    }

    /// Sets the result of a `bar.red`, the combined predicate, in every thread.
    fn reduce(&mut self, mode: Option<BarrierReduction>, arrived: &[usize]) {
        let Some(mode) = mode else { return };
        let mut holds = 0;
        let mut all = 0;
        for at in arrived {
            let (_, lanes) = self.warps[*at].waiting.and_then(|waiting| waiting.reduction).unwrap_or((mode, 0));
            holds += lanes.count_ones();
            all += self.warps[*at].live_lanes();
        }
        let value = match mode {
            BarrierReduction::Count => holds,
            BarrierReduction::And => u32::from(holds == all),
            BarrierReduction::Or => u32::from(holds > 0),
        };
        for at in arrived {
            self.warps[*at].finish_reduction(u64::from(value));
        }
    }

    fn describe_waiting(&self) -> String {
        let waits: Vec<String> = self
            .warps
            .iter()
            .filter_map(|warp| {
                let Waiting { barrier, threads, .. } = warp.waiting?;
                let threads = threads.map_or_else(|| "all".to_owned(), |threads| threads.to_string());
                Some(format!("warp {} waits at barrier {barrier} for {threads} threads", warp.id))
            })
            .collect();
        waits.join(", ")
    }

    #[expect(clippy::unnecessary_box_returns, reason = "the rare error must not widen every result")]
    fn fault(&self, machine: &Machine, kind: FaultKind, pc: Option<usize>, warp: Option<u32>) -> Box<Fault> {
        let program = machine.program;
        let instruction = pc.map_or_else(String::new, |pc| {
            let (start, end) = program.instructions[pc].text;
            program.source[start as usize..end as usize].split_whitespace().collect::<Vec<_>>().join(" ")
        });
        Box::new(Fault { kind, kernel: program.name.clone(), instruction, block: self.index, warp })
    }
}
