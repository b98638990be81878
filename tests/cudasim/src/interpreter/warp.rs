//! A warp: 32 lanes with one program counter, or one for each fragment where they have diverged.
//!
//! The fragment that is furthest behind runs, and joins another where they meet. A fragment that must meet others
//! (a `.sync` instruction, a barrier) steps aside until they come; if nothing else can run, the warp is deadlocked.

use super::Machine;
use super::copies::Copies;
use super::execute::Flow;
use super::fault::FaultKind;
use super::lanes::{Lanes, lanes_of, true_lanes};
use super::shared::{Accessor, SharedMemory};
use crate::ptx::Program;
use crate::ptx::operation::{BarrierReduction, Register};
use crate::ptx::types::Special;

/// Backward jumps of a fragment after which the other fragments have a turn.
const SPINS: u32 = 1000;

/// Lanes at the same instruction.
#[derive(Clone, Copy, Debug)]
struct Fragment {
    pc: usize,
    lanes: u32,
    /// Set while the fragment waits for lanes that are elsewhere.
    aside: Option<Aside>,
    /// Backward jumps since the other fragments last had a turn.
    spins: u32,
}

impl Fragment {
    fn new(pc: usize, lanes: u32) -> Self {
        Self { pc, lanes, aside: None, spins: 0 }
    }
}

/// The reason why a fragment stepped aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aside {
    /// The other lanes of a `.sync` instruction.
    Lanes,
    /// The other lanes of the warp, at a barrier of the block.
    Barrier,
    /// A turn for the other fragments.
    Yield,
}

/// A warp that waits at a barrier of its block.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub barrier: u32,
    pub threads: Option<u32>,
    /// The instruction.
    pub at: usize,
    /// For `bar.red`: its operation, and the lanes whose predicate holds.
    pub reduction: Option<(BarrierReduction, u32)>,
}

/// The reason why a warp stopped running.
pub enum Stop {
    Done,
    Barrier(Waiting),
    /// The end of its turn.
    Turn,
}

/// One warp.
pub struct Warp {
    pub id: u32,
    pub registers: Vec<Lanes>,
    pub local: Vec<u8>,
    pub local_stride: usize,
    pub copies: Copies,
    /// Lanes that have not ended yet.
    pub live: u32,
    pub waiting: Option<Waiting>,
    fragments: Vec<Fragment>,
    /// Lanes that existed at the start.
    started: u32,
    /// Time of the last `bar.warp.sync`.
    time: u32,
    /// Barriers that were passed by `bar.arrive`, without waiting, and the number of threads.
    arrived: Vec<(u32, u32)>,
    reduction_register: Register,
}

impl Warp {
    /// Allocates registers and local memory for a warp.
    pub fn new(id: u32, program: &Program) -> Self {
        Self {
            id,
            registers: vec![[0; 32]; program.registers],
            local: vec![0; program.local_bytes * 32],
            local_stride: program.local_bytes,
            copies: Copies::default(),
            live: 0,
            waiting: None,
            fragments: Vec::new(),
            started: 0,
            time: 0,
            arrived: Vec::new(),
            reduction_register: 0,
        }
    }

    /// Starts the warp as part of the block at `block`.
    pub fn start(&mut self, block: [u32; 3], machine: &Machine) {
        let threads = machine.launch.threads() - self.id * 32;
        self.live = if threads >= 32 { u32::MAX } else { (1 << threads) - 1 };
        self.started = self.live;
        self.waiting = None;
        self.arrived.clear();
        self.fragments.clear();
        self.fragments.push(Fragment::new(0, self.live));
        self.time = 0;
        self.copies.clear();
        self.local.fill(0xff);
        for (register, special) in &machine.program.specials {
            self.registers[*register as usize] = self.special(*special, block, machine);
        }
    }

    fn special(&self, special: Special, index: [u32; 3], machine: &Machine) -> Lanes {
        let launch = machine.launch;
        let [width, height, _] = launch.block;
        let mut out = [0; 32];
        for (lane, out) in (0..32u32).zip(&mut out) {
            let thread = self.id * 32 + lane;
            let below = (1u64 << lane) - 1;
            *out = match special {
                Special::ThreadIndex(0) => u64::from(thread % width),
                Special::ThreadIndex(1) => u64::from(thread / width % height),
                Special::ThreadIndex(_) => u64::from(thread / width / height),
                Special::BlockSize(axis) => u64::from(launch.block[axis as usize]),
                Special::BlockIndex(axis) => u64::from(index[axis as usize]),
                Special::GridSize(axis) => u64::from(launch.grid[axis as usize]),
                Special::Lane => u64::from(lane),
                Special::Warp => u64::from(self.id),
                Special::Warps => u64::from(launch.threads().div_ceil(32)),
                Special::LanesBelow => below,
                Special::LanesUpTo => below | 1 << lane,
                Special::LanesAbove => !(below | 1 << lane) & 0xffff_ffff,
                Special::LanesFrom => !below & 0xffff_ffff,
                Special::LaneBit => 1 << lane,
                Special::DynamicSharedBytes => launch.dynamic_shared_bytes as u64,
                Special::TotalSharedBytes => (machine.program.static_shared_bytes + launch.dynamic_shared_bytes) as u64,
                Special::Zero | Special::Clock => 0,
            };
        }
        out
    }

    /// True if all lanes have ended.
    pub fn is_done(&self) -> bool {
        self.live == 0
    }

    /// Number of lanes that have not ended.
    pub fn live_lanes(&self) -> u32 {
        self.live.count_ones()
    }

    /// Number of lanes that have ended.
    pub fn ended_lanes(&self) -> u32 {
        (self.started & !self.live).count_ones()
    }

    /// Lane `lane` as an accessor of shared memory.
    pub fn accessor(&self, lane: usize) -> Accessor {
        Accessor { thread: self.id * 32 + lane as u32, warp_time: self.time }
    }

    /// Number of threads of this warp that passed barrier `id` without waiting.
    pub fn arrivals(&self, id: u32) -> u32 {
        self.arrived.iter().filter(|(barrier, _)| *barrier == id).map(|(_, lanes)| lanes).sum()
    }

    /// Forgets the arrivals at a barrier that is complete.
    pub fn clear_arrivals(&mut self, id: u32) {
        self.arrived.retain(|(barrier, _)| *barrier != id);
    }

    /// Sets the result of a `bar.red`.
    pub fn finish_reduction(&mut self, value: u64) {
        for lane in lanes_of(self.live) {
            self.registers[self.reduction_register as usize][lane] = value;
        }
    }

    /// Runs until the warp ends, waits at a barrier, or has executed `turn` instructions.
    pub fn run(
        &mut self,
        machine: &mut Machine,
        shared: &mut SharedMemory,
        turn: u64,
    ) -> Result<Stop, (FaultKind, usize)> {
        let end = machine.executed + turn;
        loop {
            let Some(at) = self.next_fragment()? else { return Ok(Stop::Done) };
            if let Some(stop) = self.run_fragment(at, machine, shared, end)? {
                return Ok(stop);
            }
            if machine.executed >= end {
                return Ok(Stop::Turn);
            }
        }
    }

    /// The fragment that is furthest behind among those that can run, joined with those at the same place.
    fn next_fragment(&mut self) -> Result<Option<usize>, (FaultKind, usize)> {
        if self.fragments.is_empty() {
            self.live = 0;
            return Ok(None);
        }
        let runnable = |fragment: &&Fragment| fragment.aside.is_none();
        let behind = self.fragments.iter().filter(runnable).map(|fragment| fragment.pc).min();
        let Some(pc) = behind else {
            let yielding = |fragment: &Fragment| fragment.aside == Some(Aside::Yield);
            if self.fragments.iter().any(yielding) {
                for fragment in self.fragments.iter_mut().filter(|fragment| yielding(fragment)) {
                    fragment.aside = None;
                }
                return self.next_fragment();
            }
            return Err(self.stuck());
        };
        let mut joined = Fragment::new(pc, 0);
        self.fragments.retain(|fragment| {
            let joins = fragment.pc == pc;
            if joins {
                joined.lanes |= fragment.lanes;
                joined.spins = joined.spins.max(fragment.spins);
            }
            !joins
        });
        self.fragments.push(joined);
        Ok(Some(self.fragments.len() - 1))
    }

    /// The fault of a warp whose fragments all wait for each other.
    fn stuck(&self) -> (FaultKind, usize) {
        let first = self.fragments[0];
        let places: Vec<String> = self
            .fragments
            .iter()
            .map(|fragment| format!("lanes {:#010x} at instruction {}", fragment.lanes, fragment.pc))
            .collect();
        let what = format!("lanes of warp {} wait for each other at different places: {}", self.id, places.join(", "));
        if self.fragments.iter().any(|fragment| fragment.aside == Some(Aside::Barrier)) {
            (FaultKind::BarrierDivergence { what }, first.pc)
        } else {
            (FaultKind::Deadlock { what }, first.pc)
        }
    }

    /// Runs one fragment until it meets another, splits, or the warp stops.
    fn run_fragment(
        &mut self,
        at: usize,
        machine: &mut Machine,
        shared: &mut SharedMemory,
        end: u64,
    ) -> Result<Option<Stop>, (FaultKind, usize)> {
        let Fragment { mut pc, lanes, .. } = self.fragments[at];
        // The next place of another fragment, at which the two join.
        let meets =
            self.fragments.iter().filter(|other| other.lanes != lanes && other.pc > pc).map(|other| other.pc).min();
        let meets = meets.unwrap_or(usize::MAX);
        let alone = self.fragments.len() == 1;
        let program = machine.program;
        loop {
            if pc >= meets || machine.executed >= end {
                self.fragments[at].pc = pc;
                return Ok(None);
            }
            let instruction = &program.instructions[pc];
            machine.executed += 1;
            if machine.executed > machine.launch.max_instructions {
                return Err((FaultKind::TooLong { max: machine.launch.max_instructions }, pc));
            }
            let active = match instruction.guard {
                None => lanes,
                Some((predicate, negated)) => {
                    let holds = true_lanes(&self.registers[predicate as usize], lanes);
                    if negated { lanes & !holds } else { holds }
                }
            };
            if active == 0 {
                pc += 1;
                continue;
            }
            let flow = machine.execute(self, shared, &instruction.operation, active).map_err(|kind| (kind, pc))?;
            match flow {
                Flow::Next => pc += 1,
                Flow::Jump(target) if active == lanes && (alone || target > pc) => pc = target,
                Flow::WarpSync => {
                    self.time = shared.warp_barrier();
                    pc += 1;
                }
                Flow::Arrive(barrier) => {
                    self.arrived.push((barrier, active.count_ones()));
                    pc += 1;
                }
                other => {
                    self.fragments[at].pc = pc;
                    return self.interrupt(at, other, active);
                }
            }
        }
    }

    /// Handles a jump, wait or end that affects other lanes of the fragment or other fragments.
    fn interrupt(&mut self, at: usize, flow: Flow, active: u32) -> Result<Option<Stop>, (FaultKind, usize)> {
        let Fragment { pc, lanes, spins, .. } = self.fragments[at];
        let here = Fragment { spins, ..Fragment::new(pc, lanes) };
        match flow {
            Flow::Jump(target) if active == lanes => {
                // The target may be behind other fragments: the next one to run is chosen anew.
                let yields = spins >= SPINS;
                self.fragments[at] = Fragment {
                    spins: if yields { 0 } else { spins + 1 },
                    aside: yields.then_some(Aside::Yield),
                    ..Fragment::new(target, lanes)
                };
            }
            Flow::Jump(target) => {
                self.fragments[at] = Fragment { pc: pc + 1, lanes: lanes & !active, ..here };
                self.fragments.push(Fragment { pc: target, lanes: active, ..here });
            }
            Flow::Scatter(targets) => {
                self.fragments[at] = Fragment { pc: pc + 1, lanes: lanes & !active, ..here };
                self.fragments.extend(targets.into_iter().map(|(pc, lanes)| Fragment { pc, lanes, ..here }));
                self.fragments.retain(|fragment| fragment.lanes != 0);
            }
            Flow::Exit => self.exit(at, active, pc)?,
            Flow::WaitForLanes => self.fragments[at].aside = Some(Aside::Lanes),
            Flow::Barrier(..) if lanes != self.live => self.fragments[at].aside = Some(Aside::Barrier),
            Flow::Barrier(..) if active != lanes => {
                let what = format!("lanes {:#010x} of warp {} pass a guarded barrier by", lanes & !active, self.id);
                return Err((FaultKind::BarrierDivergence { what }, pc));
            }
            Flow::Barrier(waiting, register) => {
                self.reduction_register = register;
                self.fragments[at].pc = pc + 1;
                return Ok(Some(Stop::Barrier(Waiting { at: pc, ..waiting })));
            }
            Flow::Next | Flow::WarpSync | Flow::Arrive(_) => unreachable!("these go on with the next instruction"),
        }
        Ok(None)
    }

    /// Ends `lanes` and wakes the fragments that waited for them.
    fn exit(&mut self, at: usize, lanes: u32, pc: usize) -> Result<(), (FaultKind, usize)> {
        self.live &= !lanes;
        if let Some(fragment) = self.fragments.iter().find(|fragment| fragment.aside == Some(Aside::Barrier)) {
            let what = format!(
                "lanes {:#010x} of warp {} wait at a barrier that lanes {lanes:#010x} end without reaching",
                fragment.lanes, self.id
            );
            return Err((FaultKind::BarrierDivergence { what }, fragment.pc));
        }
        self.fragments[at].lanes &= !lanes;
        self.fragments[at].pc = pc + 1;
        if self.fragments[at].lanes == 0 {
            self.fragments.swap_remove(at);
        }
        for fragment in &mut self.fragments {
            fragment.aside = None;
        }
        Ok(())
    }
}
